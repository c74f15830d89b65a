"""Events that follow each other without a pause: the first goes out at once, those behind it are joined.

One body with ten events costs a reader little more than a body with one. Where many wait, so that sending takes long,
it is worth as long to join what comes meanwhile. Whoever is sent an event is noted while it is delivered; then it is
sent to all of them without a task for each, where that is known to work (_direct.py).
"""

import asyncio
import time
from typing import Protocol

import anyio.lowlevel
from starlette.types import Send

from ._direct import Sender, Unsent
from ._runtime import on_asyncio

PAUSE_SECONDS = 0.001
JOIN_SECONDS = 0.005
SEND_SECONDS = 15e-6  # what it takes to send to one reader, about


class Carrier(Protocol):
    """A connection, for which events wait."""

    @property
    def send(self) -> Send:
        """Return what takes its messages."""

    def begin(self, now: float) -> bytes:
        """Begin to send what waits, at this time; no bytes if its own task does, or there is nothing."""

    def carry_on(self, unsent: Unsent) -> None:
        """Go on with a send in its own task."""


class Burst:
    """Whom events wait for, in one event loop.

    Attributes:
        gathering: Whether an event is being delivered: whoever can send it without a task of its own is noted.
        sender: Sends what need not wait.
    """

    def __init__(self) -> None:
        """Wait for the first one."""
        self.gathering = False
        self.sender = Sender()
        self._loop = asyncio.get_running_loop() if on_asyncio() else None
        self._waiting: dict[Carrier, None] = {}
        self._lasts = self._goes_on = False
        self._began = 0.0

    def begin(self) -> None:
        """Begin to deliver an event."""
        self.gathering = self._loop is not None

    def note(self, carrier: Carrier) -> None:
        """Have it send what it has when this event, or this burst, has been delivered."""
        self._waiting[carrier] = None

    def end(self, *, at_once: bool) -> None:
        """End to deliver an event: send it at once, or wait some milliseconds for those that follow."""
        self.gathering = False
        if at_once:
            self._send()
        else:
            self._goes_on = True
            self._wait()

    def _wait(self) -> None:
        if self._loop is None:
            self._send()
        elif not self._lasts:
            self._lasts = True
            self._began = time.monotonic()
            self._loop.call_soon(self._look, self._loop)

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
            pending = carrier.begin(now)
            if not pending:
                continue
            if pending is not body:  # most have the same event, and none of these servers changes a message
                body = pending
                message = {"type": "http.response.body", "body": body, "more_body": True}
            unsent = self.sender.send(carrier.send, message)
            if unsent is not None:
                carrier.carry_on(unsent)


_burst: anyio.lowlevel.RunVar[Burst] = anyio.lowlevel.RunVar("_burst")


def current_burst() -> Burst:
    """Return the burst of the running event loop."""
    burst = _burst.get(None)
    if burst is None:
        burst = Burst()
        _burst.set(burst)
    return burst
