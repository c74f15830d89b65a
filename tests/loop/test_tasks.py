"""Helper tasks and interrupts: alike on asyncio and on trio."""

import asyncio
import contextvars
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from sse_asgi._loop.running import checkpoint
from sse_asgi._loop.tasks import Interrupt, coroutines, current_task, new_interrupt, spawn

pytestmark = pytest.mark.anyio

PATIENCE = 5
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])

colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


# Tasks


async def test_a_spawned_task_runs_beside() -> None:
    """The function runs without being waited for, and the callback comes when it has ended."""
    ended = anyio.Event()
    ran: list[str] = []

    async def work() -> None:
        await checkpoint()
        ran.append("work")

    spawn(work, ended.set)
    assert ran == []
    with anyio.fail_after(PATIENCE):
        await ended.wait()
    assert ran == ["work"]


async def test_a_spawned_task_needs_no_callback() -> None:
    """The callback is optional."""
    ran = anyio.Event()

    async def work() -> None:
        ran.set()

    spawn(work)
    with anyio.fail_after(PATIENCE):
        await ran.wait()
    await checkpoint()


async def test_a_spawned_task_has_a_copy_of_the_context() -> None:
    """The task sees earlier values, and its own changes stay inside it."""
    seen: list[str] = []
    ended = anyio.Event()

    async def work() -> None:
        seen.append(colour.get())
        colour.set("blue")

    colour.set("red")
    spawn(work, ended.set)
    colour.set("green")
    with anyio.fail_after(PATIENCE):
        await ended.wait()
    assert seen == ["red"]
    assert colour.get() == "green"


async def test_a_spawned_task_outlives_the_scopes_around_its_start() -> None:
    """Cancelling the scope in which it was started does not cancel it."""
    go_on, ended = anyio.Event(), anyio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()

    with anyio.CancelScope() as scope:
        spawn(work)
        scope.cancel()
        await checkpoint()
    go_on.set()
    with anyio.fail_after(PATIENCE):
        await ended.wait()


async def test_a_task_that_is_cancelled_before_it_began_calls_back() -> None:
    """The callback comes even when the function never got as far as its first await."""
    ended = anyio.Event()
    spawn(anyio.sleep_forever, ended.set).cancel()
    with anyio.fail_after(PATIENCE):
        await ended.wait()


async def test_a_task_that_is_cancelled_while_it_waits_calls_back() -> None:
    """The callback comes after the function's own cleanup."""
    ended = anyio.Event()
    order: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            order.append("cleanup")

    def done() -> None:
        order.append("done")
        ended.set()

    child = spawn(work, done)
    await anyio.wait_all_tasks_blocked()
    child.cancel()
    with anyio.fail_after(PATIENCE):
        await ended.wait()
    assert order == ["cleanup", "done"]


@ASYNCIO
async def test_one_cancellation_lets_cleanup_await_on_asyncio() -> None:
    """On asyncio a task is cancelled once, so that awaits in its finally work."""
    ended = anyio.Event()
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await asyncio.sleep(0)
            await anyio.lowlevel.checkpoint()
            cleaned.append("all")

    child = spawn(work, ended.set)
    await anyio.wait_all_tasks_blocked()
    child.cancel()
    with anyio.fail_after(PATIENCE):
        await ended.wait()
    assert cleaned == ["all"]


async def test_a_task_can_be_given_an_empty_context() -> None:
    """The task then does not see the variables of the task that starts it."""
    seen: list[str] = []
    ended = anyio.Event()

    async def work() -> None:
        seen.append(colour.get())

    colour.set("red")
    spawn(work, ended.set, context=contextvars.Context())
    with anyio.fail_after(PATIENCE):
        await ended.wait()
    assert seen == ["none"]


async def test_the_coroutine_of_every_task_is_found() -> None:
    """Tasks of task groups and helper tasks are among them, as long as they run."""
    go_on = anyio.Event()
    before = len(coroutines())
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(go_on.wait)
        for _ in range(3):
            spawn(go_on.wait)
        await anyio.wait_all_tasks_blocked()
        assert len(coroutines()) == before + 5
        go_on.set()
    await checkpoint()
    assert len(coroutines()) == before


# Interrupts


async def test_an_interrupt_breaks_off_its_block() -> None:
    """The block ends quietly at its await, and the code after it can await."""
    interrupts: list[Interrupt] = []
    reached: list[str] = []

    async def work() -> None:
        interrupts.append(new_interrupt(current_task()))
        with interrupts[0]:
            await anyio.sleep_forever()
            reached.append("the end of the block")
        await checkpoint()
        reached.append("after the block")

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        interrupts[0].cancel()
    assert reached == ["after the block"]


async def test_a_block_that_is_not_interrupted_ends_as_any_other() -> None:
    """Its result and its awaits are its own, and cancelling afterwards does nothing."""
    interrupt = new_interrupt(current_task())
    with interrupt:
        await checkpoint()
    interrupt.cancel()
    await checkpoint()


async def test_an_interrupt_breaks_off_once() -> None:
    """Cancelling again while the block unwinds, or later, cancels nothing more."""
    interrupts: list[Interrupt] = []
    reached: list[str] = []

    async def work() -> None:
        interrupts.append(new_interrupt(current_task()))
        with interrupts[0]:
            await anyio.sleep_forever()
        await checkpoint()
        reached.append("after the block")

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        interrupts[0].cancel()
        interrupts[0].cancel()
        await anyio.wait_all_tasks_blocked()
        interrupts[0].cancel()
    assert reached == ["after the block"]


async def test_an_exception_comes_through_an_interrupt() -> None:
    """An exception of the interrupted block is raised, and the code after it can await."""
    interrupts: list[Interrupt] = []
    caught: list[str] = []

    async def work() -> None:
        try:
            interrupts.append(new_interrupt(current_task()))
            with interrupts[0]:
                try:
                    await anyio.sleep_forever()
                finally:
                    msg = "in the block"
                    raise ValueError(msg)
        except ValueError as error:
            await checkpoint()
            caught.append(str(error))

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        interrupts[0].cancel()
    assert caught == ["in the block"]


@pytest.mark.parametrize("interrupt_first", [True, False])
async def test_an_outer_cancellation_gets_through_an_interrupt(*, interrupt_first: bool) -> None:
    """Where the task itself is cancelled in the same moment, it does not get past the block."""
    interrupts: list[Interrupt] = []
    reached: list[str] = []

    async def work() -> None:
        interrupts.append(new_interrupt(current_task()))
        with interrupts[0]:
            await anyio.sleep_forever()
        await checkpoint()
        reached.append("after the block")

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.wait_all_tasks_blocked()
        for cancel in (interrupts[0].cancel, group.cancel_scope.cancel)[:: 1 if interrupt_first else -1]:
            cancel()
    assert reached == []


@ASYNCIO
@pytest.mark.parametrize("interrupt_first", [True, False])
async def test_a_plain_cancellation_gets_through_an_interrupt(*, interrupt_first: bool) -> None:
    """On asyncio a task that is cancelled together with its interrupt ends as cancelled."""
    interrupts: list[Interrupt] = []

    async def work() -> None:
        interrupts.append(new_interrupt(current_task()))
        with interrupts[0]:
            await anyio.sleep_forever()

    task = asyncio.get_running_loop().create_task(work())
    await anyio.wait_all_tasks_blocked()
    cancels: list[Callable[[], object]] = [interrupts[0].cancel, task.cancel]
    for cancel in cancels if interrupt_first else reversed(cancels):
        cancel()
    await asyncio.wait([task])
    assert task.cancelled()
