"""assert_clean: what is left is found, and what has ended is not."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, MemoryBackend
from sse_asgi._hub.producer import Producer
from sse_asgi._hub.run_options import RunTerms
from sse_asgi._log.position import Position
from sse_asgi._log.run import RunRecord
from sse_asgi._loop.tasks import spawn
from sse_asgi._loop.timer import shared_timer
from sse_asgi.testing import EventStreamClient, SyncEventStreamClient, assert_clean

SOON = 0.05
"""Seconds in which something that must not end would have ended."""


async def endless() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


@pytest.mark.anyio
async def test_what_the_library_starts_ends_with_its_blocks() -> None:
    """Streams of a hub and of a generator, a run, presence and the timer leave nothing."""
    async with assert_clean():
        hub = Hub()
        async with EventStreamClient(EventSourceApp(hub, channels="*")) as client, client.stream("/?channel=a"):
            await hub.start_run("job", endless)
            async with hub.subscribe("a", identity="Ada", presence=True):
                await hub.publish("a", "hello")
        async with EventStreamClient(EventSourceResponse(endless())).stream("/") as stream:
            await stream.next_event()
        shared_timer().after(60, lambda: None)


@pytest.mark.anyio
async def test_a_task_that_is_left_is_named() -> None:
    """With the line where it waits, and on asyncio also the line that has made it."""

    async def forgotten() -> None:
        await anyio.sleep_forever()

    child: Any = None
    with pytest.raises(AssertionError, match=r"^the block has left:\n- the task ") as caught:
        async with assert_clean(timeout=SOON):
            child = spawn(forgotten)
            await anyio.wait_all_tasks_blocked()
    child.cancel()
    text = str(caught.value)
    assert "forgotten(), which waits at " in text
    assert f"{__file__.rpartition('/')[2]}:" in text
    assert ("and was made at" in text) == (asyncio_runs())


def asyncio_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_the_factory_of_an_application_still_makes_its_tasks() -> None:
    """And it is the loop's again afterwards."""
    made = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with assert_clean():
            await asyncio.create_task(asyncio.sleep(0))
        assert len(made) == 1
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


@pytest.mark.anyio
async def test_a_task_that_ends_in_time_is_not_left() -> None:
    """The block may be left before a task has cleaned up."""
    async with assert_clean():
        spawn(lambda: anyio.sleep(SOON))


@pytest.mark.anyio
async def test_an_open_hub_of_a_derived_class_is_found() -> None:
    """Its class is not the library's."""

    class Mine(Hub):
        pass

    async with Mine() as hub:
        with pytest.raises(AssertionError, match="an open hub"):
            async with assert_clean(timeout=SOON):
                await hub.__aexit__(None, None, None)
                await hub.__aenter__()
                await hub.publish("a", "x")
                other = Mine()
                await other.__aenter__()
        await other.__aexit__()


@pytest.mark.anyio
async def test_an_open_hub_with_its_readers_and_runs_is_found() -> None:
    """Each is named, with what ends it."""
    hub = Hub()
    before = Hub()
    async with before:
        with pytest.raises(AssertionError) as caught:
            async with assert_clean(timeout=SOON):
                await hub.__aenter__()
                subscription = hub.subscribe("a", "b", identity="Ada")
                other = hub.subscribe("c")
                await subscription.__aenter__()
                await other.__aenter__()
                await hub.start_run("job", endless)
        await other.__aexit__()
        await subscription.__aexit__()
        await hub.__aexit__()
    text = str(caught.value)
    assert text.count("an open hub: leave its `async with` block") == 1
    assert "the subscription of 'Ada' to 'a', 'b': leave its block" in text
    assert "the subscription to 'c': leave its block" in text
    assert "the run 'job': let it end, or `await hub.cancel_run('job')`" in text


@pytest.mark.anyio
async def test_an_exception_of_the_block_is_raised_alone() -> None:
    """What the block leaves then is not looked for."""
    child: Any = None
    with pytest.raises(KeyError):
        async with assert_clean():
            child = spawn(anyio.sleep_forever)
            raise KeyError
    child.cancel()


# Without async


def test_a_client_without_async_leaves_nothing() -> None:
    """Its thread and its event loop have ended."""
    with assert_clean():
        with SyncEventStreamClient(EventSourceApp(Hub())) as client, client.stream("/"):
            pass


def test_a_thread_that_is_left_is_named() -> None:
    """Only the library's threads are looked for: pools keep theirs."""
    end = threading.Event()
    threads = [threading.Thread(target=end.wait, name=name) for name in ("sse_asgi source", "a pool's")]
    with pytest.raises(AssertionError, match=r"^the block has left:\n- the thread 'sse_asgi source'[^\n]*$"):
        with assert_clean(timeout=SOON):
            for thread in threads:
                thread.start()
    end.set()


def test_what_has_an_ended_event_loop_is_not_left() -> None:
    """A hub that was not closed in its loop cannot be closed any more."""

    async def main() -> None:
        await Hub().__aenter__()

    with assert_clean():
        asyncio.run(main())


def test_what_nobody_holds_is_not_left() -> None:
    """The rest of a run whose event loop has ended waits for the garbage collector."""
    position = Position("00000000", 0)
    record = RunRecord("job", "me", "running", position, position, 0, "")
    gc.disable()  # so that it is still there after the block
    try:
        with assert_clean(timeout=SOON):
            cycle: list[Any] = [Producer(MemoryBackend(), record, RunTerms(1, 1, 1, None, 1))]
            cycle.append(cycle)
            del cycle
    finally:
        gc.enable()


def test_an_exception_without_async_is_raised_alone() -> None:
    """As it is."""
    with pytest.raises(KeyError):
        with assert_clean():
            raise KeyError


@pytest.mark.anyio
async def test_an_async_test_uses_async_with() -> None:
    """`with` would block the event loop."""
    with pytest.raises(RuntimeError, match="use `async with assert_clean"):
        with assert_clean():
            pass
