"""A Run: its state, its readers, and where a reader goes on."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from hub.readers import OTHER_EPOCH
from sse_asgi import Backend, Hub, HubClosedError, MemoryBackend

pytestmark = pytest.mark.anyio


def paused(go_on: anyio.Event) -> Any:
    async def source() -> AsyncIterator[str]:
        yield "1"
        yield "2"
        await go_on.wait()
        yield "3"

    return source


async def test_the_state_is_known_where_the_run_is_produced() -> None:
    """Elsewhere it is the state of the moment of the look-up."""
    go_on, backend = anyio.Event(), MemoryBackend()
    async with Hub(backend) as here, Hub(backend) as there:
        run = await here.start_run("a", paused(go_on))
        other = await there.start_run("a", paused(go_on))
        assert (run.started, other.started, run.key) == (True, False, "a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run.wait)
            tasks.start_soon(other.wait)
            await anyio.sleep(0.01)
            go_on.set()
        assert (run.state, run.reason, other.state) == ("finished", "", "running")
        again = await there.get_run("a")
        assert again is not None
        assert (again.state, await again.wait()) == ("finished", "finished")


async def test_a_reader_begins_with_the_first_event_or_goes_on() -> None:
    async with Hub() as hub:
        await hub.publish("other", "x")
        run = await hub.start_run("a", ["1", "2", "3"])
        await hub.publish("other", "x")
        await run.wait()

        async def read(last_event_id: str | None) -> list[Any]:
            async with run.follow(last_event_id) as subscription:
                return [(event.id, event.data) async for event in subscription]

        everything = await read(None)
        assert [data for _, data in everything] == ["1", "2", "3", '{"state":"finished"}']
        assert await read("") == everything
        for after, (event_id, _) in enumerate(everything):
            assert await read(event_id) == everything[after + 1 :]
        before = run.resume_after(None)
        epoch = before.partition("-")[0]
        assert await read(f"{epoch}-0") == everything
        for foreign, reason in ((OTHER_EPOCH, "epoch"), ("nonsense", "malformed"), (f"{epoch}-999", "fork")):
            gap, *rest = await read(foreign)
            assert gap[1] == f'{{"reason":"{reason}"}}'
            assert rest == everything


async def test_who_has_seen_the_end_is_known() -> None:
    go_on = anyio.Event()
    async with Hub() as hub:
        run = await hub.start_run("a", paused(go_on))
        go_on.set()
        await run.wait()
        ended = await hub.get_run("a")
        assert ended is not None
        last = ended._record.last
        assert ended.is_over(str(last))
        assert ended.is_over(str(last._replace(sequence=last.sequence + 1)))
        assert not ended.is_over(str(last._replace(sequence=last.sequence - 1)))
        assert not any(map(ended.is_over, (None, "", "nonsense", OTHER_EPOCH)))
        assert not run.is_over(str(last))


async def test_each_reader_counts() -> None:
    async with Hub(presence_grace=0.0) as hub:
        run = await hub.start_run("a", paused(anyio.Event()))
        assert await run.followers() == 0
        async with run.follow(), run.follow():
            assert await run.followers() == 2
        await anyio.sleep(0.02)
        assert await run.followers() == 0


class Plain(MemoryBackend):
    """Supports runs, and no presence."""

    attend = Backend.attend
    present = Backend.present


async def test_a_backend_without_presence_counts_nobody() -> None:
    async with Hub(Plain()) as hub:
        run = await hub.start_run("a", ["1"])
        async with run.follow() as subscription:
            assert [event.data async for event in subscription] == ["1", '{"state":"finished"}']
        with pytest.raises(NotImplementedError, match="presence"):
            await run.followers()
        with pytest.raises(NotImplementedError, match="presence"):
            await hub.start_run("b", ["1"], orphan_timeout=1)


class Without(MemoryBackend):
    """Supports no runs."""

    start_run = Backend.start_run
    append_run = Backend.append_run
    end_run = Backend.end_run
    get_run = Backend.get_run
    renew_runs = Backend.renew_runs


async def test_a_backend_without_runs_says_so() -> None:
    backend = Without()
    async with Hub(backend) as hub:
        for call in (lambda: hub.start_run("a", ["1"]), lambda: hub.get_run("a"), lambda: hub.cancel_run("a")):
            with pytest.raises(NotImplementedError, match="start_run"):
                await call()
    unsupported: list[Any] = [
        backend.start_run("a", "me", lease=1, ttl=1),
        backend.append_run("a", "me", 0, []),
        backend.end_run("a", "lost"),
        backend.get_run("a"),
        backend.renew_runs([], lease=1),
    ]
    for awaitable in unsupported:
        with pytest.raises(NotImplementedError, match="does not support runs"):
            await awaitable


async def test_a_backend_without_history_keeps_no_run() -> None:
    async with Hub(MemoryBackend(history_size=0)) as hub:
        with pytest.raises(ValueError, match="history_size"):
            await hub.start_run("a", ["1"])


async def test_a_closed_hub_has_no_runs() -> None:
    hub = Hub()
    for call in (hub.start_run("a", ["1"]), hub.get_run("a"), hub.cancel_run("a"), hub.wait_for_runs(1)):
        with pytest.raises(HubClosedError):
            await call


async def test_runs_are_used_from_another_event_loop() -> None:
    async with Hub() as hub:
        seen: list[Any] = []

        async def elsewhere() -> None:
            run = await hub.start_run("a", ["1"])
            seen.extend((run.started, await hub.cancel_run("b"), await hub.get_run("b")))
            await hub.wait_for_runs(5)

        thread = threading.Thread(target=lambda: anyio.run(elsewhere))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert seen == [True, False, None]
        run = await hub.get_run("a")
        assert run is not None
        assert run.state == "finished"
