"""Two connections to one server, used together and lost together: one for commands, one for pub/sub.

Every fault ends the session: a lost connection, a late answer, another epoch, a demoted master. The keeper then begins
the next session, which is the one way to recover. No command is sent before the fence. Both connections are to the same
process of the same server, so that a message that is published on one arrives on the other.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from ..._log.position import Position, new_epoch
from ._address import Addresses
from ._dial import Server, dial, learn_nodes
from ._inbox import ANOTHER_LIFE, Channel, Inbox
from ._keys import Keys
from ._link import Link, LinkLostError
from ._reasons import UnusableError
from ._resp import Argument, ReplyError
from ._scripts import Scripts

BATCH = 512
PLAIN_VERBS = "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"
SHARDED_VERBS = "SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE"
CLOSED = "the hub was closed"
CLOCK_WAS_SET = "its clock was set"
LATE_SECONDS = 4.0  # after a probe: the next one is due after at most 3
PROOF_SECONDS = 1.0

# Error replies after which nothing was done, and another server must be found.
ELSEWHERE = ("READONLY", "LOADING", "MASTERDOWN", "MOVED", "CLUSTERDOWN", "NOAUTH")
# Error replies after which nothing was done, and the same command can be sent again in a moment: a cluster moves the
# slot, so that some keys are on the other node; or a script of another client runs for long.
BUSY = ("BUSY",)
MOVING = ("TRYAGAIN", "ASK", *BUSY)
MOVING_SECONDS = 0.1


def is_elsewhere(error: ReplyError) -> bool:
    """Return True if an error reply ends the session."""
    return _says(error, ELSEWHERE)


def is_moving(error: ReplyError) -> bool:
    """Return True if the same command can be sent again in a moment."""
    return _says(error, MOVING)


def _is_busy(reply: Any) -> bool:
    """Return True if the reply says only that a script of another client runs for long."""
    return isinstance(reply, ReplyError) and _says(reply, BUSY)


def _says(error: ReplyError, words: tuple[str, ...]) -> bool:
    text = str(error)
    # Redis 6.2 wraps the errors of a script's commands.
    return text.partition(" ")[0] in words or any(f"-{word} " in text for word in words)


class Session:
    """One life of both connections: opened, then fenced, then used.

    Attributes:
        server: The server, with the command connection.
        verbs: PUBLISH, SUBSCRIBE and UNSUBSCRIBE, in their sharded forms on a cluster.
        reason: The reason why the session ended, or None.
        ended: Set when the session has ended.
    """

    def __init__(self, keys: Keys, inbox: Inbox, timeout: float, on_end: Callable[[], None]) -> None:
        """Prepare.

        Args:
            keys: The names of the hub.
            inbox: Receives the messages.
            timeout: Seconds that a reply may take.
            on_end: Called once at the end, before any task that waits for a reply goes on.
        """
        self.server: Server
        self.verbs: tuple[str, str, str]
        self.reason: str | None = None
        self.ended = asyncio.Event()
        self._keys = keys
        self._inbox = inbox
        self._timeout = timeout
        self._on_end = on_end
        self._messages: Link
        self._links: list[Link] = []
        self._began = time.monotonic()
        self._due = math.inf  # on the wall clock, which goes on while a laptop sleeps
        self._proof: asyncio.Future[None] | None = None

    async def open(self, addresses: Addresses) -> None:
        """Connect.

        Raises:
            UnusableError: No server answers and can carry a hub.
            LinkLostError: A connection was lost again.
        """
        self.server = self._own(await dial(addresses, self._keys.meta, partial(Link, self._timeout)))
        addresses.answered = True
        await learn_nodes(self.server, addresses)
        listen = partial(Link, self._timeout, self._inbox.receive)
        other = self._own(await dial(addresses, self._keys.meta, listen, self.server))
        self._messages = other.link
        if other.run != self.server.run:
            msg = "the two connections reached different servers"
            raise UnusableError(msg)
        self.verbs = SHARDED_VERBS if other.cluster else PLAIN_VERBS

    async def fence(self, scripts: Scripts, known: Position | None) -> None:
        """Let the server check that it still has everything up to the last position that this process knows.

        Raises:
            ReplyError: The server refuses the script.
            LinkLostError: The connection was lost again.
        """
        mine = known or Position("", 0)
        arguments: list[Argument] = [new_epoch(), self.server.run, mine.epoch, mine.sequence]
        await scripts.fence.run(self.server.link, [self._keys.meta], arguments)

    def _own(self, server: Server) -> Server:
        self._links.append(server.link)
        server.link.on_lost = self.fail
        return server

    def fail(self, reason: str) -> None:
        """End the session. Commands that were sent may still get their replies."""
        if self.reason is not None:
            return
        self.reason = reason
        self._on_end()
        self.ended.set()
        self._settle_proof()
        for link in self._links[:1]:
            link.retire()
        for link in self._links[1:]:
            link.close(reason)

    def check(self) -> None:
        """Raise an error if the session has ended.

        Raises:
            LinkLostError: The session has ended.
        """
        if self.reason is not None:
            raise LinkLostError(self.reason)

    @property
    def age(self) -> float:
        """The seconds since the session began."""
        return time.monotonic() - self._began

    @property
    def gone(self) -> bool:
        """True if every socket is closed."""
        return all(link.closed.done() for link in self._links)

    def close(self) -> list[asyncio.Future[None]]:
        """End the session at once; return futures that are done when the sockets are closed."""
        self.fail(CLOSED)
        for link in self._links:
            link.close(CLOSED)
        return [link.closed for link in self._links]

    # Reading

    async def subscribe(self, channels: dict[bytes, Channel], *, hold: bool = False) -> Position | None:
        """Subscribe; return the position after which every event of these channels arrives.

        Args:
            channels: The channels by their topics.
            hold: True to hold the events after that position until the inbox releases them.

        Raises:
            LinkLostError: The session ended.
        """
        topics = list(channels)
        for start in range(0, len(topics), BATCH):
            self._messages.post(self.verbs[1], *topics[start : start + BATCH])
        subscribed: asyncio.Future[Position | None] = asyncio.get_running_loop().create_future()
        expected = list(channels.values())

        def on_mark(mark: Position | None) -> None:
            if self.reason is None:
                self._inbox.mark_subscribed(expected, mark, hold=hold)
            if subscribed.done():
                return
            if self.reason is None:
                subscribed.set_result(mark)
            else:
                subscribed.set_exception(LinkLostError(self.reason))

        self._mark(on_mark, any_epoch=hold)
        return await subscribed

    def unsubscribe(self, topics: Collection[bytes]) -> None:
        """Unsubscribe."""
        self._inbox.expect_unsubscribed(topics)
        self._messages.post(self.verbs[2], *topics)

    # Liveness

    def probe(self) -> None:
        """Check that both connections are alive, the server is still a master, and the log is still the same."""
        self._due = time.time() + LATE_SECONDS
        self._mark(self._advance, patient=True)
        self.server.link.request(self._look_at_role, "ROLE")

    @property
    def doubtful(self) -> bool:
        """True if the next probe is so late that this process did not run, and no probe was answered since.

        The process was stopped, or the machine slept: a firewall or the server may have forgotten the connections.
        """
        return time.time() > self._due or self._is_proving()

    async def prove(self) -> None:
        """Find out within PROOF_SECONDS that both connections are alive.

        Raises:
            LinkLostError: A connection is dead; no command was sent.
        """
        proof = self._proof
        if proof is None or proof.done():
            loop = asyncio.get_running_loop()
            proof = self._proof = loop.create_future()
            loop.call_later(min(PROOF_SECONDS, self._timeout), self._judge, loop.time())
            self.probe()
            self.server.link.request(self._settle_proof, "ROLE")
        await asyncio.shield(proof)
        if self.reason is not None:
            raise LinkLostError(self.reason, sent=False)

    def _judge(self, asked: float) -> None:
        """End the session unless the probe was answered on one connection, and data arrived on the other."""
        reason = "no answer soon after this process had stood still"
        if self._is_proving():
            self.fail(reason)
            self.server.link.close(reason)
        elif self._messages.heard < asked:
            self.fail(reason)

    def _is_proving(self) -> bool:
        return self._proof is not None and not self._proof.done()

    def _settle_proof(self, _reply: object = None) -> None:
        if self._proof is not None and not self._proof.done():
            self._proof.set_result(None)

    def _advance(self, mark: Position | None) -> None:
        if self.reason is None:
            self._inbox.advance(mark)

    def _look_at_role(self, role: Any) -> None:
        if isinstance(role, Exception):
            if not _is_busy(role):
                self.fail(str(role))
        elif not isinstance(role, list) or role[0] != b"master":
            self.fail("it is not a master any more")

    def _mark(
        self, on_mark: Callable[[Position | None], None], *, any_epoch: bool = False, patient: bool = False
    ) -> None:
        """Read the mark: epoch and last sequence, on the connection of the messages, after every event up to it."""

        def on_reply(reply: Any) -> None:
            mark = None
            if patient and _is_busy(reply):
                return
            if isinstance(reply, Exception):
                self.fail(str(reply))
            elif self._inbox.keeps:
                mark = _read_mark(reply)
                self._check(mark, any_epoch=any_epoch)
            on_mark(mark)

        self._messages.request(on_reply, "HMGET", self._keys.meta, "e", "s")

    def _check(self, mark: Position | None, *, any_epoch: bool) -> None:
        known = self._inbox.position
        if mark is None:
            self.fail("its log is gone")
        elif known is None:
            pass
        elif mark.epoch != known.epoch:
            if not any_epoch:
                self.fail(ANOTHER_LIFE)
        elif mark.sequence < known.sequence:
            self.fail("it lost its last events")
        elif not any_epoch and self._inbox.is_beyond(mark.sequence):  # events up to it may have been ignored
            self.fail(CLOCK_WAS_SET)


def _read_mark(reply: list[bytes | None]) -> Position | None:
    epoch, sequence = reply
    return None if epoch is None or sequence is None else Position(epoch.decode(), int(sequence))
