"""Writer: the only place that calls a connection's `send`.

A connection's own task writes, and sleeps while there is nothing to write. The writer then rests, and other tasks send
for it without waking it: the registry sends an event that it delivers, the joiner sends events that follow each other
closely, the timer sends a ping, and a generator sends its next item. Most sends return without waiting. A send that has
to wait, because the client is slow, is left to the connection's task, and the writer does not rest again before that
send has returned. So one send is under way at a time, and bytes leave in the order in which the feed gave them.

Others send only frames that are the same for all readers, and only if the server allows it (`sender.py`).
"""

import asyncio
import time
from collections.abc import Callable

from starlette.types import Message, Send

from .._hub.delivery import PING, Delivery
from .._loop.running import checkpoint
from .._loop.tasks import Interrupt, current_task, new_interrupt
from .._loop.wakeup import Wakeup
from .._servers.known import may_be_stepped
from .feeds import Feed
from .joining import current_joiner
from .limits import Refusal
from .sender import Unsent, past_wrappers

CHECKPOINT_BYTES = 16 * 1024


class Writer:
    """Sends the frames of a feed to one client.

    Attributes:
        feed: Gives the bytes.
        rests: True if the connection's task sleeps, so that others may send.
        server_send: The request's `send`, past the wrappers that pass bodies on unchanged.
        sending: True if a send is under way that waits for the client.
        started: True if the head was sent.
        last: The time at which the last send began, by the timer's clock.
        ping_due: True if a silence has lasted long enough for a ping, or for the head of a stream without an event.
        until: The time at which writing stops, by time.monotonic(); None is never.
    """

    __slots__ = (
        "_direct",
        "_interrupt",
        "_joiner",
        "_opening",
        "_task",
        "_unsent",
        "_wakeup",
        "feed",
        "last",
        "ping_due",
        "rests",
        "sending",
        "server_send",
        "started",
        "until",
    )

    def __init__(self, feed: Feed, head: Message, greeting: bytes, send: Send, wakeup: Wakeup) -> None:
        """Prepare to write in the current task.

        Args:
            feed: Gives the bytes.
            head: The message before the first bytes.
            greeting: Sent in front of the first bytes.
            send: The request's.
            wakeup: Wakes the connection's task.
        """
        self.feed = feed
        # The head goes through the wrappers: guards tell their telemetry, and Starlette learns that there is an answer.
        self._opening: tuple[Message, bytes, Send] | None = (head, greeting, send)
        self.server_send = past_wrappers(send)
        self._direct = may_be_stepped(self.server_send)
        self._wakeup = wakeup
        self._task: asyncio.Task[None] | None = current_task()
        self._joiner = current_joiner()
        self._interrupt: Interrupt | None = None
        self._unsent: Unsent | None = None
        self.last = self._joiner.timer.now()
        self.rests = self.sending = self.started = self.ping_due = False
        self.until: float | None = None
        feed.attach(wakeup, self if self._direct else None)

    # In the connection's task

    async def write(self, pings: bool) -> None:  # noqa: FBT001 - called for each event
        """Send the pending bytes until nothing is left, or until it is time to stop.

        Args:
            pings: False omits a ping that is due, because the stream ends.
        """
        feed = self.feed
        with new_interrupt(self._task) as self._interrupt:
            if self._unsent is not None:
                await self._unsent
                self._unsent, self.sending = None, False
            while self.until is None or time.monotonic() < self.until:
                body = feed.take()
                if body and self.started:  # the same as emit, without two calls for each event
                    self.sending, self.ping_due, self.last = True, False, self._joiner.timer.now()
                    await self.server_send({"type": "http.response.body", "body": body, "more_body": True})
                    self.sending = False
                elif body or (self.ping_due and pings and self.until is None and not feed.ended):
                    await self.emit(body or (feed.ping() if self.started else b""))
                else:
                    break
                if len(body) > CHECKPOINT_BYTES:
                    await checkpoint()
        self._interrupt = None

    async def emit(self, body: bytes) -> None:
        """Send one body; the head and the greeting go before the first one."""
        self.sending, self.ping_due, self.last = True, False, self._joiner.timer.now()
        if self._opening is not None:
            (head, greeting, send), self._opening = self._opening, None
            self.started = True
            await send(head)
            body = (greeting + body) or PING
        await self.server_send({"type": "http.response.body", "body": body, "more_body": True})
        self.sending = False

    async def decline(self, refusal: Callable[[list[tuple[bytes, bytes]]], Refusal]) -> None:
        """Send a whole answer that takes the place of the head and the body.

        Args:
            refusal: Makes the answer, given the headers of the head.
        """
        assert self._opening is not None
        head, _, send = self._opening
        status, headers, body = refusal(head["headers"])
        self._opening, self.started = None, True
        await send({**head, "status": status, "headers": headers})
        await self.server_send({"type": "http.response.body", "body": body, "more_body": False})

    async def finish(self) -> None:
        """Send the final body."""
        await self.server_send({"type": "http.response.body", "body": b"", "more_body": False})

    def rest(self) -> None:
        """Let others send from now on, if the server allows it."""
        self.rests = self._direct and self.started

    # Called by others, while the writer rests

    def send(self, delivery: Delivery) -> bool:
        """Send the event that is being delivered; return False, and do nothing, if the writer does not rest."""
        if not self.rests:
            return False
        if delivery.message is None:  # one message for all readers: none of these servers changes it
            body = delivery.entry.frame
            delivery.message = {"type": "http.response.body", "body": body, "more_body": True}
        self.pass_on(delivery.message, delivery.now)
        return True

    def send_later(self, delivery: Delivery) -> None:
        """Send the pending events of the feed: together with those that follow, or now if the delivery goes at once."""
        if delivery.at_once:
            self.send_waiting()
        else:
            self._joiner.add(self, delivery)

    def send_waiting(self) -> None:
        """Send the pending events of the feed now, or wake the connection's task for it."""
        if body := self.take():  # the same as send_now, without a call for each ping
            self.pass_on({"type": "http.response.body", "body": body, "more_body": True}, self._joiner.timer.now())

    def send_now(self, body: bytes) -> bool:
        """Send a body; return False if the connection's task has to finish the send."""
        return self.pass_on({"type": "http.response.body", "body": body, "more_body": True}, self._joiner.timer.now())

    def take(self) -> bytes:
        """Return the bytes that others send for the connection's task; wake that task if there are none."""
        if self.rests and (body := self.feed.take_plain() or (self.feed.ping() if self.ping_due else b"")):
            return body
        self._wakeup.set()
        return b""

    def pass_on(self, message: Message, now: float) -> bool:
        """Send a message at this time; return False if the connection's task has to finish the send."""
        self.ping_due, self.last = False, now
        self._unsent = self._joiner.sender.send(self.server_send, message)
        if self._unsent is None:
            return True
        self.sending, self.rests = True, False
        self._wakeup.set()
        return False

    # The end

    def stop(self, until: float) -> None:
        """Begin no send after this time, and let others begin none from now on."""
        self.until, self.rests = until, False

    def give_up(self) -> None:
        """Break off a send that waits for a client that has disconnected."""
        if self._interrupt is not None:
            self._interrupt.cancel()

    def close(self) -> None:
        """Drop the rest of a send that is not finished."""
        if self._unsent is not None:
            self._unsent.close()
