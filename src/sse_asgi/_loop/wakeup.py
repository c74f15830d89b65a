"""Wake-ups: how one task waits until there is something to do."""

import asyncio
from collections.abc import Generator
from typing import Any, Protocol

from ._trio import EventWakeup
from .running import on_asyncio


class Signal(Protocol):
    """An object that is told when there is something to do."""

    def set(self) -> None:
        """Tell it."""


class Wakeup(Signal, Protocol):
    """A flag with at most one waiter: awaiting it returns once `set` was called since it last returned.

    A wake-up is lost if its waiter is cancelled at the same time. Check the condition again before the next wait.
    """

    def set(self) -> None:
        """Wake the waiter, or let the next wait return at once."""

    def __await__(self) -> Generator[Any, Any, None]:
        """Wait for the flag and take it down."""


def new_wakeup() -> Wakeup:
    """Return a wake-up for the running event loop."""
    return _FutureWakeup() if on_asyncio() else EventWakeup()


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

    def __await__(self) -> Generator[Any, Any, None]:
        if not self._set:
            self._future = self._loop.create_future()
            return self._future.__await__()
        self._set = False
        return _nothing()


def _nothing() -> Generator[Any, Any, None]:
    yield from ()
