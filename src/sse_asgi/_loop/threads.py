"""Sync iterables as async iterators, each in a thread of its own, so that they occupy no thread of the framework."""

import contextlib
import contextvars
import threading
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator
from typing import Any

import anyio
import anyio.lowlevel

from .running import LoopVar, thread_safe_caller
from .wakeup import new_wakeup

MAX_THREADS = 256

_END = object()
_limiter: LoopVar[anyio.CapacityLimiter] = LoopVar(lambda: anyio.CapacityLimiter(MAX_THREADS))


async def iterate_in_thread(iterable: Iterable[Any]) -> AsyncGenerator[Any, None]:
    """Yield the items of a sync iterable, which runs in one thread and one context, one item at a time.

    At most 256 threads run in one event loop; further iterables wait until one of them ends. Closing stops the iterable
    at its next item. A thread that is blocked inside the iterable cannot be interrupted.
    """
    thread = await _started(iterable)
    try:
        while (item := await thread.pull()) is not _END:
            yield item
    finally:
        await thread.stop()


async def close_in_thread(iterator: Iterator[Any]) -> None:
    """Close an iterator that will not be iterated. It may block, so this takes a thread too."""
    await (await _started(iterator)).stop()


async def _started(iterable: Iterable[Any]) -> "_Thread":
    limiter = _shared_limiter()
    thread = _Thread(iterable, limiter)
    await limiter.acquire_on_behalf_of(thread)
    try:
        thread.start()
    except RuntimeError:  # the system has no more threads
        limiter.release_on_behalf_of(thread)
        raise
    return thread


def _shared_limiter() -> anyio.CapacityLimiter:
    return _limiter.get()


def _close(iterator: Iterator[Any]) -> None:
    """Close an iterator, if it can be closed; one yield in the `finally` of a generator is broken off."""
    if isinstance(iterator, Generator):
        with contextlib.suppress(GeneratorExit, StopIteration):
            iterator.throw(GeneratorExit)
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


class _Thread:
    """Runs the iterable. The event loop asks for one item at a time."""

    def __init__(self, iterable: Iterable[Any], limiter: anyio.CapacityLimiter) -> None:
        self._iterable = iterable
        self._limiter = limiter
        self._call = thread_safe_caller()
        self._asked = threading.Semaphore(0)
        self._answered = new_wakeup()
        self._item: Any = None
        self._error: BaseException | None = None
        self._stopping = False
        self._ended = False

    def start(self) -> None:
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="sse_asgi source", daemon=True).start()

    async def pull(self) -> Any:
        self._asked.release()
        await self._answered
        self._raise()
        return _END if self._ended else self._item

    async def stop(self) -> None:
        self._stopping = True
        self._asked.release()
        while not self._ended:
            await self._answered
        self._raise()

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # In the thread

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._iterate()
        except BaseException as caught:  # noqa: BLE001 - raised again in the event loop
            error = caught
        with contextlib.suppress(RuntimeError):  # the event loop has closed, so nothing waits any more
            self._call(lambda: self._finish(error))

    def _iterate(self) -> None:
        iterator = iter(self._iterable)
        try:
            self._asked.acquire()
            while not self._stopping and (item := next(iterator, _END)) is not _END:
                self._call(lambda item=item: self._answer(item))  # type: ignore[misc]
                self._asked.acquire()
        finally:
            _close(iterator)

    # In the event loop again

    def _answer(self, item: Any) -> None:
        self._item = item
        self._answered.set()

    def _finish(self, error: BaseException | None) -> None:
        self._error = error
        self._ended = True
        self._limiter.release_on_behalf_of(self)
        self._answered.set()
