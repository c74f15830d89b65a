"""Runs in the memory of one process and on a real Redis, when the source, the process or Redis fails."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from real_redis.followers import LOST_LOG, PATIENCE, Follower, Source, following, read_all, until
from real_redis.helpers import calls
from real_redis.launcher import RedisServer
from servers.processes import clock
from sse_asgi import (
    BackendError,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
    RunConflictError,
    RunLimitError,
)
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]
LEASE = 0.6
QUICK = 0.2
COUNTED = [str(number) for number in range(120)]


@pytest.fixture
def redis_hub(shared_redis: RedisServer, name: str) -> NewHub:
    """Return a function that makes a hub like one of another process: on the shared server, unless another is given."""

    def make(server: RedisServer | None = None, *, timeout: float = 5.0, lease: float = 15.0, **options: Any) -> Hub:
        backend = RedisBackend((server or shared_redis).url, name=name, timeout=timeout)
        return Hub(backend, presence_ttl=lease, **options)

    return make


@pytest.fixture(params=["memory", "redis"])
def new_hub(request: pytest.FixtureRequest, redis_hub: NewHub) -> NewHub:
    """Return a function that makes hubs on one log of each kind."""
    if request.param == "redis":
        return redis_hub
    backend = MemoryBackend()
    return lambda *, lease=15.0, **options: Hub(backend, presence_ttl=lease, **options)


# The source


@pytest.mark.parametrize("texts", [(), ("1", "2"), ("1", "2", "3")])
async def test_a_source_that_raises(new_hub: NewHub, texts: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    """At once, in the middle or after its last event: everybody gets what it yielded, and then the end `failed`."""
    source = Source()
    async with new_hub() as hub, new_hub() as other:
        run = await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give(*texts, RuntimeError("secret"))
        late = await read_all(hub, "a")
        assert await run.wait() == "failed"
    for follower in (live, late):
        assert follower.texts == list(texts)
        assert follower.end == {"state": "failed"}
    assert source.cleaned
    assert "secret" in caplog.text


async def test_a_source_that_is_cancelled_from_within(new_hub: NewHub) -> None:
    """Its run fails, and nobody waits for it."""

    async def source() -> AsyncIterator[str]:
        yield "1"
        raise asyncio.CancelledError

    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", source)
        follower = await read_all(other, "a")
    assert follower.texts == ["1"]
    assert follower.end == {"state": "failed"}


async def test_a_source_that_never_yields(new_hub: NewHub) -> None:
    """It lives longer than its lease. A cancel by another process stops it within 200 ms, its `finally` included."""
    source = Source()
    async with new_hub(lease=LEASE) as hub, new_hub(lease=LEASE) as other:
        run = await hub.start_run("a", source)
        async with following(other, "a") as live:
            await anyio.sleep(2 * LEASE)
            assert run.state == "running"
            began = clock()
            assert await other.cancel_run("a")
        await until(lambda: source.cleaned)
        assert live.ended - began < QUICK
        assert (source.cleaned or 0) - began < QUICK
        assert live.end == {"state": "cancelled"}
        assert not await other.cancel_run("a")


async def test_large_events(new_hub: NewHub) -> None:
    """Events of 1 MB reach live and late followers byte for byte; the source waits for the log."""
    texts = [f"{number}" * 1_000_000 for number in range(8)]
    gate = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        await gate.wait()
        for text in texts:
            yield text

    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            gate.set()
        late = await read_all(hub, "a")
    assert live.gaps == late.gaps == []
    assert live.texts == late.texts == texts
    assert live.end == late.end == {"state": "finished"}


async def test_a_source_that_ignores_its_cancellation(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its followers are told at once, what it yields then is not stored, and it is cancelled once more."""
    monkeypatch.setattr("sse_asgi._hub.producer.CLEANUP_SECONDS", 0.2)
    ignored = []

    async def source() -> AsyncIterator[str]:
        yield "1"
        for number in range(2):
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                ignored.append(number)
        yield "2"

    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            await until(lambda: live.texts)
            began = clock()
            assert await other.cancel_run("a")
        assert live.ended - began < QUICK
        await until(lambda: not hub.stats().runs)
        late = await read_all(other, "a")
    assert ignored == [0, 1]
    assert live.seen == late.seen
    assert late.texts == ["1"]
    assert late.end == {"state": "cancelled"}


async def test_a_sync_source_that_blocks(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It blocks its own thread only: the run is cancelled at once, and the source ends when it goes on."""
    monkeypatch.setattr("sse_asgi._hub.producer.CLEANUP_SECONDS", 0.2)
    release, cleaned = threading.Event(), threading.Event()

    def source() -> Iterator[str]:
        try:
            yield "1"
            release.wait(PATIENCE)
            yield "2"
        finally:
            cleaned.set()

    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            await until(lambda: live.texts)
            began = clock()
            assert await other.cancel_run("a")
        assert live.ended - began < QUICK
        await until(lambda: not hub.stats().runs)  # a blocked thread does not keep the hub from closing
        assert not cleaned.is_set()
        release.set()
        await until(cleaned.is_set)
        late = await read_all(other, "a")
    assert late.texts == ["1"]
    assert late.end == {"state": "cancelled"}


# Bounds


@pytest.mark.parametrize(("bound", "value"), [("max_events", 3), ("max_bytes", 3 * len(b"data: 1\n\n"))])
async def test_a_source_that_yields_too_much(new_hub: NewHub, bound: str, value: int) -> None:
    """Its run fails and says which bound it was; what came before is there."""
    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", list("12345"), **{bound: value})  # type: ignore[arg-type]
        late = await read_all(other, "a")
        run = await other.get_run("a")
    assert late.texts == list("123")
    assert late.end == {"state": "failed", "reason": bound}
    assert run is not None
    assert (run.state, run.reason) == ("failed", bound)


async def test_too_many_runs(new_hub: NewHub) -> None:
    """A process refuses one more, takes part in one that is there, and has room again when one has ended."""
    async with new_hub(max_runs=2) as hub, new_hub() as other:
        sources = [Source(), Source(), Source()]
        for key, source in zip("ab", sources, strict=False):
            await hub.start_run(key, source)
        with pytest.raises(RunLimitError, match="max_runs"):
            await hub.start_run("c", sources[2])
        assert await other.get_run("c") is None
        assert not (await hub.start_run("a", sources[2])).started
        sources[0].give(None)
        await until(lambda: hub.stats().runs == 1)
        assert (await hub.start_run("c", sources[2])).started


async def test_a_run_that_nobody_follows(new_hub: NewHub) -> None:
    """It goes on while somebody of another process follows it, and is cancelled some time after."""
    source = Source()
    async with new_hub(presence_grace=0) as hub, new_hub(presence_grace=0) as other:
        run = await hub.start_run("a", source, orphan_timeout=0.4)
        found = await other.get_run("a")
        assert found is not None
        async with found.follow():
            await anyio.sleep(1)
            assert await run.followers() == 1
            assert run.state == "running"
        with anyio.fail_after(3):
            assert await run.wait() == "cancelled"
        assert source.cleaned
        late = await read_all(other, "a")
    assert late.end == {"state": "cancelled", "reason": "orphan"}


async def test_memory_is_given_back(new_hub: NewHub) -> None:
    """Soon after the `ttl` of a run no byte of it is left."""
    async with new_hub(lease=LEASE) as hub:
        backend: Any = hub.backend
        run = await hub.start_run("a", ["x" * 100_000] * 10, ttl=0.3)
        assert await run.wait() == "finished"
        assert len((await read_all(hub, "a")).texts) == 10
        if isinstance(backend, MemoryBackend):
            assert backend._runs.shelf.total > 1_000_000
            await until(lambda: backend._runs.shelf.total == 0)
            assert not backend._runs._ended
        else:
            names, link = backend._runs._storage.keys, (await backend._keeper.commands()).server.link
            mine = [names.run("a"), names.stream("sse.run:a")]
            with anyio.fail_after(PATIENCE):
                while await link.call("EXISTS", *mine) or await link.call("ZCARD", names.schedule):
                    await anyio.sleep(0.02)
            assert await link.call("ZSCORE", names.index, "sse.run:a") is None
        assert await hub.get_run("a") is None


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_the_bounds_of_a_history_do_not_cut_a_run(shared_redis: RedisServer, name: str, kind: str) -> None:
    """Neither size, age nor bytes, nor other channels: a late follower gets the whole run."""
    bounds: dict[str, Any] = {"history_size": 2, "history_ttl": 0.1, "history_bytes": 200, "total_bytes": 200_000}
    backend = MemoryBackend(**bounds) if kind == "memory" else RedisBackend(shared_redis.url, name=name, **bounds)
    async with Hub(backend) as hub:
        run = await hub.start_run("a", counting)
        for number in range(300):
            await hub.publish(f"{number}", "x" * 180)
        assert await run.wait() == "finished"
        await anyio.sleep(0.2)
        late = await read_all(hub, "a")
    assert late.gaps == []
    assert late.texts == COUNTED


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_a_log_without_history(shared_redis: RedisServer, kind: str) -> None:
    """It has no runs, and the error says what to do."""
    backend = MemoryBackend(history_size=0) if kind == "memory" else RedisBackend(shared_redis.url, history_size=0)
    async with Hub(backend) as hub:
        for call in (hub.start_run("a", []), hub.get_run("a"), hub.cancel_run("a")):
            with pytest.raises(ValueError, match="history_size above 0"):
                await call


# Starting and cancelling


async def test_a_cancel_before_the_reply_to_the_start(redis_hub: NewHub) -> None:
    """The order to stop the source comes before its process knows that it is the owner: the source is stopped."""
    source = Source()
    async with redis_hub() as hub, redis_hub() as other:
        start = hub.backend.start_run

        async def slow_start(key: str, *arguments: Any, **options: Any) -> Any:
            record = await start(key, *arguments, **options)
            assert await other.cancel_run(key)
            await anyio.sleep(0.1)
            return record

        for _ in range(2):  # the process listens to orders since the first time
            hub.backend.start_run = slow_start  # type: ignore[method-assign]
            run = await hub.start_run("a", source, ttl=0.5)
            with anyio.fail_after(1):
                assert await run.wait() == "cancelled"
            await until_forgotten(hub, "a")
        hub.backend.start_run = start  # type: ignore[method-assign]
        run = await hub.start_run("a", source)
        source.give("1", None)
        assert await run.wait() == "finished"


async def test_a_start_while_the_hub_closes(new_hub: NewHub) -> None:
    """It is refused, and the source does not run in a closed hub."""
    source, closed = Source(), anyio.Event()
    async with new_hub() as other:
        hub = new_hub()
        start = hub.backend.start_run

        async def slow_start(*arguments: Any, **options: Any) -> Any:
            hub.backend.start_run = start  # type: ignore[method-assign]
            record = await start(*arguments, **options)
            await closed.wait()
            return record

        hub.backend.start_run = slow_start  # type: ignore[method-assign]
        async with hub:
            starting = asyncio.create_task(hub.start_run("a", source))
            await until(lambda: hub.backend.start_run is start)
        closed.set()
        with pytest.raises((HubClosedError, BackendError)):
            await starting
        assert other.state == "up"
    assert not source.begun


async def test_twenty_start_and_cancel_at_the_same_instant(redis_hub: NewHub) -> None:
    """One of them starts the run, and one ends it. Its source is stopped, or was never begun."""
    async with AsyncExitStack() as stack:
        hubs = [await stack.enter_async_context(redis_hub()) for _ in range(20)]
        for key in "abcdefgh":
            source = Source()
            began = [asyncio.create_task(hub.start_run(key, source)) for hub in hubs]
            ends = [asyncio.create_task(cancel(hub, key)) for hub in hubs]
            with anyio.fail_after(PATIENCE):
                runs = await asyncio.gather(*began)
                assert sum(await asyncio.gather(*ends)) == 1
            assert sum(run.started for run in runs) == 1
            await until(lambda: not any(hub.stats().runs for hub in hubs), 1)
            assert source.begun <= 1
            late = await asyncio.gather(*(read_all(hub, key) for hub in hubs[:5]))
            assert {follower.end == {"state": "cancelled"} for follower in late} == {True}


async def cancel(hub: Hub, key: str) -> bool:
    """Cancel a run as soon as it is there; return True if this call has ended it."""
    while not (ended := await hub.cancel_run(key)):
        run = await hub.get_run(key)
        if run is not None and run.state != "running":
            break
    return ended


async def test_another_fingerprint(new_hub: NewHub) -> None:
    """It is a conflict in every process, also after the end; the same one takes part."""
    async with new_hub() as hub, new_hub() as other:
        source, unused = Source(), Source()
        await hub.start_run("a", source, fingerprint="one")
        for _ in ("running", "ended"):
            for one in (hub, other):
                with pytest.raises(RunConflictError, match="409"):
                    await one.start_run("a", unused, fingerprint="two")
                assert not (await one.start_run("a", unused, fingerprint="one")).started
                assert not (await one.start_run("a", unused)).started
            source.give(None)
            await read_all(other, "a")
    assert unused.begun == 0


async def test_what_was_cancelled_can_be_read(new_hub: NewHub) -> None:
    """The text so far is there for the run's `ttl`, and then it is not."""
    source = Source()
    async with new_hub(lease=LEASE) as hub, new_hub(lease=LEASE) as other:
        await hub.start_run("a", source, ttl=1)
        async with following(other, "a") as live:
            source.give("1", "2")
            await until(lambda: len(live.texts) == 2)
            assert await other.cancel_run("a")
            source.give("3")
        late = await read_all(other, "a")
        assert late.seen == live.seen
        assert late.end == live.end == {"state": "cancelled"}
        began = time.monotonic()
        await until_forgotten(other, "a")
        assert time.monotonic() - began > 0.5


# Followers that come late, or read slowly


async def test_a_follower_of_a_run_that_was_forgotten(new_hub: NewHub) -> None:
    """One that holds the run for longer than its `ttl` is told that it is lost, and does not wait for ever."""
    source = Source()
    async with new_hub(lease=LEASE) as hub, new_hub(lease=LEASE) as other:
        await hub.start_run("a", source, ttl=0.2)
        run = await other.get_run("a")
        source.give("1", None)
        await until_forgotten(other, "a")
        with anyio.fail_after(PATIENCE):
            follower = await Follower().follow(run)
            content = await body(run)
            again = await hub.start_run("a", ["2"])
            assert await again.wait() == "finished"
            assert (await Follower().follow(run)).texts == []  # nothing of the next run that has its key
    assert follower.texts == []
    assert follower.end == LOST_LOG
    assert content.endswith(b'event: sse.end\ndata: {"state":"lost","reason":"log"}\n\n')


async def body(run: Any) -> bytes:
    """Return the whole body of a response that follows a run."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    await EventSourceResponse(run)(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    return b"".join(message.get("body", b"") for message in sent)


async def test_a_slow_follower_of_a_run_that_was_forgotten(new_hub: NewHub) -> None:
    """Its key has another run now: the follower gets none of its events."""
    async with new_hub(lease=LEASE) as hub, new_hub(lease=LEASE) as other:
        run = await hub.start_run("a", [f"{number}" for number in range(1500)], ttl=0.2)
        assert await run.wait() == "finished"
        late = await other.get_run("a")
        assert late is not None
        async with late.follow() as slow:
            texts = [(await anext(slow)).data]
            await until_forgotten(other, "a")
            again = await hub.start_run("a", [f"again {number}" for number in range(1500)])
            assert await again.wait() == "finished"
            with anyio.fail_after(PATIENCE):
                texts += [event.data async for event in slow if event.event != "sse.gap"]
    assert texts == [*map(str, range(512)), '{"state":"lost","reason":"log"}']


async def test_a_follower_that_is_beyond_the_end(new_hub: NewHub) -> None:
    """An id of a later event, of another run, comes with a run that was looked up before its end."""
    source = Source()
    async with new_hub() as hub, new_hub() as other:
        await hub.start_run("a", source)
        run = await other.get_run("a")
        source.give("1", None)
        await read_all(hub, "a")
        later = await hub.publish("b", "2")
        with anyio.fail_after(PATIENCE):
            follower = await Follower().follow(run, later)
    assert follower.end == {"state": "finished"}


@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "close"])
async def test_a_slow_follower_gets_every_event(new_hub: NewHub, overflow: Any) -> None:
    """Whatever the hub's rule is for other readers: the log has every event of the run."""
    async with new_hub() as hub, new_hub(buffer_size=2, overflow=overflow) as other:
        source = Source()
        await hub.start_run("a", source)
        run = await other.get_run("a")
        assert run is not None
        async with run.follow() as slow:
            source.give(*COUNTED, None)
            await read_all(hub, "a")
            await other.backend.reach()
            texts = [event.data async for event in slow]
    assert texts == [*COUNTED, '{"state":"finished"}']


async def until_forgotten(hub: Hub, key: str) -> None:
    with anyio.fail_after(PATIENCE):
        while await hub.get_run(key) is not None:
            await anyio.sleep(0.02)


# Redis


async def test_a_crash_with_aof(new_server: NewServer, redis_hub: NewHub) -> None:
    """The source waits while Redis is away, and its followers notice only a delay."""
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    async with redis_hub(server, lease=LEASE) as hub, redis_hub(server, lease=LEASE) as other:
        await hub.start_run("a", counting)
        async with following(other, "a") as live:
            for count in (20, 60):
                await until(lambda count=count: len(live.texts) > count)  # type: ignore[misc]
                await asyncio.to_thread(server.restart)
        late = await read_all(other, "a")
    assert live.gaps == late.gaps == []
    assert live.texts == late.texts == COUNTED
    assert live.end == late.end == {"state": "finished"}


async def counting() -> AsyncIterator[str]:
    for text in COUNTED:
        yield text
        await anyio.sleep(0.005)


async def test_a_crash_without_persistence(server: RedisServer, redis_hub: NewHub) -> None:
    """The run is lost, and said to be, as soon as Redis is back."""
    async with redis_hub(server) as hub, redis_hub(server) as other:
        run = await hub.start_run("a", counting)
        async with following(other, "a") as live:
            await until(lambda: len(live.texts) > 20)
            await asyncio.to_thread(server.restart)
        assert live.end == LOST_LOG
        assert live.gaps == ["epoch"]
        assert live.texts == COUNTED[: len(live.texts)]
        assert await run.wait() == "lost"


async def test_a_flush_in_the_middle(server: RedisServer, redis_hub: NewHub) -> None:
    """The next append finds that the run is gone: it stops the source, and the run is lost."""
    async with redis_hub(server) as hub, redis_hub(server) as other:
        run = await hub.start_run("a", counting)
        async with following(other, "a") as live:
            await until(lambda: len(live.texts) > 20)
            server.cli("FLUSHALL")
        assert live.end == LOST_LOG
        assert live.gaps == ["epoch"]
        assert live.texts == COUNTED[: len(live.texts)]
        assert await run.wait() == "lost"
        assert (await read_all(other, "a")).end == LOST_LOG


@pytest.mark.parametrize("timeout", [0.4, 5.0])
async def test_redis_stands_still(server: RedisServer, redis_hub: NewHub, timeout: float) -> None:  # noqa: ASYNC109
    """For longer than a lease, and than a reply may take or not: nothing is lost, nothing is there twice."""
    options: dict[str, float] = {"lease": LEASE, "timeout": timeout}
    async with redis_hub(server, **options) as hub, redis_hub(server, **options) as other:
        await anyio.sleep(LEASE)  # from then on a session may end the runs of others
        await hub.start_run("a", counting)
        quiet = Source()
        await other.start_run("b", quiet)  # so that each process could end the run of the other one
        async with following(other, "a") as live, following(hub, "b") as silent:
            await until(lambda: len(live.texts) > 20)
            server.stop()
            await anyio.sleep(3 * LEASE)
            server.cont()
            await until(lambda: live.end)
            await anyio.sleep(2 * LEASE)
            quiet.give("1", None)
        late = await read_all(other, "a")
    assert live.gaps == late.gaps == silent.gaps == []
    assert live.texts == late.texts == COUNTED
    assert live.end == late.end == silent.end == {"state": "finished"}


async def test_a_replica_takes_over(new_server: NewServer, redis_hub: NewHub) -> None:
    """One that has everything: the run goes on there, without a gap."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    await until(lambda: replica.info("master_link_status") == "up")
    async with redis_hub(master) as hub, redis_hub(master) as other:
        source = Source()
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give(*map(str, range(50)))
            await until(lambda: len(live.texts) == 50)
            master.cli("WAIT", "1", "5000")
            await until(lambda: replica.info("master_repl_offset") == master.info("master_repl_offset"))
            master.kill()
            replica.cli("REPLICAOF", "NO", "ONE")
            replica.cli("CONFIG", "SET", "port", str(master.port))
            source.give(*map(str, range(50, 100)), None)
        late = await read_all(other, "a")
    assert live.gaps == late.gaps == []
    assert live.texts == late.texts == [str(number) for number in range(100)]
    assert live.end == late.end == {"state": "finished"}


async def test_followers_that_come_during_an_outage(
    new_server: NewServer, redis_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look a run up is an error after a bounded wait. One that was looked up before is followed afterwards."""
    monkeypatch.setattr("sse_asgi._hub.opening.READ_SECONDS", 0.3)
    monkeypatch.setattr("sse_asgi._hub.runs.START_SECONDS", 0.3)
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    source = Source()
    async with redis_hub(server) as hub, redis_hub(server) as other:
        await hub.start_run("a", source)
        found = await other.get_run("a")
        source.give("1")
        await until(lambda: source.given)
        server.kill()
        await until(lambda: other.state == "down")
        began = clock()
        for call in (other.get_run("a"), other.start_run("a", source), other.cancel_run("a")):
            with pytest.raises(BackendError, match=r"the backend was away for 0\.3 s"):
                await call
        assert clock() - began < 2.5
        following = asyncio.create_task(Follower().follow(found))
        source.give("2", None)
        await anyio.sleep(0.1)
        server.start()
        async with asyncio.timeout(PATIENCE):
            follower = await following
    assert follower.texts == ["1", "2"]
    assert follower.end == {"state": "finished"}


async def test_a_start_while_redis_stands_still(
    server: RedisServer, redis_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused, and Redis does not begin the run afterwards, which nobody would produce."""
    for name in ("sse_asgi._hub.opening.READ_SECONDS", "sse_asgi._hub.runs.START_SECONDS"):
        monkeypatch.setattr(name, 0.3)
    monkeypatch.setattr("sse_asgi.backends.redis._backend.START_SECONDS", 0.3)
    source = Source()
    async with redis_hub(server) as hub:
        await hub.start_run("b", [])  # Redis knows the script, so that one command is enough
        server.stop()
        with pytest.raises(BackendError, match="the run cannot be started"):
            await hub.start_run("a", source)
        await anyio.sleep(0.1)
        server.cont()
        assert await hub.get_run("a") is None
        assert source.begun == 0
        run = await hub.start_run("a", source)
        assert run.started
        source.give(None)
        assert await run.wait() == "finished"


async def test_a_start_after_the_clock_was_set(redis_hub: NewHub) -> None:
    """A clock of Redis that is an hour ahead of what its session believes is read anew, and the run begins."""
    async with redis_hub() as hub:
        keeper: Any = hub.backend._keeper  # type: ignore[attr-defined]
        keeper.inbox.clock -= 3600
        run = await hub.start_run("a", [])
        assert run.started
        assert abs(keeper.inbox.clock + time.monotonic() - time.time()) < 1


async def test_a_start_that_is_too_late(redis_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and no run."""
    monkeypatch.setattr("sse_asgi.backends.redis._backend.START_SECONDS", -1.0)
    async with redis_hub() as hub:
        with pytest.raises(BackendError, match="too late, and the run was not begun"):
            await hub.start_run("a", [])
        assert await hub.get_run("a") is None


async def test_two_processes_end_the_runs_of_a_third(redis_hub: NewHub, shared_redis: RedisServer, keys: Any) -> None:
    """At the same time, and again: the end is said once."""
    async with redis_hub() as hub, redis_hub() as one, redis_hub() as two:
        names = "abcdefghij"
        await asyncio.gather(*(hub.backend.start_run(name, "me", lease=0.01, ttl=60) for name in names))
        await anyio.sleep(0.1)
        await until(lambda: one.backend._keeper.session.age > 0.2 < two.backend._keeper.session.age)  # type: ignore[attr-defined]
        for _ in range(2):
            await asyncio.gather(*(process.backend.renew_runs([], lease=0.1) for process in (one, two, one, two)))
        for name in names:
            assert shared_redis.cli("XLEN", keys(f"s:sse.run:{name}")) == "1"
            assert (await read_all(one, name)).end == {"state": "lost", "reason": "lease"}


async def test_the_upkeep_survives_an_error(
    server: RedisServer, redis_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up that Redis refuses is repeated at the next beat, and the leases of other runs are renewed."""
    source, other_source = Source(), Source()
    async with redis_hub(server, lease=LEASE) as hub, redis_hub(server, lease=LEASE) as other:
        refused: list[str] = []

        async def get_run(key: str) -> None:
            refused.append(key)
            raise BackendError(key)

        await hub.start_run("a", source)
        await hub.start_run("b", other_source)
        async with following(other, "b") as live:
            await until(lambda: source.begun and other_source.begun)
            with monkeypatch.context() as patch:
                patch.setattr(hub.backend, "get_run", get_run)
                assert await other.backend.end_run("a", "cancelled")
                await until(lambda: len(refused) > 1)
            await until(lambda: source.cleaned)
            await anyio.sleep(2 * LEASE)
            other_source.give("1", None)
    assert live.end == {"state": "finished"}


@pytest.mark.parametrize("alive", [True, False])
async def test_a_flush_while_nothing_happens(server: RedisServer, redis_hub: NewHub, alive: bool) -> None:  # noqa: FBT001
    """Followers are told, although the source yields nothing, or its process is gone."""
    source = Source()
    async with redis_hub(server, lease=LEASE) as hub, redis_hub(server, lease=LEASE) as other:
        run = await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give("1")
            await until(lambda: live.texts == ["1"])
            if not alive:
                kill(hub)
            server.cli("FLUSHALL")
        assert live.gaps == ["epoch"]
        assert live.end == LOST_LOG
        if alive:
            await until(lambda: source.cleaned)
            assert (run.state, run.reason) == ("lost", "log")
            late = await read_all(other, "a")
            assert late.end == LOST_LOG


def kill(hub: Hub) -> None:
    """Have a hub do nothing more for its runs, as if its process were gone."""
    assert hub._runs._upkeep is not None
    hub._runs._upkeep.cancel()
    for producer in hub._runs._producers.values():
        producer._task.cancel()  # type: ignore[union-attr]
        producer._stopped = True


async def test_a_flush_before_the_end(server: RedisServer, redis_hub: NewHub) -> None:
    """A run whose events are gone does not look finished, neither to its followers nor to later ones."""
    source = Source()
    async with redis_hub(server) as hub, redis_hub(server) as other:
        run = await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give("1", "2")
            await until(lambda: len(live.texts) == 2)
            server.cli("FLUSHALL")
            source.give(None)
        late = await read_all(other, "a")
    assert live.gaps == ["epoch"]
    assert live.texts == ["1", "2"]
    assert live.end == late.end == LOST_LOG
    assert (run.state, run.reason) == ("lost", "log")


@pytest.mark.parametrize("more", [True, False])
async def test_a_stale_replica(new_server: NewServer, redis_hub: NewHub, more: bool) -> None:  # noqa: FBT001
    """A replica that lacks events is promoted: the run is lost, whether it goes on or ends, and never shorter."""
    source = Source()
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    async with redis_hub(master) as hub, redis_hub(master) as other:
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give("1")
            await until(lambda: live.texts == ["1"])
            await until(
                lambda: replica.info("master_link_status") == "up" and replica.cli("DBSIZE") == master.cli("DBSIZE")
            )
            replica.cli("CONFIG", "SET", "masterauth", "wrong")  # it cannot come back
            master.cli("CONFIG", "SET", "requirepass", "right")
            master.cli("CLIENT", "KILL", "TYPE", "replica", password="right")
            source.give("2")
            await until(lambda: live.texts == ["1", "2"])
            master.kill()
            replica.cli("REPLICAOF", "NO", "ONE")
            replica.cli("CONFIG", "SET", "port", str(master.port))
            source.give(*["3"] * more, None)
        late = await read_all(other, "a")
    assert live.gaps == ["epoch"]
    assert late.texts == ["1"]
    assert live.end == late.end == LOST_LOG


async def test_a_source_that_ends_after_its_run_was_cancelled(new_hub: NewHub) -> None:
    """If the order to stop it was lost: its own process says what the log says."""
    source = Source()
    async with new_hub() as hub, new_hub() as other:
        run = await hub.start_run("a", source)
        await until(lambda: source.begun)
        assert await other.backend.end_run("a", "cancelled")
        source.give(None)
        assert await run.wait() == run.state == "cancelled"


async def test_closing_while_redis_is_away(server: RedisServer, redis_hub: NewHub) -> None:
    """The sources are stopped all the same, and their `finally` has run when the hub is closed."""
    sources = [Source() for _ in range(3)]
    async with redis_hub(server) as hub:
        for number, source in enumerate(sources):
            await hub.start_run(f"{number}", source)
        await until(lambda: all(source.begun for source in sources))
        server.kill()
        await until(lambda: hub.state == "down")
        began = clock()
    assert clock() - began < 3
    assert all(source.cleaned for source in sources)


async def test_a_cluster(cluster: list[RedisServer], name: str) -> None:
    """All names of a run are in the hub's slot: it runs, is cancelled from elsewhere, and is lost with its process."""
    url, source = f"redis+cluster://127.0.0.1:{cluster[0].port}", Source()
    hub, other = (Hub(RedisBackend(url, name=name), presence_ttl=LEASE) for _ in range(2))
    async with hub, other:
        await hub.start_run("a", source)
        async with following(other, "a") as live:
            source.give("1", "2")
            await until(lambda: len(live.texts) == 2)
            await anyio.sleep(1.5 * LEASE)
            assert await other.cancel_run("a")
        await until(lambda: source.cleaned)
        assert live.end == {"state": "cancelled"}
        await hub.start_run("b", Source())
        kill(hub)
        assert (await read_all(other, "b")).end == {"state": "lost", "reason": "lease"}


# Processes


async def test_a_thousand_runs(server: RedisServer, redis_hub: NewHub) -> None:
    """Their leases are renewed in one call, and when their process is gone, one call of another ends all of them."""
    owners = [(f"{number}", "me") for number in range(1000)]
    async with redis_hub(server) as hub, redis_hub(server) as other:
        await asyncio.gather(*(hub.backend.start_run(*owner, lease=LEASE, ttl=60) for owner in owners))
        last = await other.backend.start_run("last", "you", lease=60, ttl=60)
        scripts = calls(server, "evalsha")
        assert await hub.backend.renew_runs(owners, lease=LEASE) == []
        assert calls(server, "evalsha") == scripts + 1
        await anyio.sleep(LEASE + 0.1)
        assert await other.backend.renew_runs([("last", "you")], lease=LEASE) == []
        records = await asyncio.gather(*(other.backend.get_run(key) for key, _ in owners))
        assert {record and (record.state, record.reason) for record in records} == {("lost", "lease")}
        assert await other.backend.get_run("last") == last
        assert await hub.backend.renew_runs(owners, lease=LEASE) == [key for key, _ in owners]
