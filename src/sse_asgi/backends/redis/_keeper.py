"""One session after another: the task that connects a process to its hub.

For each session it connects, fences, subscribes to all channels, catches up, and probes the session until it ends. The
order matters. Publishing goes on as soon as the fence is passed, and the hub is up once the events that were published
meanwhile have been delivered. Readers notice only a delay.
"""

import asyncio
import contextlib
import logging
import random
from contextvars import Context
from functools import partial

from ..._log.event import Entry
from ..._log.logged import about
from ..._log.position import Position
from ..base import Sink
from ._address import Addresses
from ._backoff import Backoff
from ._current import CurrentSession
from ._cursor import Row
from ._history import CATCH_UP, HistoryReader, Page, decode
from ._inbox import ANOTHER_LIFE, Channel, Inbox
from ._keys import Keys
from ._link import LinkLostError
from ._outage import Outage
from ._pages import Pages
from ._reasons import UnusableError, explain
from ._resp import ReplyError
from ._scripts import Scripts
from ._session import Session

logger = logging.getLogger("sse_asgi.backends.redis")

PROBE_SECONDS = 2.5
CLOSE_SECONDS = 1.0
READINGS = 3
AT_ONCE = 200
START_SECONDS = 2.5


class SessionKeeper:
    """Keeps a session, from the first hub that is opened in this process to the last one that is closed.

    Attributes:
        loop: The event loop that it runs in.
        inbox: The channels that this process reads.
        current: The current session and its stages.
        tried: Set once the first attempt to connect has succeeded or failed.
        pages: The pages that are being read.
        reading: Held while a page of history is read. If all readers read at once, as after another life of the log
            began, a publish would wait behind all their pages, for so long that Redis would seem dead.
    """

    def __init__(
        self,
        addresses: Addresses,
        keys: Keys,
        scripts: Scripts,
        history_reader: HistoryReader,
        *,
        keeps: bool,
        timeout: float,
    ) -> None:
        """Start the task; `close` ends it."""
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(keys, keeps=keeps)
        self.current = CurrentSession()
        self.tried = asyncio.Event()
        self.pages = Pages()
        self.reading = asyncio.Semaphore(READINGS)
        self._acknowledged: Position | None = None
        self._addresses = addresses
        self._scripts = scripts
        self._history_reader = history_reader
        self._new_session = partial(Session, keys, self.inbox, timeout, self._on_end)
        self._sessions: list[Session] = []
        self._outage = Outage(addresses.shown)
        self._task = self.loop.create_task(
            self._run(), context=Context()
        )  # not the context of the request that opens the hub
        self._late = self.loop.call_later(START_SECONDS, self._start_without, context=Context())

    @property
    def session(self) -> Session | None:
        """The current session, once its fence is passed."""
        return self.current.session

    @property
    def up(self) -> bool:
        """True while there is no outage."""
        return self._outage.began is None

    @property
    def trouble(self) -> str:
        """The reason why there is no session, if it is known."""
        return self._outage.reason or self._addresses.waits_for

    async def close(self) -> None:
        """End the task and the connections."""
        self._late.cancel()
        self.current.close()
        self._task.cancel()
        closing = [closed for session in self._sessions for closed in session.close()]
        await asyncio.wait([self._task, *closing], timeout=CLOSE_SECONDS)

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            session = self._new_session()
            self._sessions = [*(one for one in self._sessions if not one.gone), session]
            self.inbox.fail, self.inbox.probe = session.fail, session.probe
            try:
                await self._begin(session)
                backoff.reset()
                failure = explain(await self._probe_until_end(session))
            except UnusableError as error:
                failure = error
            except (ReplyError, LinkLostError) as error:
                failure = explain(str(error))
            except Exception as error:
                if self._outage.is_new(repr(error)):  # not at each attempt
                    logger.exception(
                        "a session with Redis at %s failed", self._addresses.shown, extra=about("redis_session_failed")
                    )
                failure = UnusableError(repr(error))
            self._note(failure)
            session.fail("it could not be used")
            self.tried.set()
            await asyncio.sleep(backoff.after(failure))

    def _start_without(self) -> None:
        """Let the application start if a DNS look-up or a credential provider takes long."""
        if not self.tried.is_set() and self._addresses.waits_for:
            self._note(UnusableError(self._addresses.waits_for))
            self.tried.set()

    async def _begin(self, session: Session) -> None:
        await session.open(self._addresses)
        self.current.run_id, self.inbox.clock = session.server.run, session.server.clock
        await session.fence(self._scripts, self._known())
        session.check()
        self._outage.warn(session.server.evicts)  # before anything can be published
        self.current.set_fenced(session)
        await self._catch_up(session)
        session.check()
        self.current.set_live()
        if self._outage.end():
            self._report(up=True)
        self.tried.set()

    async def _probe_until_end(self, session: Session) -> str:
        """Probe the session from time to time; return the reason of its end."""
        while session.reason is None:
            if session.doubtful:
                with contextlib.suppress(LinkLostError):
                    await session.prove()
            else:
                session.probe()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PROBE_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - a spread
                    await session.ended.wait()
        return session.reason

    # For the backend

    async def commands(self) -> Session:
        """Return the current session, once its fence is passed.

        Raises:
            HubClosedError: The hub was closed.
        """
        return await self.current.fenced()

    async def subscribe(self, channels: dict[bytes, Channel]) -> None:
        """Subscribe to these channels.

        Raises:
            HubClosedError: The hub was closed.
        """
        while missing := {topic: channel for topic, channel in channels.items() if not channel.subscribed}:
            with contextlib.suppress(LinkLostError):  # then the next session subscribes
                await (await self.current.live()).subscribe(missing)
        await self.current.live()

    async def reach(self) -> None:
        """Deliver everything that was published so far.

        Raises:
            HubClosedError: The hub was closed.
            LinkLostError: The session ended.
        """
        await (await self.current.live()).subscribe({})

    async def follow(self, session: Session, epoch: str | None) -> None:
        """Move to the life of the log that a session has found.

        Raises:
            HubClosedError: The hub was closed.
        """
        known = self.inbox.position
        if session is self.session and self.current.is_live and known is not None and known.epoch != epoch:
            session.fail(ANOTHER_LIFE)
        await self.current.live()

    def unsubscribe(self, topics: list[bytes]) -> None:
        """Remove a user of each of these channels, and unsubscribe from those without users."""
        unused = [topic for topic in topics if self.inbox.remove_user(topic)]
        if unused and self.session is not None:
            self.session.unsubscribe(unused)

    def decode(self, row: Row, position: Position) -> Entry | None:
        """Return the entry of a row of history; None if the row is not of this library."""
        try:
            return decode(row, position)
        except ValueError:
            self.inbox.ignore(f"an entry of the channel {row.channel!r}")
            return None

    # The life of a session

    def _on_end(self) -> None:
        self.current.clear()
        self.inbox.reset()

    def _note(self, failure: UnusableError) -> None:
        if self._outage.begin(failure):
            self._report(up=False)

    def _report(self, *, up: bool) -> None:
        for sink in self.inbox.sinks:
            sink.state(up=up)

    def add(self, sink: Sink) -> None:
        """Add a sink, and report the position and an outage to it."""
        self.inbox.sinks.append(sink)
        if self.inbox.position is not None:
            sink.advance(self.inbox.position)
        if not self.up:
            sink.state(up=False)

    def _known(self) -> Position | None:
        position, acknowledged = self.inbox.position, self._acknowledged
        if position is None or acknowledged is None or position.epoch != acknowledged.epoch:
            return position or acknowledged
        return max(position, acknowledged)

    def acknowledge(self, session: Session, position: Position) -> None:
        """Remember the position of a publish: the next fence checks that the server still has the last one.

        Raises:
            LinkLostError: The session has ended, and the next one is with another server.
        """
        if session.server.run != self.current.run_id:
            reason = "another server had taken over when it answered"
            raise LinkLostError(reason)
        known = self.inbox.position
        if any(one is not None and position.sequence <= one.sequence for one in (known, self._acknowledged)):
            return  # overtaken, or the old position of an idempotency key
        self._acknowledged = position
        if known is not None and known.epoch != position.epoch and self.session is not None:
            self.session.fail(ANOTHER_LIFE)

    # Catching up

    async def _catch_up(self, session: Session) -> None:
        while True:
            mark = await session.subscribe(dict(self.inbox.channels), hold=True)
            if mark is None:
                self._begin_without_history()
            else:
                await self._catch_up_to(session, mark)
            if self.inbox.release_held():
                return

    def _begin_without_history(self) -> None:
        """Report a loss after an outage: without history the lost events are not known."""
        if self.current.was_live:
            self.inbox.lose("lost", None)

    async def _catch_up_to(self, session: Session, mark: Position) -> None:
        after = self.inbox.position
        if after is None or after.epoch != mark.epoch:
            self.inbox.begin(mark)
            return
        channels = [name for channel in self.inbox.channels.values() for name in channel.names]
        names = await self._history_reader.changed(session.server, channels, after)
        while names and after is not None:
            page = await self._history_reader.read(session.server, names, after, mark, CATCH_UP)
            if page.epoch != mark.epoch:
                raise LinkLostError(ANOTHER_LIFE)
            await self._deliver(session, page, mark.epoch)
            after = page.next
        self.inbox.advance(mark)

    async def _deliver(self, session: Session, page: Page, epoch: str) -> None:
        for name in {claim.stream.channel: None for claim in page.claims}:
            self.inbox.lose(None, (name,))  # each reader finds its gap from its own position
        for number, row in enumerate(page.rows, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # other tasks run, and the session may end
                session.check()
            position = Position(epoch, row.sequence)
            entry = self.decode(row, position)
            if entry is not None:  # its position is new: it is after every delivered event
                self.inbox.deliver(entry, position)
