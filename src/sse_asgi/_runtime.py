"""What the event loop gives: wake-ups, a shared timer, helper tasks, calls from other threads.

On asyncio these are bare futures, handles and tasks, because anyio's primitives cost more per event and per connection
than they give here (benchmarks/README.md); elsewhere, which today means trio, they are built on anyio and trio.
"""

import asyncio
import heapq
import logging
import math
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

import anyio
import anyio.lowlevel


def on_asyncio() -> bool:
    """Tell whether an asyncio loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_event_loop() -> bool:
    """Tell whether any event loop runs in this thread."""
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True


def running_loop() -> object | None:
    """Return the event loop that runs in this thread: asyncio's loop, trio's token, or None."""
    try:
        return anyio.lowlevel.current_token().native_token
    except RuntimeError:
        return None


async def checkpoint() -> None:
    """Let every other task that is ready run once."""
    if on_asyncio():
        await asyncio.sleep(0)
    else:  # trio runs what is ready in random order, so that only the second time everybody has had a turn
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()


class Signal(Protocol):
    """Whoever wants to know that there is something to do."""

    def set(self) -> None:
        """Let it know."""

    def carry(self) -> bool:
        """Have it send what is being delivered now; False if it cannot."""

    def note(self) -> None:
        """Let it know of something that may be joined with what follows."""

    def flush(self) -> None:
        """Have it take now what it let wait for others, if it can."""


class Wakeup(Signal, Protocol):
    """A flag with at most one waiter: awaiting it returns once `set` was called since it last returned.

    It may be lost on a waiter that is cancelled at the same time: look again at what you wait for before you wait.
    """

    def set(self) -> None:
        """Wake the waiter, or let the next wait return at once."""

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the flag and take it down."""


def new_wakeup() -> Wakeup:
    """Make the wake-up of the running event loop."""
    return _FutureWakeup() if on_asyncio() else _EventWakeup()


class _FutureWakeup:
    """Hands out a future itself, so that waiting needs no coroutine of its own."""

    __slots__ = ("_future", "_loop", "_set")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] | None = None
        self._set = False

    def set(self) -> None:
        future = self._future
        if future is None or future.done():
            self._set = True
        else:
            future.set_result(None)

    def carry(self) -> bool:
        return False

    def note(self) -> None:
        self.set()

    def flush(self) -> None:
        self.set()

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._set:
            self._future = self._loop.create_future()
            return self._future.__await__()
        self._set = False
        return _nothing()


def _nothing() -> Generator[Any, Any, None]:
    yield from ()


class _EventWakeup:
    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    def carry(self) -> bool:
        return False

    def note(self) -> None:
        self.set()

    def flush(self) -> None:
        self.set()

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self._event.wait().__await__()
        self._event = anyio.Event()


class Child(Protocol):
    """A helper task that outlives the scopes of the task that started it."""

    def cancel(self) -> object:
        """Cancel it: on asyncio once, so that it can await while it cleans up; on trio until it ends."""


def spawn(
    function: Callable[[], Coroutine[Any, Any, None]],
    done: Callable[[], None] | None = None,
    *,
    context: Context | None = None,
) -> Child:
    """Run a function in a task of its own, and call back when it has ended or not begun.

    The function must handle its own exceptions. A task that may outlive the request that starts it gets an empty
    `context`: the variables of that request, and all that they hold, would live as long as the task.

    Args:
        function: What the task runs.
        done: Called back.
        context: Where the task runs; None is a copy of this context.
    """
    if not on_asyncio():
        return _TrioChild(function, done, copy_context() if context is None else context)
    task = asyncio.get_running_loop().create_task(function(), context=context)
    if done is not None:
        task.add_done_callback(lambda _: done())
    return task


class _TrioChild:
    def __init__(
        self, function: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], None] | None, context: Context
    ) -> None:
        import trio  # noqa: PLC0415 - only where trio runs, so it is there

        self._function = function
        self._done = done
        self._scope = anyio.CancelScope()
        trio.lowlevel.spawn_system_task(self._run, context=context)

    async def _run(self) -> None:
        try:
            with self._scope:
                await self._function()
        finally:
            if self._done is not None:
                self._done()

    def cancel(self) -> None:
        self._scope.cancel()


def coroutines() -> list[Any]:
    """Return what every task of this event loop runs."""
    if on_asyncio():
        return [task.get_coro() for task in asyncio.all_tasks()]
    import trio  # noqa: PLC0415 - only where trio runs, so it is there

    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks = [root]
    for task in tasks:
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [task.coro for task in tasks]


class Interrupt(Protocol):
    """A `with` block of one task that others can break off, once, while it awaits."""

    def __enter__(self) -> Any:
        """Begin the block."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> bool | None:
        """End the block, quietly if it was broken off."""

    def cancel(self) -> None:
        """Break the block off; must not be called from inside it."""


def current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs, on asyncio."""
    return asyncio.current_task() if on_asyncio() else None


def new_interrupt(task: asyncio.Task[Any] | None) -> Interrupt:
    """Make an interrupt for this task, the current one, which who knows need not look up."""
    return anyio.CancelScope() if task is None else _TaskInterrupt(task)


class _TaskInterrupt:
    """What asyncio.timeout does, without the timeout: a tenth of the memory of a cancel scope."""

    __slots__ = ("_called", "_cancelling", "_task")

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task: asyncio.Task[Any] | None = task
        self._called = False
        self._cancelling = task.cancelling()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None, /
    ) -> bool:
        task, self._task = self._task, None
        if not self._called or task is None:
            return False
        return task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError

    def cancel(self) -> None:
        if self._task is not None and not self._called:
            self._called = True
            self._task.cancel()


def thread_safe_caller() -> Callable[[Callable[[], None]], object]:
    """Return a function that other threads and signal handlers may call to run something in this event loop."""
    if on_asyncio():
        return asyncio.get_running_loop().call_soon_threadsafe
    import trio  # noqa: PLC0415 - only where trio runs, so it is there

    return trio.lowlevel.current_trio_token().run_sync_soon


logger = logging.getLogger("sse_asgi")

COARSE = 1.0
GRID = 0.25
LOOK_SECONDS = 0.1


class Bell(Protocol):
    """Whatever the timer can ring."""

    def ring(self, now: float) -> None:
        """Hear that it is time, and which."""


Moment = dict[Bell, None]  # what is due then; to take a bell out is to have it not ring


def _nobody() -> None:
    """Call back nobody."""


class Alarm:
    """A bell that calls back, once it is owed."""

    __slots__ = ("_callback", "moment")

    def __init__(self, callback: Callable[[], None] = _nobody) -> None:
        """Call this back."""
        self._callback = callback
        self.moment: Moment = {}

    def ring(self, now: float) -> None:  # noqa: ARG002 - for bells that look at the time
        """Call back."""
        self._callback()

    def cancel(self) -> None:
        """Do not ring, and let go of what the callback holds."""
        self.moment.pop(self, None)
        self._callback = _nobody


class Limit(Alarm):
    """An alarm that gives somebody up, for which it rings a moment after its time.

    If the event loop was blocked, all that came in meanwhile has its turn first, and may show that nobody is late.
    """

    __slots__ = ("_delay", "_looked", "_timer")

    def __init__(self, timer: "Timer", delay: float, callback: Callable[[], None]) -> None:
        """Call this back."""
        super().__init__(callback)
        self._timer = timer
        self._delay = delay
        self._looked = False

    def ring(self, now: float) -> None:
        """Call back the second time."""
        if self._looked:
            super().ring(now)
        else:
            self._looked = True
            self.moment = self._timer.owe_again(self, self._delay, now)


class Timer:
    """All the alarms of one event loop on one handle, those of the same moment together.

    Attributes:
        context: An empty one, for callbacks of this event loop that belong to no request: those of a request would live
            on in the handle, and two event loops cannot be in one context at a time.
    """

    def __init__(self) -> None:
        """Start with no alarms."""
        self.context = Context()
        self._together: dict[Callable[[set[Any]], None], set[Any]] = {}
        self._owed: dict[float, Moment] = {}
        self._times: list[float] = []
        self._armed = math.inf
        self._handle: asyncio.TimerHandle | None = None
        self._scope: anyio.CancelScope | None = None

    def after(self, delay: float, callback: Callable[[], None]) -> Alarm:
        """Call back in so many seconds."""
        alarm, now = Alarm(callback), time.monotonic()
        alarm.moment = self.owe(alarm, now + delay, now)
        return alarm

    def limit(self, delay: float, callback: Callable[[], None]) -> Alarm:
        """Call back in so many seconds, but not before what came in until then had its turn; never if that is inf."""
        alarm, now = Limit(self, delay, callback), time.monotonic()
        alarm.moment = self.owe(alarm, now + delay, now)
        return alarm

    @contextmanager
    def move_on_after(self, delay: float, *, shield: bool = False) -> Iterator[anyio.CancelScope]:
        """Break the block off as anyio.move_on_after does, when `limit` calls back."""
        with anyio.CancelScope(shield=shield) as scope:
            alarm = self.limit(delay, scope.cancel)
            try:
                yield scope
            finally:
                alarm.cancel()

    def together(self, delay: float, callback: Callable[[set[Any]], None], item: Any) -> None:
        """Call back once with all items that were given for this callback within so many seconds of the first."""
        items = self._together.get(callback)
        if items is None:
            items = self._together[callback] = set()
            self.after(delay, partial(self._hand_over, callback))
        items.add(item)

    def _hand_over(self, callback: Callable[[set[Any]], None]) -> None:
        callback(self._together.pop(callback))

    def owe(self, bell: Bell, when: float, now: float) -> Moment:
        """Ring a bell at this time of time.monotonic(), unless it is taken out of the moment that is returned."""
        if when >= now + COARSE:  # thousands of connections have theirs at as many times: some at once cost less
            if when == math.inf:
                return {}
            when = math.ceil(when / GRID) * GRID
        moment = self._owed.get(when)
        if moment is None:
            moment = self._owed[when] = {}
            heapq.heappush(self._times, when)
            if when < self._armed:
                self._arm(when)
        moment[bell] = None
        return moment

    def owe_again(self, bell: Bell, patience: float, now: float) -> Moment:
        """Ring a bell that gives somebody up after so many seconds once more, when what came in has had its turn."""
        return self.owe(bell, now + min(LOOK_SECONDS, patience / 4), now)

    def _arm(self, when: float) -> None:
        self._armed = when
        delay = max(0.0, when - time.monotonic())
        if on_asyncio():
            if self._handle is not None:
                self._handle.cancel()
            # Not in this context, that of the request that comes first: the timer arms itself again and again.
            self._handle = asyncio.get_running_loop().call_later(delay, self._ring, context=self.context)
        elif self._scope is None:
            self._scope = anyio.CancelScope(deadline=anyio.current_time() + delay)
            spawn(self._sleep, context=Context())  # trio cannot begin a task in the context that is running
        else:
            self._scope.deadline = anyio.current_time() + delay

    async def _sleep(self) -> None:
        assert self._scope is not None
        with self._scope:
            await anyio.sleep_forever()
        self._scope = None
        self._ring()

    def _ring(self) -> None:
        self._armed = math.inf
        now = time.monotonic()
        moments = []
        while self._times and self._times[0] <= now:
            moments.append(self._owed.pop(heapq.heappop(self._times)))
        for moment in moments:  # what they owe for now again is due the next time
            for bell in list(moment):
                if bell not in moment:
                    continue
                try:
                    bell.ring(now)
                except Exception:  # else all that is owed to others would be lost with it
                    logger.exception("a callback of the timer failed")
            moment.clear()  # bells may hold on to it
        if self._times and self._times[0] < self._armed:
            self._arm(self._times[0])


_timer: anyio.lowlevel.RunVar[Timer] = anyio.lowlevel.RunVar("_timer")


def shared_timer() -> Timer:
    """Return the timer of the running event loop; to be asked in a task, not in a callback."""
    timer = _timer.get(None)
    if timer is None:
        timer = Timer()
        _timer.set(timer)
    return timer
