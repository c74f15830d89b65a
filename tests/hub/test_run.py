"""A Run: its state, its readers, and where a reader goes on."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from hub.readers import OTHER_EPOCH
from sse_asgi import Backend, Hub, MemoryBackend

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
