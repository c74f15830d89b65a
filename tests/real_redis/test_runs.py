"""Runs in the memory of one process and on a real Redis, when the source, the process or Redis fails."""

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from real_redis.followers import LOST_LOG, PATIENCE, Follower, Source, following, read_all, until
from real_redis.launcher import RedisServer
from sse_asgi import Hub, MemoryBackend
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]
LEASE = 0.6


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
    assert follower.texts == []
    assert follower.end == LOST_LOG


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


async def until_forgotten(hub: Hub, key: str) -> None:
    with anyio.fail_after(PATIENCE):
        while await hub.get_run(key) is not None:
            await anyio.sleep(0.02)


# Redis


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
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert all(source.cleaned for source in sources)
