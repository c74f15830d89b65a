"""Iterating over anything iterable from a task, and closing what was iterated."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Any

from .threads import close_in_thread, iterate_in_thread


def async_iterator(iterable: AsyncIterable[Any] | Iterable[Any]) -> AsyncIterator[Any]:
    """Return an async iterator of the items; a sync iterable runs in a thread of its own, unless it is a list."""
    if isinstance(iterable, AsyncIterable):
        return aiter(iterable)
    return _each(iterable) if isinstance(iterable, list | tuple) else iterate_in_thread(iterable)


async def _each(items: list[Any] | tuple[Any, ...]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def close_iterator(iterator: AsyncIterator[Any]) -> None:
    """Close an iterator, if it can be closed; one yield in the `finally` of a generator is broken off."""
    if isinstance(iterator, AsyncGenerator):
        with suppress(GeneratorExit, StopAsyncIteration):
            await iterator.athrow(GeneratorExit)
    close = getattr(iterator, "aclose", None)  # generators, object streams, database cursors
    if close is not None:
        await close()


async def close_unused(iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
    """Close an iterator that nobody began. An iterable that makes iterators is left alone: others may use it."""
    if isinstance(iterable, AsyncIterator):
        await close_iterator(iterable)
    elif isinstance(iterable, Iterator) and hasattr(iterable, "close"):
        await close_in_thread(iterable)
