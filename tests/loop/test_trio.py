"""trio's side of the event loop's wing, by itself."""

import threading
from collections.abc import Callable
from contextvars import Context

import pytest
import trio
import trio.testing

from sse_asgi._loop._trio import (
    DeadlineHandle,
    EventWakeup,
    SystemTask,
    checkpoint,
    coroutines,
    thread_safe_caller,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["trio"])]

PATIENCE = 5


@pytest.mark.parametrize("_turn", range(10))  # trio draws the order of ready tasks by lot
async def test_a_checkpoint_lets_every_ready_task_run(_turn: int) -> None:
    """After one checkpoint each task that was ready has had its turn."""
    ran: list[int] = []

    async def note(number: int) -> None:
        ran.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(note, number)
        await checkpoint()
        assert sorted(ran) == list(range(20))


async def test_another_thread_can_call_into_trio() -> None:
    """The function runs in trio's thread."""
    call = thread_safe_caller()
    called = trio.Event()
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())
        called.set()

    await trio.to_thread.run_sync(call, note)
    with trio.fail_after(PATIENCE):
        await called.wait()
    assert threads == [threading.get_ident()]


async def test_a_wakeup_is_kept_until_it_is_awaited() -> None:
    """A set before the wait ends the wait, and the wait takes the flag down."""
    wakeup = EventWakeup()
    wakeup.set()
    with trio.fail_after(PATIENCE):
        await wakeup
    with trio.move_on_after(0.01) as scope:
        await wakeup
    assert scope.cancelled_caught


@pytest.mark.parametrize("with_callback", [True, False])
async def test_a_system_task_runs_beside(*, with_callback: bool) -> None:
    """The task outlives the scope that started it, and the callback, if there is one, comes at its end."""
    go_on, ran, done = trio.Event(), trio.Event(), trio.Event()

    async def work() -> None:
        await go_on.wait()
        ran.set()

    with trio.CancelScope() as scope:
        SystemTask(work, done.set if with_callback else None, Context())
        scope.cancel()
        await trio.lowlevel.checkpoint()
    go_on.set()
    with trio.fail_after(PATIENCE):
        await ran.wait()
        await checkpoint()
    assert done.is_set() == with_callback


async def test_a_cancelled_system_task_calls_back() -> None:
    """The callback comes also if the task was cancelled."""
    done = trio.Event()
    SystemTask(trio.sleep_forever, done.set, Context()).cancel()
    with trio.fail_after(PATIENCE):
        await done.wait()


async def test_every_task_of_the_loop_is_found() -> None:
    """The tasks of nested nurseries are among them."""
    go_on = trio.Event()

    async def inner() -> None:
        await go_on.wait()

    async def outer() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer)
        await trio.testing.wait_all_tasks_blocked()
        names = {coroutine.__name__ for coroutine in coroutines()}
        go_on.set()
    assert {"outer", "inner"} <= names


def rings() -> tuple[list[float], Callable[[], None]]:
    heard: list[float] = []
    return heard, lambda: heard.append(trio.current_time())


async def test_a_deadline_calls_back_once_at_its_time() -> None:
    """The callback comes after the delay, and not again until the deadline is moved."""
    heard, ring = rings()
    handle = DeadlineHandle(ring)
    begun = trio.current_time()
    handle.move(0.01)
    await trio.sleep(0.05)
    assert len(heard) == 1
    assert heard[0] - begun >= 0.01
    handle.move(0.01)
    await trio.sleep(0.05)
    assert len(heard) == 2


async def test_a_deadline_can_be_moved_both_ways() -> None:
    """Only the last delay counts, whether it is shorter or longer than the one before."""
    heard, ring = rings()
    handle = DeadlineHandle(ring)
    handle.move(60)
    handle.move(0.01)
    await trio.sleep(0.05)
    assert len(heard) == 1
    handle.move(0.01)
    handle.move(60)
    await trio.sleep(0.05)
    assert len(heard) == 1
