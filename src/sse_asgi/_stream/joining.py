"""Joining events that follow each other closely into one body for each reader.

The first event after a pause is sent at once. The events behind it wait in their readers' buffers until a turn of the
event loop brings none, but for JOIN_SECONDS at most: a body with ten events costs a reader little more than a body with
one. Where sending to everybody who waits takes longer than that, events are joined for as long as sending would take.
"""

import asyncio
import time
from typing import Protocol

import anyio.lowlevel
from starlette.types import Message

from .direct import Sender

PAUSE_SECONDS = 0.001
JOIN_SECONDS = 0.005


class Joined(Protocol):
    """A connection that is sent to without its own task."""

    def take(self) -> bytes:
        """Take what is to be sent; no bytes if the connection's own task sends it, or if there is nothing."""

    def pass_on(self, message: Message, now: float) -> bool:
        """Send a message at this time."""


class Joiner:
    """The connections of one event loop whose events wait to be joined.

    Attributes:
        sender: Sends whatever can be sent without waiting.
        seconds_each: How long sending to one connection took the last time.
    """

    def __init__(self) -> None:
        """Wait for the first connection."""
        self.sender = Sender()
        self.seconds_each = 0.0
        self._waiting: dict[Joined, None] = {}
        self._grew = False
        self._began = 0.0

    def add(self, connection: Joined, now: float) -> None:
        """Send what this connection has when the events have ended that follow each other."""
        if not self._waiting:
            self._began = now
            loop = asyncio.get_running_loop()
            loop.call_soon(self._look, loop)
        self._waiting[connection] = None
        self._grew = True

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for another turn of the event loop, or a moment, if the last one brought an event."""
        sending = len(self._waiting) * self.seconds_each
        grew, self._grew = self._grew, False
        if not grew or time.monotonic() >= self._began + max(JOIN_SECONDS, sending):
            self._send()
        elif sending < PAUSE_SECONDS:
            loop.call_soon(self._look, loop)
        else:
            loop.call_later(PAUSE_SECONDS, self._look, loop)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        now = time.monotonic()
        body, message = b"", {}
        for connection in waiting:
            pending = connection.take()
            if not pending:
                continue
            if pending is not body:  # one event is the same for most
                body = pending
                message = {"type": "http.response.body", "body": body, "more_body": True}
            connection.pass_on(message, now)
        self.seconds_each = (time.monotonic() - now) / len(waiting)


_joiner: anyio.lowlevel.RunVar[Joiner] = anyio.lowlevel.RunVar("_joiner")


def current_joiner() -> Joiner:
    """Return the joiner of the running event loop."""
    joiner = _joiner.get(None)
    if joiner is None:
        joiner = Joiner()
        _joiner.set(joiner)
    return joiner
