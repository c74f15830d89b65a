"""Which event loop runs here, what belongs to it, and how other threads call into it."""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio.lowlevel

from . import _trio

Value = TypeVar("Value")


def on_asyncio() -> bool:
    """Return True if an asyncio loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_event_loop() -> bool:
    """Return True if any event loop runs in this thread."""
    return running_loop() is not None


def running_loop() -> object | None:
    """Return the event loop that runs in this thread: asyncio's loop, trio's token, or None."""
    try:
        return asyncio.get_running_loop()  # anyio does not know that a callback runs in a loop
    except RuntimeError:
        pass
    try:
        return anyio.lowlevel.current_token().native_token
    except RuntimeError:
        return None


class LoopVar(Generic[Value]):
    """A value for each event loop, made when it is asked for the first time.

    anyio's RunVar does the same in ten times as many instructions, and each new connection asks for four values.
    """

    def __init__(self, new: Callable[[], Value]) -> None:
        """Remember how to make a value."""
        self._new = new
        self._values: WeakKeyDictionary[object, Value] = WeakKeyDictionary()

    def get(self) -> Value:
        """Return the value of the running event loop."""
        loop = running_loop()
        value = self._values.get(loop)
        if value is None:
            value = self._values[loop] = self._new()
        return value


def checkpoint() -> Awaitable[None]:
    """Let every other task that is ready run once, while this is awaited."""
    return checkpoint_here()()


def checkpoint_here() -> Callable[[], Awaitable[None]]:
    """Return the function `checkpoint` of the event loop that runs here."""
    return _turn if on_asyncio() else _trio.checkpoint


@coroutine
def _turn() -> Generator[None, None, None]:
    yield  # as asyncio.sleep(0) does


def thread_safe_caller() -> Callable[[Callable[[], None]], object]:
    """Return a function that runs a callback in this event loop; other threads and signal handlers may call it."""
    return asyncio.get_running_loop().call_soon_threadsafe if on_asyncio() else _trio.thread_safe_caller()
