"""The contract of runs, for every backend that supports them."""

import math
import secrets
from typing import Any

import anyio
import pytest

from backends.recorder import connected, put, settled, texts
from sse_asgi import Backend, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._log.run import RunRecord, run_channel
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

CASES = [("memory", "asyncio"), ("memory", "trio"), ("redis", "asyncio")]
LEASE = 0.3


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def make_backend(case: tuple[str, str], request: pytest.FixtureRequest) -> Any:
    """Return a function that makes a backend with these history options."""
    if case[0] == "memory":
        return MemoryBackend
    url = request.getfixturevalue("shared_redis").url
    return lambda **options: RedisBackend(url, name=secrets.token_hex(8), **options)


async def start(backend: Backend, key: str = "a", owner: str = "me", *, ttl: float = 60) -> RunRecord:
    return await backend.start_run(key, owner, lease=LEASE, ttl=ttl, fingerprint="print")


async def append(backend: Backend, after: int, *texts: str, owner: str = "me") -> RunRecord:
    record = await backend.append_run("a", owner, after, [ServerSentEvent(text) for text in texts])
    assert record is not None
    return record


async def events(backend: Backend, record: RunRecord) -> list[str]:
    await backend.subscribe((run_channel(record.key),))
    await backend.reach()
    upto = await backend.subscribe(())
    assert upto is not None
    page = await backend.history((run_channel(record.key),), record.begin, upto, 100)
    assert page.reason is None
    return texts(page.entries)


async def test_a_run_from_its_beginning_to_its_end(make_backend: Any) -> None:
    """Its events are delivered and kept, each with a position, and the record says where the last one is."""
    backend = make_backend()
    async with connected(backend, run_channel("a")) as tape:
        await put(backend, "other")
        begun = await start(backend)
        assert begun == RunRecord("a", "me", "running", begun.begin, begun.last, 0, "print")
        one = await append(backend, 0, "1", "\u00e4\n2")
        two = await append(backend, 2, "3")
        assert await backend.end_run("a", "finished", owner="me")
        ended = await backend.get_run("a")
        await settled(tape, 4)
    assert ended is not None
    assert [record.appended for record in (one, two, ended)] == [2, 3, 3]
    assert begun.begin < one.last < two.last < ended.last
    assert [entry.position for entry in tape.entries if entry.channels != ("other",)][-1] == ended.last
    assert texts(tape.entries)[-4:] == ["1", "\u00e4\n2", "3", '{"state":"finished"}']
    assert ended == begun._replace(state="finished", appended=3, last=ended.last)


async def test_the_events_are_history_after_the_beginning(make_backend: Any) -> None:
    """Without a gap, also when nothing was appended, and beyond the size of a channel's history."""
    backend = make_backend(history_size=2)
    async with connected(backend):
        begun = await start(backend)
        assert await events(backend, begun) == []
        await append(backend, 0, *map(str, range(10)))
        assert await events(backend, begun) == [*map(str, range(10))]


async def test_a_key_has_one_run(make_backend: Any) -> None:
    """Whoever comes second gets the record of the first."""
    backend = make_backend()
    async with connected(backend):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(start, backend, "a", f"{number}")
        record = await start(backend, owner="late")
        for number in range(20):
            await append(backend, 0, "x", owner=f"{number}")
        assert await events(backend, record) == ["x"]


async def test_an_append_that_is_repeated_stores_nothing(make_backend: Any) -> None:
    """Nor does an append behind events that the log does not have."""
    backend = make_backend()
    async with connected(backend):
        begun = await start(backend)
        assert (await append(backend, 0, "1", "2")).appended == 2
        assert (await append(backend, 0, "1", "2")).appended == 2
        assert (await append(backend, 3, "4")).appended == 2
        assert await events(backend, begun) == ["1", "2"]


async def test_nothing_is_appended_to_an_ended_run(make_backend: Any) -> None:
    """Nor by one that is not the owner, nor to a run that there is not."""
    backend = make_backend()
    async with connected(backend):
        begun = await start(backend)
        assert (await append(backend, 0, "x", owner="you")).owner == "me"
        assert await backend.end_run("a", "cancelled")
        assert (await append(backend, 0, "x")).state == "cancelled"
        assert await events(backend, begun) == ['{"state":"cancelled"}']
        assert await backend.append_run("b", "me", 0, [ServerSentEvent("x")]) is None
        assert await backend.get_run("b") is None


async def test_one_call_ends_a_run(make_backend: Any) -> None:
    backend = make_backend()
    ended = []
    async with connected(backend):
        begun = await start(backend)

        async def end(state: Any) -> None:
            ended.append(await backend.end_run("a", state, owner="me" if state == "finished" else None))

        async with anyio.create_task_group() as tasks:
            for state in ("cancelled", "finished") * 10:
                tasks.start_soon(end, state)
        assert sorted(ended) == [False] * 19 + [True]
        assert len(await events(backend, begun)) == 1
        assert not await backend.end_run("b", "cancelled")


async def test_an_owner_ends_a_run_that_the_log_has_lost(make_backend: Any) -> None:
    """So that a reader that waits for it learns of its end."""
    backend = make_backend()
    async with connected(backend):
        assert await backend.end_run("a", "lost", reason="log", owner="me", ttl=60)
        record = await backend.get_run("a")
        assert record is not None
        assert (record.state, record.reason, record.owner) == ("lost", "log", "me")
        assert await events(backend, record) == ['{"state":"lost","reason":"log"}']
        assert not await backend.end_run("a", "finished", owner="me", ttl=60)


async def test_a_run_whose_events_were_lost_does_not_end_as_a_whole_one(make_backend: Any) -> None:
    """A count that differs from that of the log ends nothing, and a record that is gone is not made again."""
    backend = make_backend()
    async with connected(backend):
        assert not await backend.end_run("a", "finished", owner="me", appended=0, ttl=60)
        assert await backend.get_run("a") is None
        await start(backend)
        await append(backend, 0, "1", "2")
        assert not await backend.end_run("a", "finished", owner="me", appended=3)
        assert not await backend.end_run("a", "finished", owner="you", appended=2)
        assert await backend.end_run("a", "finished", owner="me", appended=2)


async def test_a_run_is_lost_when_its_lease_is_not_renewed(make_backend: Any) -> None:
    """The other process says so once; a renewed lease goes on."""
    backend = make_backend()
    async with connected(backend):
        begun = await start(backend)
        other = await start(backend, "b", "you")
        with anyio.fail_after(10):
            while await backend.renew_runs([("a", "me")], lease=LEASE) == [] and (
                (await backend.get_run("b")) == other
            ):
                await anyio.sleep(LEASE / 5)
        assert (await backend.get_run("a")) == begun
        assert await events(backend, other) == ['{"state":"lost","reason":"lease"}']
        assert await backend.renew_runs([("b", "you"), ("a", "me")], lease=LEASE) == ["b"]


async def test_a_run_is_forgotten_after_its_time(make_backend: Any) -> None:
    """Then its key is free, and a new run begins with nothing of the old one."""
    backend = make_backend()
    async with connected(backend):
        await start(backend, ttl=0.2)
        await append(backend, 0, "old")
        await backend.end_run("a", "finished", owner="me")
        with anyio.fail_after(10):
            while await backend.get_run("a") is not None:
                await anyio.sleep(0.02)
            await anyio.sleep(LEASE)
            await backend.renew_runs([], lease=LEASE)
        again = await start(backend, owner="again")
        assert (again.owner, again.state) == ("again", "running")
        assert await events(backend, again) == []


async def test_fifty_followers_read_the_same(make_backend: Any) -> None:
    """They come at any time, from the beginning or from any event, also after the end."""
    async with Hub(make_backend()) as hub:

        async def source() -> Any:
            for number in range(100):
                yield str(number)
                if number % 7 == 0:
                    await anyio.sleep(0.002)

        seen: list[list[str]] = []

        async def follow(delay: float) -> None:
            await anyio.sleep(delay)
            run = await hub.get_run("a")
            assert run is not None
            got: list[Any] = []
            while not got or got[-1].event != "sse.end":
                async with run.follow(got[-1].id if got else None) as subscription:
                    async for event in subscription:
                        got.append(event)
                        if len(got) == 30:
                            break
            seen.append([event.data for event in got])

        run = await hub.start_run("a", source)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(50):
                    tasks.start_soon(follow, number / 500)
            assert await run.wait() == "finished"
        assert seen == [[*map(str, range(100)), '{"state":"finished"}']] * 50
        assert run.resume_after(None) == run.resume_after("")
        assert math.isfinite(await run.followers())
