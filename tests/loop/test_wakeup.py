"""Wake-ups: alike on asyncio and on trio."""

import anyio
import pytest

from sse_asgi._loop.wakeup import Wakeup, new_wakeup

pytestmark = pytest.mark.anyio

PATIENCE = 5


class Waiter:
    """A task that waits for a wake-up, once."""

    def __init__(self, wakeup: Wakeup) -> None:
        self.wakeup = wakeup
        self.scope = anyio.CancelScope()
        self.woken = False

    async def run(self) -> None:
        with self.scope:
            await self.wakeup
            self.woken = True


async def test_a_wakeup_that_is_set_returns_at_once() -> None:
    """Setting it before the wait is not lost."""
    wakeup = new_wakeup()
    wakeup.set()
    with anyio.fail_after(PATIENCE):
        await wakeup


async def test_a_wakeup_wakes_its_waiter() -> None:
    """Setting it while a task waits ends the wait."""
    waiter = Waiter(new_wakeup())
    async with anyio.create_task_group() as group:
        group.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        assert not waiter.woken
        waiter.wakeup.set()
    assert waiter.woken


@pytest.mark.parametrize("times", [1, 2])
async def test_a_wait_takes_the_flag_down(times: int) -> None:
    """However often it was set before a wait, the next wait waits."""
    wakeup = new_wakeup()
    for _ in range(times):
        wakeup.set()
    await wakeup
    waiter = Waiter(wakeup)
    async with anyio.create_task_group() as group:
        group.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        assert not waiter.woken
        waiter.scope.cancel()


async def test_a_wakeup_works_again_and_again() -> None:
    """Every wait ends with the next set."""
    wakeup = new_wakeup()
    turns = 0

    async def count() -> None:
        nonlocal turns
        for _ in range(3):
            await wakeup
            turns += 1

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        for expected in (1, 2, 3):
            await anyio.wait_all_tasks_blocked()
            wakeup.set()
            await anyio.wait_all_tasks_blocked()
            assert turns == expected


async def test_a_wakeup_may_be_set_twice_for_one_waiter() -> None:
    """Setting it again before the waiter runs changes nothing."""
    waiter = Waiter(new_wakeup())
    async with anyio.create_task_group() as group:
        group.start_soon(waiter.run)
        await anyio.wait_all_tasks_blocked()
        waiter.wakeup.set()
        waiter.wakeup.set()
    assert waiter.woken


async def test_a_cancelled_wait_leaves_the_wakeup_usable() -> None:
    """After a waiter was cancelled, a set is there for the next one."""
    wakeup = new_wakeup()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await wakeup
    wakeup.set()
    with anyio.fail_after(PATIENCE):
        await wakeup
