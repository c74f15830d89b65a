"""Runs in the memory of one process and on a real Redis, when the source, the process or Redis fails."""

from collections.abc import Callable
from typing import Any

import pytest

from real_redis.followers import LOST_LOG, Source, following, read_all, until
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


# Redis


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
