"""async_iterator(), close_iterator() and close_unused(): any iterable, read from a task and closed."""

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from sse_asgi._loop.iterators import async_iterator, close_iterator, close_unused

pytestmark = pytest.mark.anyio


class Numbers:
    """A sync iterable that makes a new iterator each time."""

    def __iter__(self) -> Iterator[int]:
        """Yield two numbers, and the name of the thread."""
        yield 1
        yield 2


async def numbers(closed: list[str]) -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        closed.append("closed")


def sync_numbers(closed: list[str]) -> Iterator[int]:
    try:
        yield 1
    finally:
        closed.append(threading.current_thread().name)


@pytest.mark.parametrize("make", [lambda: [1, 2], lambda: (1, 2), Numbers, lambda: numbers([]), lambda: iter([1, 2])])
async def test_each_kind_of_iterable_is_read(make: Any) -> None:
    assert [item async for item in async_iterator(make())] == [1, 2]


async def test_an_async_generator_is_closed_in_the_middle() -> None:
    closed: list[str] = []
    iterator = async_iterator(numbers(closed))
    assert await anext(iterator) == 1
    await close_iterator(iterator)
    assert closed == ["closed"]
    assert [item async for item in iterator] == []


async def test_one_yield_in_a_finally_is_broken_off() -> None:
    async def stubborn() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            yield 2

    iterator = stubborn()
    await anext(iterator)
    await close_iterator(iterator)
    assert [item async for item in iterator] == []


async def test_a_sync_iterator_that_nobody_began_is_closed_in_a_thread() -> None:
    closed: list[str] = []
    iterator = sync_numbers(closed)
    next(iterator)
    await close_unused(iterator)
    assert closed == ["sse_asgi source"]


async def test_an_async_iterator_that_nobody_began_is_closed() -> None:
    iterator = numbers([])
    await close_unused(iterator)
    assert [item async for item in iterator] == []


@pytest.mark.parametrize("make", [lambda: [1], Numbers, lambda: iter([1])])
async def test_what_needs_no_closing_is_left_alone(make: Any) -> None:
    iterable = make()
    await close_unused(iterable)
    assert next(iter(iterable)) == 1


async def test_an_async_iterator_without_aclose_is_left_alone() -> None:
    class Plain:
        def __aiter__(self) -> "Plain":
            return self

        async def __anext__(self) -> int:
            return 1

    plain = Plain()
    await close_unused(plain)
    assert await anext(plain) == 1
