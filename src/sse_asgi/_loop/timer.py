"""One timer for each event loop, shared by all connections.

The event loop holds one handle, for the earliest alarm. Alarms of a second or more are rounded up to the next quarter
of a second, so that many pings are sent in one batch: 10,000 idle connections wake the process four times a second. An
alarm that is cancelled leaves its batch at once, and the objects of its callback are freed.
"""

import asyncio
import heapq
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.lowlevel

from ._trio import DeadlineHandle
from .running import LoopVar, on_asyncio
from .wakeup import new_wakeup

logger = logging.getLogger("sse_asgi.loop")

COARSE_SECONDS = 1.0  # from here on, alarms are rounded up
GRID_SECONDS = 0.25
EXACT_SECONDS = 2.0**-20  # the grid of a clock that a test moves
LOOK_SECONDS = 0.1
SHUTDOWN_SECONDS = 0.5  # a send, or the body of a request, has this long to end once the server stops


def spread(seconds: float) -> float:
    """Return a time that is longer or shorter by up to a fifth, so that many deadlines do not fall together."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret


class Timed(Protocol):
    """An object that the timer calls at a scheduled time."""

    def ring(self, now: float) -> None:
        """Act on the scheduled time; `now` is the timer's."""


class SystemTime(NamedTuple):
    """The time where there is no event loop yet, and so no timer.

    Attributes:
        now: Returns it, in seconds.
    """

    now: Callable[[], float] = time.monotonic


Batch = dict[Timed, None]  # the objects of one time; an object that is removed from it is not called


def _nothing() -> None:
    """Do nothing."""


class Alarm:
    """Calls a function at the time for which it is scheduled."""

    __slots__ = ("_callback", "batch")

    def __init__(self, callback: Callable[[], None] = _nothing) -> None:
        """Remember the function; nothing is scheduled yet."""
        self._callback = callback
        self.batch: Batch = {}

    def ring(self, now: float) -> None:  # noqa: ARG002 - other Timed objects need the time
        """Call the function."""
        self._callback()

    def cancel(self) -> None:
        """Leave the batch, and release the function."""
        self.batch.pop(self, None)
        self._callback = _nothing


class Limit(Alarm):
    """An alarm of a time limit, which rings twice before it calls its function.

    An event loop that was blocked finds its timers due before it has read the input that arrived in the meantime. The
    short wait between the two rings lets that input be handled first. It may show that the limit was kept.
    """

    __slots__ = ("_delay", "_looked", "_timer")

    def __init__(self, timer: "Timer", delay: float, callback: Callable[[], None]) -> None:
        """Remember the function; nothing is scheduled yet."""
        super().__init__(callback)
        self._timer = timer
        self._delay = delay
        self._looked = False

    def ring(self, now: float) -> None:
        """Schedule a second look, or call the function at the second look."""
        if self._looked:
            super().ring(now)
        else:
            self._looked = True
            self.batch = self._timer.schedule_again(self, self._delay, now)


class _CallLater:
    """Calls back at a deadline that can be moved, on asyncio."""

    __slots__ = ("_callback", "_context", "_handle", "_loop")

    def __init__(self, callback: Callable[[], None], context: Context) -> None:
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._context = context  # not the current one, that of a request: the timer sets its next deadline in it too
        self._handle: asyncio.TimerHandle | None = None

    def move(self, delay: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(delay, self._callback, context=self._context)


class Timer:
    """All the alarms of one event loop.

    Attributes:
        context: An empty context for callbacks of this event loop that belong to no request. The context variables of a
            request would live as long as the handle. Each event loop has its own, because two loops cannot run in one
            context at a time.
        now: Returns the time of this event loop, in seconds: time.monotonic, unless a test moves it.
    """

    def __init__(self) -> None:
        """Start with no alarms."""
        self.context = Context()
        self.now: Callable[[], float] = time.monotonic
        self._grid_seconds = GRID_SECONDS
        self._look_seconds = LOOK_SECONDS
        self._together: dict[Callable[[set[Any]], None], set[Any]] = {}
        self._scheduled: dict[float, Batch] = {}
        self._times: list[float] = []
        self._armed = math.inf
        self._handle = _CallLater(self.ring, self.context) if on_asyncio() else DeadlineHandle(self.ring)

    def after(self, delay: float, callback: Callable[[], None]) -> Alarm:
        """Call the function after `delay` seconds."""
        alarm, now = Alarm(callback), self.now()
        alarm.batch = self.schedule(alarm, now + delay, now)
        return alarm

    def limit(self, delay: float, callback: Callable[[], None]) -> Alarm:
        """Call the function after `delay` seconds, as a Limit does; never if the delay is infinite."""
        alarm, now = Limit(self, delay, callback), self.now()
        alarm.batch = self.schedule(alarm, now + delay, now)
        return alarm

    @contextmanager
    def move_on_after(self, delay: float, *, shield: bool = False) -> Iterator[anyio.CancelScope]:
        """Cancel the block after `delay` seconds, like anyio.move_on_after but with a Limit."""
        with anyio.CancelScope(shield=shield) as scope:
            alarm = self.limit(delay, scope.cancel)
            try:
                yield scope
            finally:
                alarm.cancel()

    def together(self, delay: float, callback: Callable[[set[Any]], None], item: Any) -> None:
        """Call the function once for many items.

        The first item for a function starts the delay. The function gets every item that was given until the delay is
        over.
        """
        items = self._together.get(callback)
        if items is None:
            items = self._together[callback] = set()
            self.after(delay, partial(self._hand_over, callback))
        items.add(item)

    async def sleep(self, delay: float) -> None:
        """Wait for `delay` seconds."""
        wakeup = new_wakeup()
        alarm = self.after(delay, wakeup.set)
        try:
            await wakeup
        finally:
            alarm.cancel()

    def _hand_over(self, callback: Callable[[set[Any]], None]) -> None:
        callback(self._together.pop(callback))

    def schedule(self, timed: Timed, when: float, now: float) -> Batch:
        """Schedule an object for a time of `now()`; removing it from the batch that is returned cancels it."""
        if when >= now + COARSE_SECONDS:
            if when == math.inf:
                return {}
            when = math.ceil(when / self._grid_seconds) * self._grid_seconds
        batch = self._scheduled.get(when)
        if batch is None:
            batch = self._scheduled[when] = {}
            heapq.heappush(self._times, when)
            if when < self._armed:
                self._arm(when)
        batch[timed] = None
        return batch

    def schedule_again(self, timed: Timed, patience: float, now: float) -> Batch:
        """Schedule the second look of a limit of `patience` seconds; see Limit."""
        return self.schedule(timed, now + min(self._look_seconds, patience / 4), now)

    def take_time_from(self, now: Callable[[], float]) -> None:
        """Take the time from a clock that a test moves, and be exact from then on: no rounding, no second look later.

        Args:
            now: Returns the time in seconds. It must not go back behind the time so far.
        """
        self.now, self._grid_seconds, self._look_seconds = now, EXACT_SECONDS, 0.0

    @property
    def next_time(self) -> float:
        """The time at which something may be due next; infinite if nothing is scheduled."""
        return self._times[0] if self._times else math.inf

    def _arm(self, when: float) -> None:
        self._armed = when
        self._handle.move(max(0.0, when - self.now()))

    def ring(self) -> None:
        """Call everything that is due, and set the event loop's handle for what is due next."""
        self._armed = math.inf
        now = self.now()
        due = []
        while self._times and self._times[0] <= now:
            due.append(self._scheduled.pop(heapq.heappop(self._times)))
        for batch in due:  # an object that a call schedules for now again waits for the next run
            for timed in list(batch):
                if timed not in batch:
                    continue
                try:
                    timed.ring(now)
                except Exception:  # the other objects of the batch must still be called
                    logger.exception("a callback of the timer failed", extra={"sse_event": "timer_callback_failed"})
            batch.clear()  # its alarms refer to it
        if self._times and self._times[0] < self._armed:
            self._arm(self._times[0])


_timer: LoopVar[Timer] = LoopVar(Timer)


def shared_timer() -> Timer:
    """Return the timer of the running event loop."""
    return _timer.get()
