"""Joining events that follow each other closely into one body for each reader.

The first event after a pause is sent at once, where it is offered: to hold it first, and to come back to each reader,
cost 6 % with 10,000 readers. Later events wait in the buffers of their readers until a turn of the event loop brings
none, but for JOIN_SECONDS at most. `publish` lets the event loop turn, so that without this a loop of ten publishes
would be ten bodies for each reader. A body with ten events costs a reader little more than a body with one.

If sending to all waiting readers takes longer than JOIN_SECONDS, events are joined for as long as sending would take,
until PAUSE_SECONDS bring none: the answers of Redis to a loop of publishes are some tenths of a millisecond apart.

Nothing overflows because it waits here. A full buffer is sent at once, and an event that needs the reader's own task
wakes that task.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from starlette.types import Message

from .._hub.delivery import Delivery
from .._hub.registry import PAUSE_SECONDS
from .._loop.running import LoopVar
from .._loop.timer import shared_timer
from .sender import Sender

JOIN_SECONDS = 0.005


class Joined(Protocol):
    """A connection that the joiner sends to without waking its task."""

    def take(self) -> bytes:
        """Take the pending bytes; no bytes if the connection's own task sends them, or if nothing is pending."""

    def pass_on(self, message: Message, now: float) -> bool:
        """Send a message at this time."""


class Joiner:
    """The connections of one event loop whose events wait to be joined.

    Attributes:
        timer: The event loop's, which has its time.
        sender: Sends without a task.
        seconds_each: How long sending to one connection took the last time.
    """

    def __init__(self) -> None:
        """Begin without connections."""
        self.timer = shared_timer()
        self.sender = Sender()
        self.seconds_each = 0.0
        self._waiting: dict[Joined, None] = {}
        self._when_sent: list[Callable[[float], None]] = []
        self._grew = False
        self._began = 0.0

    def add(self, connection: Joined, delivery: Delivery) -> None:
        """Send the pending events of this connection, of which this is the last, when no more events follow."""
        if delivery.when_sent is not None:
            self._when_sent.append(delivery.when_sent)
            delivery.when_sent = None
        if not self._waiting:
            self._began = delivery.now
            loop = asyncio.get_running_loop()
            loop.call_soon(self._look, loop)
        self._waiting[connection] = None
        self._grew = True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send, or wait for another turn of the event loop, or a moment, if the last one brought an event."""
        sending = len(self._waiting) * self.seconds_each
        grew, self._grew = self._grew, False
        if not grew or self.timer.now() >= self._began + max(JOIN_SECONDS, sending):
            self._send()
        elif sending < PAUSE_SECONDS:
            loop.call_soon(self._look, loop)
        else:
            loop.call_later(PAUSE_SECONDS, self._look, loop)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        now = self.timer.now()
        body, message = b"", {}
        for connection in waiting:
            pending = connection.take()
            if not pending:
                continue
            if pending is not body:  # most readers have the same single event
                body = pending
                message = {"type": "http.response.body", "body": body, "more_body": True}
            connection.pass_on(message, now)
        ended = self.timer.now()
        self.seconds_each = (ended - now) / len(waiting)
        when_sent, self._when_sent = self._when_sent, []
        for callback in when_sent:
            callback(ended)


_joiner: LoopVar[Joiner] = LoopVar(Joiner)


def current_joiner() -> Joiner:
    """Return the joiner of the running event loop."""
    return _joiner.get()
