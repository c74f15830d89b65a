"""trio's side of this wing: the same interfaces, built on anyio and trio.

There is no speed target on trio. `import trio` stands inside the functions, because trio is optional.
"""

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any

import anyio
import anyio.lowlevel


async def checkpoint() -> None:
    """Let every other task that is ready run once.

    trio runs tasks in random order, so every other task has run for certain only after the second checkpoint.
    """
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()


def thread_safe_caller() -> Callable[[Callable[[], None]], object]:
    """Return a function that runs a callback in this event loop."""
    import trio  # noqa: PLC0415

    return trio.lowlevel.current_trio_token().run_sync_soon


class EventWakeup:
    """A wake-up made of events, each of which works once."""

    def __init__(self) -> None:
        """Begin with the flag down."""
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, or let the next wait return at once."""
        self._event.set()

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the flag and take it down."""
        yield from self._event.wait().__await__()
        self._event = anyio.Event()


class SystemTask:
    """A helper task of trio's own nursery, which outlives every request."""

    def __init__(
        self, function: Callable[[], Coroutine[Any, Any, None]], done: Callable[[], None] | None, context: Context
    ) -> None:
        """Start the task."""
        import trio  # noqa: PLC0415

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
        """Cancel the task until it ends: every later await in it is cancelled too."""
        self._scope.cancel()


def coroutines() -> list[Any]:
    """Return the coroutine of every task of this event loop."""
    import trio  # noqa: PLC0415

    root = trio.lowlevel.current_root_task()
    assert root is not None
    tasks = [root]
    for task in tasks:
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return [task.coro for task in tasks]


class DeadlineHandle:
    """Calls back at a deadline that can be moved, in a task of its own."""

    def __init__(self, callback: Callable[[], None]) -> None:
        """Begin without a deadline."""
        self._callback = callback
        self._scope: anyio.CancelScope | None = None

    def move(self, delay: float) -> None:
        """Call back in so many seconds from now, instead of at the deadline that was set before."""
        deadline = anyio.current_time() + delay
        if self._scope is not None:
            self._scope.deadline = deadline
            return
        self._scope = anyio.CancelScope(deadline=deadline)
        SystemTask(self._sleep, None, Context())  # an empty context: a task cannot enter its own twice

    async def _sleep(self) -> None:
        assert self._scope is not None
        with self._scope:
            await anyio.sleep_forever()
        self._scope = None
        self._callback()
