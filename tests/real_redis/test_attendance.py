"""Who is here, and orders to disconnect, when processes and Redis die."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from sse_asgi import Hub, Subscription
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

ATTENDER = Path(__file__).with_name("attender.py")
TTL = 0.5
ADA, BOB = Member("a", "ada"), Member("a", "bob")


@asynccontextmanager
async def here(server: RedisServer, name: str, identity: str) -> AsyncIterator[Hub]:
    """Be a process with one reader."""
    hub = Hub(RedisBackend(server.url, name=name), presence_ttl=TTL, presence_grace=0)
    async with hub, hub.subscribe("a", identity=identity, presence=True):
        yield hub


async def until(hub: Hub, *identities: str) -> None:
    with anyio.fail_after(10):
        while await hub.presence("a") != list(identities):
            await anyio.sleep(0.01)


async def changes(reader: Subscription, count: int) -> list[str]:
    """Return who came and went, as `join Ada`, and what else came."""
    found: list[str] = []
    with anyio.fail_after(10):
        while len(found) < count:
            event = await anext(reader)
            about = json.loads(event.data or "null")
            found.append(f"{(event.event or '').removeprefix('sse.')} {about.get('identity', about)}")
    return found


async def until_told(reader: Subscription, last: str) -> list[str]:
    found: list[str] = []
    while last not in found:
        found += await changes(reader, 1)
    return found


async def test_the_readers_of_a_killed_process_are_gone_after_its_lease(shared_redis: RedisServer, name: str) -> None:
    """Nobody says goodbye for them; an identity that is here by another process as well stays."""
    async with here(shared_redis, name, "ada") as hub, hub.subscribe("a") as watcher:
        await until(hub, "ada")
        command = [sys.executable, str(ATTENDER), shared_redis.url, name]
        processes = [await anyio.open_process([*command, identity]) for identity in ("ada", "bob")]
        await until(hub, "ada", "bob")
        for process in processes:
            process.kill()
            await process.wait()
        await until(hub, "ada")
        assert await changes(watcher, 3) == ["join ada", "join bob", "leave bob"]


async def test_nobody_is_seen_to_leave_while_redis_is_away(new_server: Callable[..., RedisServer], name: str) -> None:
    """When all leases have run out, none was heard of, and none is taken for gone."""
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    async with here(server, name, "ada") as hub, hub.subscribe("a") as watcher, here(server, name, "bob"):
        await until(hub, "ada", "bob")
        server.kill()
        await anyio.sleep(2 * TTL)
        server.start()
        await until(hub, "ada", "bob")
        await anyio.sleep(2 * TTL)
        async with here(server, name, "carl"):
            assert [one for one in await until_told(watcher, "join carl") if one != "join ada"] == [
                "join bob",
                "join carl",
            ]


async def test_what_redis_lost_is_listed_again(server: RedisServer, name: str) -> None:
    """The readers are told of the loss, and then of who is here."""
    async with here(server, name, "ada") as hub, hub.subscribe("a") as watcher:
        await until(hub, "ada")
        server.restart()
        await until_told(watcher, "gap {'reason': 'epoch'}")
        assert await changes(watcher, 1) == ["join ada"]


async def test_whoever_asks_lets_go_of_whom_nobody_else_would_miss(shared_redis: RedisServer, name: str) -> None:
    """Also where no process lists anybody any more, after a lease's time."""
    hub = Hub(RedisBackend(shared_redis.url, name=name), presence_ttl=TTL)
    async with hub, hub.subscribe("a") as watcher:
        await hub.backend.attend("dead", lease=0.1, entered=[ADA])
        await until(hub)
        assert await changes(watcher, 2) == ["join ada", "leave ada"]


async def test_whom_nobody_was_left_to_miss_is_let_go(shared_redis: RedisServer, name: str) -> None:
    """Where no process lists anybody any more, whoever asks for a list does it, a minute later."""
    async with Hub(RedisBackend(shared_redis.url, name=name)) as hub:
        await hub.backend.attend("dead", lease=0, entered=[ADA])
        assert await hub.presence("a") == ["ada"]
        shared_redis.cli("ZADD", f"sse:{{{name}}}:w", str(time.time() - 61), "dead")
        assert await hub.presence("a") == []
        assert shared_redis.cli("KEYS", f"sse:{{{name}}}:[wp]:*") == ""


async def test_who_is_here_is_told_on_a_cluster(cluster: list[RedisServer], name: str) -> None:
    """All names of a hub are in one slot, also those that the script finds by itself."""
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    hub = Hub(RedisBackend(f"redis+cluster://{nodes}", name=name), presence_ttl=TTL, presence_grace=0)
    async with hub, hub.subscribe("a") as watcher:
        async with hub.subscribe("a", identity="ada", presence=True):
            assert await changes(watcher, 1) == ["join ada"]
            await hub.backend.attend("dies", lease=0.1, entered=[BOB])
            assert await changes(watcher, 2) == ["join bob", "leave bob"]
        assert await changes(watcher, 1) == ["leave ada"]


async def test_an_order_to_disconnect_reaches_a_process_that_was_cut_off(shared_redis: RedisServer, name: str) -> None:
    """It is in the log, and heard when the connection is back."""
    async with (
        proxied(shared_redis) as proxy,
        Hub(RedisBackend(proxy.url, name=name)) as far,
        Hub(RedisBackend(shared_redis.url, name=name)) as near,
        far.subscribe("a", properties={"user": 7}) as reader,
        far.subscribe("a", properties={"user": 8}) as other,
    ):
        proxy.cut()
        await near.disconnect({"user": 7})
        proxy.open = True
        with anyio.fail_after(10):
            assert [event async for event in reader] == []
        assert (reader.ended, other.ended) == ("revoked", None)


async def test_what_is_here_costs_redis_one_call_a_beat(server: RedisServer, name: str) -> None:
    """However many readers there are; where nobody asked for it, nothing is called."""
    async with Hub(RedisBackend(server.url, name=name), presence_ttl=TTL) as hub:
        async with hub.subscribe("a", identity="ada"):
            await asyncio.sleep(TTL)
            assert "sse" not in server.cli("KEYS", "*:w*")
        readers = [hub.subscribe("a", identity=str(number), presence=True) for number in range(100)]
        for reader in readers:
            await reader.__aenter__()
        with anyio.fail_after(5):
            while len(await hub.backend.present("a")) < len(readers):
                await anyio.sleep(0.01)
        before = calls(server)
        await asyncio.sleep(2 * TTL)
        assert calls(server) - before <= 8


def calls(server: RedisServer) -> int:
    found = [line for line in server.cli("INFO", "commandstats").splitlines() if line.startswith("cmdstat_evalsha:")]
    return int(found[0].partition("calls=")[2].partition(",")[0])
