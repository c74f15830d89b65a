"""Which event loop runs here, and calls into it from other threads: alike on asyncio and on trio."""

import asyncio
import threading

import anyio
import anyio.to_thread
import pytest

from sse_asgi._loop.running import (
    LoopVar,
    checkpoint,
    in_event_loop,
    on_asyncio,
    running_loop,
    thread_safe_caller,
)

pytestmark = pytest.mark.anyio

PATIENCE = 5


async def test_the_event_loop_is_known(anyio_backend: str) -> None:
    """on_asyncio() is true where asyncio runs, and false under trio."""
    assert on_asyncio() == (anyio_backend == "asyncio")


def test_without_an_event_loop_it_is_not_asyncio() -> None:
    """on_asyncio() is false in a thread in which nothing runs."""
    assert not on_asyncio()


@pytest.mark.parametrize("_turn", range(10))  # trio draws the order of ready tasks by lot
async def test_a_checkpoint_lets_every_ready_task_run(_turn: int) -> None:
    """After one checkpoint each task that was ready has had its turn."""
    ran: list[int] = []

    async def note(number: int) -> None:
        ran.append(number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(note, number)
        await checkpoint()
        assert sorted(ran) == list(range(20))


async def test_the_running_loop_is_one_object_for_a_loop(anyio_backend: str) -> None:
    """Every call returns the same object: asyncio's loop, or trio's token."""
    assert in_event_loop()
    assert running_loop() is running_loop()
    assert (running_loop() is asyncio.get_running_loop()) if anyio_backend == "asyncio" else not on_asyncio()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_each_event_loop_has_its_own_value_of_a_variable(backend: str) -> None:
    """It is made when it is asked for the first time; an empty one is kept too."""
    variable: LoopVar[list[int]] = LoopVar(list)

    async def values() -> list[list[int]]:
        return [variable.get(), variable.get()]

    one, two = (anyio.run(values, backend=backend) for _ in range(2))
    assert one[0] is one[1]
    assert one[0] is not two[0]


def test_without_an_event_loop_there_is_no_running_loop() -> None:
    """A thread without an event loop gets None."""
    assert running_loop() is None
    assert not in_event_loop()


def test_a_callback_of_asyncio_knows_its_loop() -> None:
    """A callback is in no task, and finds its loop all the same."""
    found: list[object] = []

    async def ask() -> None:
        asyncio.get_running_loop().call_soon(lambda: found.append(running_loop()))
        await asyncio.sleep(0)
        found.append(running_loop())

    asyncio.run(ask())
    assert found[0] is found[1] is not None


async def test_another_thread_can_call_into_the_event_loop() -> None:
    """The function runs in the event loop's thread."""
    call = thread_safe_caller()
    called = anyio.Event()
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())
        called.set()

    await anyio.to_thread.run_sync(call, note)
    with anyio.fail_after(PATIENCE):
        await called.wait()
    assert threads == [threading.get_ident()]
