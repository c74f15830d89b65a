"""Helper tasks that outlive the task that started them, and blocks that another task can interrupt."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Protocol, Self

import anyio

from . import _trio
from .running import on_asyncio


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
    """Start a task, and call `done` when it has ended, or when it was cancelled before it began.

    Args:
        function: The task's async function, which must handle its own exceptions.
        done: Called at the end; None calls nothing.
        context: The task's context variables; None copies the current ones. A task that may outlive the request that
            starts it gets an empty context. Otherwise the request's variables would live as long as the task.
    """
    if not on_asyncio():
        return _trio.SystemTask(function, done, copy_context() if context is None else context)
    task = asyncio.get_running_loop().create_task(function(), context=context)
    if done is not None:
        task.add_done_callback(lambda _: done())
    return task


def coroutines() -> list[Any]:
    """Return the coroutine of every task of this event loop."""
    return [task.get_coro() for task in asyncio.all_tasks()] if on_asyncio() else _trio.coroutines()


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
    """Return the current task on asyncio, and None on trio."""
    return asyncio.current_task() if on_asyncio() else None


def new_interrupt(task: asyncio.Task[Any] | None) -> Interrupt:
    """Return an interrupt for `task`, the result of `current_task()` here. Passing it saves a lookup."""
    return anyio.CancelScope() if task is None else _TaskInterrupt(task)


class _TaskInterrupt:
    """Works like asyncio.timeout without the timeout, in a tenth of the memory of a cancel scope."""

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
