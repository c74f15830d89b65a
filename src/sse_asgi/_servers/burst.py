"""Events that follow each other without a pause: the first goes out at once, those behind it are joined.

One body with ten events costs a reader little more than a body with one. Where many wait, so that sending takes long,
it is worth as long to join what comes meanwhile. The first is sent while it is delivered, and for the others whoever is
to be sent them is noted: neither takes a task for each reader, where that is known to work (_direct.py).
"""

import asyncio
import time
from typing import Protocol

import anyio.lowlevel
from starlette.types import Message

from .._loop.runtime import on_asyncio
from .direct import Sender

PAUSE_SECONDS = 0.001
JOIN_SECONDS = 0.005
SEND_SECONDS = 15e-6  # what it takes to send to one reader, about


class Carrier(Protocol):
    """A connection, for which events wait."""

    def take(self) -> bytes:
        """Take what is to be sent; no bytes if its own task does that, or there is nothing."""

    def pass_on(self, message: Message, now: float) -> bool:
        """Send that, at this time."""


class Burst:
    """Whom events wait for, in one event loop.

    Attributes:
        message: The event that is being delivered, where whoever rests is to send it at once; else None.
        gathering: Whether it waits for those that follow: whoever can send it without a task of its own is noted.
        now: When its delivery began.
        sender: Sends what need not wait.
    """

    def __init__(self) -> None:
        """Wait for the first one."""
        self.message: Message | None = None
        self.gathering = False
        self.now = 0.0
        self.sender = Sender()
        self._on_asyncio = on_asyncio()
        self._waiting: dict[Carrier, None] = {}
        self._lasts = self._goes_on = False
        self._began = 0.0

    def begin(self, frame: bytes, now: float, *, at_once: bool) -> None:
        """Begin to deliver an event, which is sent at once, or some milliseconds later with those that follow."""
        self.now = now
        self.gathering = self._on_asyncio and not at_once
        self.message = None
        if at_once and frame:  # one for all readers: none of these servers changes a message
            self.message = {"type": "http.response.body", "body": frame, "more_body": True}

    def note(self, carrier: Carrier) -> None:
        """Have it send what it has when this burst ends."""
        self._waiting[carrier] = None
        self._goes_on = True

    def end(self) -> None:
        """End to deliver an event."""
        self.message = None
        self.gathering = False
        if self._goes_on and not self._lasts:
            self._lasts = True
            self._began = self.now
            loop = asyncio.get_running_loop()
            loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for another turn of the event loop, or a moment, where there was an event in the last."""
        sending = len(self._waiting) * SEND_SECONDS
        goes_on, self._goes_on = self._goes_on, False
        if not goes_on or time.monotonic() >= self._began + max(JOIN_SECONDS, sending):
            self._lasts = False
            self._send()
        elif sending < PAUSE_SECONDS:
            loop.call_soon(self._look, loop)
        else:
            loop.call_later(PAUSE_SECONDS, self._look, loop)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, {}
        now = time.monotonic()
        body, message = b"", {}
        for carrier in waiting:
            pending = carrier.take()
            if not pending:
                continue
            if pending is not body:  # one event is the same for most
                body = pending
                message = {"type": "http.response.body", "body": body, "more_body": True}
            carrier.pass_on(message, now)


_burst: anyio.lowlevel.RunVar[Burst] = anyio.lowlevel.RunVar("_burst")


def current_burst() -> Burst:
    """Return the burst of the running event loop."""
    burst = _burst.get(None)
    if burst is None:
        burst = Burst()
        _burst.set(burst)
    return burst
