"""iterate_in_thread(): sync iterables in threads of their own."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sse_asgi._loop import threads as _threads
from sse_asgi._loop.threads import close_in_thread, iterate_in_thread

pytestmark = pytest.mark.anyio

PATIENCE = 5

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


class Gate:
    """An iterable that blocks in its first `next()` until it is opened, and sets an event at each step."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.closed = threading.Event()
        self.thread: threading.Thread | None = None

    def __iter__(self) -> Iterator[str]:
        """Wait, then yield one item or raise."""
        try:
            self.thread = threading.current_thread()
            self.entered.set()
            self.opened.wait(PATIENCE)
            if self.error is not None:
                raise self.error
            yield "through"
        finally:
            self.closed.set()


async def happened(event: threading.Event) -> None:
    """Wait until another thread sets an event."""
    assert await anyio.to_thread.run_sync(event.wait, PATIENCE)


async def read(iterable: Any) -> list[Any]:
    """Iterate to the end, and close the iterator in any case."""
    with anyio.fail_after(2 * PATIENCE):
        async with contextlib.aclosing(iterate_in_thread(iterable)) as iterator:
            return [item async for item in iterator]


async def begin_and_close(iterable: Any) -> None:
    """Take one item, and close the iterator."""
    with anyio.fail_after(PATIENCE):
        async with contextlib.aclosing(iterate_in_thread(iterable)) as iterator:
            await anext(iterator)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that sets how many threads may run in an event loop."""
    return lambda number: monkeypatch.setattr(_threads, "MAX_THREADS", number)


# Items


def one_two_three() -> Iterator[int]:
    yield from (1, 2, 3)


@pytest.mark.parametrize("make", [lambda: [1, 2, 3], lambda: range(1, 4), lambda: iter([1, 2, 3]), one_two_three])
async def test_items_come_in_order(make: Callable[[], Any]) -> None:
    """Any iterable gives the items that a loop over it would."""
    assert await read(make()) == [1, 2, 3]


async def test_none_is_an_item_like_any_other() -> None:
    """Falsy items do not end the iteration."""
    assert await read([None, 0, "", False]) == [None, 0, "", False]


async def test_an_empty_iterable_ends_at_once() -> None:
    """Nothing is yielded."""
    assert await read(()) == []


async def test_items_are_pulled_one_at_a_time() -> None:
    """The generator runs only as far as its reader has asked."""
    begun: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(3):
            begun.append(number)
            yield number

    seen = [(item, list(begun)) async for item in iterate_in_thread(numbers())]
    assert seen == [(0, [0]), (1, [0, 1]), (2, [0, 1, 2])]


async def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    """Making the iterator starts neither a thread nor the iterable."""
    gate, before = Gate(), threading.active_count()
    iterator = iterate_in_thread(gate)
    assert not gate.entered.is_set()
    assert threading.active_count() == before
    await iterator.aclose()


# Thread and context


async def test_one_thread_runs_the_generator_from_first_to_last() -> None:
    """Every step, the last one included, runs in the same thread, which is not the event loop's."""
    threads: list[threading.Thread] = []

    def steps() -> Iterator[None]:
        try:
            for _ in range(3):
                threads.append(threading.current_thread())
                yield
        finally:
            threads.append(threading.current_thread())

    await read(steps())
    assert len(threads) == 4
    assert set(threads) == {threads[0]}
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


async def test_one_context_holds_from_first_to_last() -> None:
    """The generator sees earlier values and keeps its own, which its reader does not see."""

    def steps() -> Iterator[str]:
        yield colour.get()
        colour.set("blue")
        for _ in range(2):
            yield colour.get()

    colour.set("red")
    assert await read(steps()) == ["red", "blue", "blue"]
    assert colour.get() == "red"


async def test_two_iterables_run_at_once() -> None:
    """A blocked iterable does not delay another one."""
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(read, gate)
        await happened(gate.entered)
        assert await read([1]) == [1]
        gate.opened.set()


# Exceptions


async def test_an_exception_comes_through() -> None:
    """An exception of the generator is raised to its reader, after the earlier items."""

    def failing() -> Iterator[int]:
        yield 1
        msg = "in the thread"
        raise ValueError(msg)

    iterator = iterate_in_thread(failing())
    assert await anext(iterator) == 1
    with pytest.raises(ValueError, match="in the thread"):
        await anext(iterator)
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_an_object_that_cannot_be_iterated_raises() -> None:
    """The exception of iter() is raised to the reader."""
    with pytest.raises(TypeError, match="not iterable"):
        await read(7)


@pytest.mark.parametrize("iterable", [[1], 7], ids=["ended", "refused"])
async def test_a_place_is_given_back(anyio_backend: str, iterable: Any, places: Callable[[int], None]) -> None:
    """The place of an iterable that has ended or failed is free for the next one."""
    places(1)
    for _ in range(2):
        with contextlib.suppress(TypeError):
            await read(iterable)
    assert await read([anyio_backend]) == [anyio_backend]


async def test_a_thread_that_cannot_start_takes_no_place(places: Callable[[int], None]) -> None:
    """If the system refuses a thread, that is raised, and the place is free again."""
    places(1)
    usual = threading.stack_size(1 << 50)  # more than any address space has
    try:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await read([1])
    finally:
        threading.stack_size(usual)
    assert await read([1]) == [1]


# Closing


async def test_closing_early_closes_the_generator_in_its_thread() -> None:
    """When aclose() returns, the generator has run its finally, in the thread that ran all of it."""
    threads: list[int] = []

    def endless() -> Iterator[int]:
        try:
            while True:
                threads.append(threading.get_ident())
                yield 1
        finally:
            threads.append(threading.get_ident())

    await begin_and_close(endless())
    assert len(threads) == 2
    assert threads[0] == threads[1]


async def test_a_generator_that_was_not_begun_is_closed_in_a_thread() -> None:
    """Nothing of it runs, and it cannot be iterated afterwards."""
    generator = one_two_three()
    await close_in_thread(generator)
    assert list(generator) == []


async def test_closing_early_needs_no_close_method() -> None:
    """An iterator without `close` is not asked for another item."""
    asked: list[int] = []

    class Endless:
        def __iter__(self) -> "Endless":
            return self

        def __next__(self) -> int:
            asked.append(1)
            return 1

    await begin_and_close(Endless())
    assert asked == [1]


async def test_an_exception_of_the_cleanup_comes_through() -> None:
    """An exception from closing the generator early is raised to the caller of aclose()."""

    def failing() -> Iterator[int]:
        try:
            yield 1
        finally:
            msg = "in the cleanup"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="in the cleanup"):
        await begin_and_close(failing())


async def test_a_cancelled_reader_leaves_a_blocked_generator() -> None:
    """The reader leaves its scope at once. The generator is closed when its next() returns."""
    gate = Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(read, gate)
        await happened(gate.entered)
        group.cancel_scope.cancel()
    assert not gate.closed.is_set()
    gate.opened.set()
    await happened(gate.closed)


async def test_a_blocked_generator_keeps_its_place_until_it_returns(places: Callable[[int], None]) -> None:
    """Its reader has left, but its thread still counts. The next iterable gets the place after that."""
    places(1)
    gate, next_one = Gate(), Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(read, gate)
        await happened(gate.entered)
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(read, next_one)
        await anyio.wait_all_tasks_blocked()
        assert not next_one.entered.is_set()
        next_one.opened.set()
        gate.opened.set()
        await happened(next_one.entered)
    assert gate.closed.is_set()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_reader_that_is_cancelled_once_waits_for_the_generator() -> None:
    """On asyncio a single cancellation ends the reader only after the generator was closed."""
    gate = Gate()
    task = asyncio.get_running_loop().create_task(read(gate))
    await happened(gate.entered)
    task.cancel()
    await anyio.wait_all_tasks_blocked()
    assert not task.done()
    gate.opened.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert gate.closed.is_set()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("error", [None, ValueError("too late")])
def test_an_event_loop_that_closes_first_harms_nobody(backend: str, error: Exception | None) -> None:
    """A generator that returns or raises after its event loop has closed is closed, and its thread ends quietly."""
    gate = Gate(error)

    async def begin_and_leave() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(read, gate)
            await happened(gate.entered)
            group.cancel_scope.cancel()

    anyio.run(begin_and_leave, backend=backend)
    gate.opened.set()
    assert gate.thread is not None
    gate.thread.join(PATIENCE)
    assert not gate.thread.is_alive()
    assert gate.closed.is_set()


# How many


async def test_no_more_threads_run_than_there_are_places(places: Callable[[int], None]) -> None:
    """Further iterables wait until one of them has ended."""
    places(2)
    one, two, three = Gate(), Gate(), Gate()
    async with anyio.create_task_group() as group:
        for gate in (one, two):
            group.start_soon(read, gate)
            await happened(gate.entered)
        group.start_soon(read, three)
        await anyio.wait_all_tasks_blocked()
        assert not three.entered.is_set()
        one.opened.set()
        await happened(three.entered)
        two.opened.set()
        three.opened.set()


async def test_whoever_is_cancelled_while_waiting_takes_no_place(places: Callable[[int], None]) -> None:
    """A reader that is cancelled before it has a place occupies none."""
    places(1)
    gate, given_up = Gate(), Gate()
    async with anyio.create_task_group() as group:
        group.start_soon(read, gate)
        await happened(gate.entered)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(read, given_up)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        gate.opened.set()
    assert await read([1]) == [1]
    assert not given_up.entered.is_set()
