"""Presence, and orders to disconnect, when processes and Redis die."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from redis.crc import key_slot

from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from sse_asgi import Hub, ServerSentEvent, Subscription
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Backend, Member
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
    """Return the joins and leaves, as `join Ada`, and the other events."""
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
    """A killed process publishes no leave. An identity that another process lists as well stays."""
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
    """The readers get a gap for the loss, and then the joins."""
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
    """Without a process that lists members, the next call for a list expires them, a minute later."""
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
        last = await put(hub.backend, "a")
        types = [f"sse.{kind}" for kind in ("join", "join", "leave", "leave")]
        assert await told(hub.backend, None, last, "a", "b") == ([*types, "x"], None)


async def test_a_page_waits_while_a_cluster_moves_who_came(cluster: list[RedisServer], name: str) -> None:
    """While the joins and leaves move to another node, they are not taken for lost."""
    await until_ok(cluster)
    nodes = ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    slot = str(key_slot(name.encode()))
    async with Hub(RedisBackend(f"redis+cluster://{nodes}", name=name)) as hub:
        start = await put(hub.backend, "a")
        await hub.backend.attend("process", lease=60, entered=[ADA])
        last = await put(hub.backend, "a")
        owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
        other = next(node for node in cluster if node is not owner)
        ids = {node: node.cli("CLUSTER", "MYID") for node in (owner, other)}
        other.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[owner])
        owner.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[other])
        move = ["MIGRATE", "127.0.0.1", str(other.port), "", "0", "5000", "KEYS"]
        owner.cli(*move, f"sse:{{{name}}}:j")
        page = asyncio.create_task(told(hub.backend, start, last, "a"))
        assert not (await asyncio.wait([page], timeout=0.3))[0]
        owner.cli(*move, *owner.cli("CLUSTER", "GETKEYSINSLOT", slot, "100").split())
        for node in (other, owner):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[other])
        with anyio.fail_after(20):
            assert await page == (["sse.join", "x"], None)


async def until_ok(cluster: list[RedisServer]) -> None:
    with anyio.fail_after(20):
        while not all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster):
            await anyio.sleep(0.01)


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
    """For any number of readers; without presence, no call is made."""
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


# History of joins and leaves


async def put(backend: Backend, *channels: str, data: str = "x") -> Position:
    position = await backend.publish(channels, ServerSentEvent(data), key=None, idempotency_key=None)
    assert position is not None
    return position


async def told(
    backend: Backend, after: Position | None, upto: Position, *channels: str
) -> tuple[list[str], str | None]:
    """Return the data of the events that a reader gets, or their type where they have one, and the reason of a gap."""
    page = await backend.history(channels, after, upto, 1000)
    events = [entry.event for entry in page.entries]
    return [event.event or event.data or "" for event in events if isinstance(event, ServerSentEvent)], page.reason


async def test_joins_and_leaves_push_no_events_out(shared_redis: RedisServer, name: str) -> None:
    """They have a bound of their own; a reader that missed a dropped one gets a gap; the event stays."""
    async with Hub(RedisBackend(shared_redis.url, name=name, history_size=3)) as hub:
        start = await put(hub.backend, "a")
        kept = await put(hub.backend, "a", data="kept")
        for number in range(10):
            entered = [Member("a", str(number))]
            await hub.backend.attend("process", lease=9, entered=entered)
        last = await put(hub.backend, "other")
        assert await told(hub.backend, start, last, "a") == (["kept", "sse.join", "sse.join", "sse.join"], "trimmed")
        assert await told(hub.backend, None, last, "a") == (["x", "kept", "sse.join", "sse.join", "sse.join"], None)
        for number in range(5):
            await put(hub.backend, "a", data=str(number))
        last = await put(hub.backend, "other")
        assert (await told(hub.backend, None, last, "a"))[0] == ["sse.join"] * 3 + ["2", "3", "4"]
        assert (await told(hub.backend, kept, last, "a"))[1] == "trimmed"


async def test_presence_takes_no_place_of_a_channel_of_events(shared_redis: RedisServer, name: str) -> None:
    """For any number of channels with joins, all channels with events are known, and so are their readers."""
    fill = "for i = 1, 100001 do redis.call('ZADD', KEYS[1], i, 'room' .. i) end"
    async with Hub(RedisBackend(shared_redis.url, name=name)) as hub:
        start = await put(hub.backend, "a", data="1")
        shared_redis.cli("EVAL", fill, "1", f"sse:{{{name}}}:j")
        await hub.backend.attend("process", lease=9, entered=[Member(f"r{number}", "ada") for number in range(10)])
        assert shared_redis.cli("ZCARD", f"sse:{{{name}}}:i") == "1"
        assert int(shared_redis.cli("ZCARD", f"sse:{{{name}}}:j")) <= 100_001
        last = await put(hub.backend, "other")
        assert await told(hub.backend, start, last, "a", "r1") == (["sse.join"], None)
        assert await told(hub.backend, None, last, "a") == (["1"], None)


async def test_a_reader_who_missed_nobody_is_not_told_of_a_gap(shared_redis: RedisServer, name: str) -> None:
    """Neither if joins were trimmed before it came, nor if other channels' joins were; a reader that missed some is."""
    key = f"sse:{{{name}}}:j"
    async with Hub(RedisBackend(shared_redis.url, name=name, history_size=2)) as hub:
        backend = hub.backend
        start = await put(backend, "a", "b")
        for number in range(9):
            await backend.attend("process", lease=9, entered=[Member("a", str(number))])
        last = await put(backend, "c")
        assert await told(backend, last, last, "a", "b") == ([], None)
        assert await told(backend, start, last, "b", "c") == (["x"], None)
        assert await told(backend, start, last, "a", "c") == (["sse.join", "sse.join", "x"], "trimmed")
        shared_redis.cli("DEL", f"{key}:a")
        assert await told(backend, start, last, "a") == ([], "evicted")
        assert await told(backend, last, last, "a") == ([], None)
        shared_redis.cli("DEL", key)  # the order of joins is lost
        await backend.attend("process", lease=9, entered=[Member("c", "ada")])
        after = await put(backend, "c")
        assert await told(backend, start, after, "b") == ([], "evicted")
        assert await told(backend, after, after, "b") == ([], None)
        await backend.attend("process", lease=9, entered=[Member("b", "ada")])
        last = await put(backend, "c")
        assert await told(backend, after, last, "a", "b", "c") == (["sse.join", "x"], None)


async def test_who_came_while_a_process_was_cut_off_is_told(shared_redis: RedisServer, name: str) -> None:
    """Its readers get the joins and leaves that they missed, in their places between the events."""
    async with (
        proxied(shared_redis) as proxy,
        Hub(RedisBackend(proxy.url, name=name)) as far,
        Hub(RedisBackend(shared_redis.url, name=name)) as near,
        far.subscribe("a") as reader,
    ):
        proxy.cut()
        with anyio.fail_after(10):
            while far.state != "down":
                await anyio.sleep(0.01)
        await near.publish("a", '{"identity": 1}', event="one")
        await near.backend.attend("process", lease=9, entered=[ADA])
        await near.publish("a", '{"identity": 2}', event="two")
        await near.backend.attend("process", lease=9, left=[ADA])
        proxy.open = True
        assert await changes(reader, 4) == ["one 1", "join ada", "two 2", "leave ada"]


async def test_without_presence_a_page_is_read_in_one_call(server: RedisServer, name: str) -> None:
    """Without joins on its channels, no presence stream is read; with some, only the streams of those channels."""
    async with Hub(RedisBackend(server.url, name=name)) as hub:
        backend, names = hub.backend, tuple(f"c{number}" for number in range(20))
        start = await put(backend, *names)
        last = await put(backend, *names)

        async def looks() -> tuple[int, int]:
            server.cli("CONFIG", "RESETSTAT")
            await backend.history(names, start, last, 100)
            return calls(server), calls(server, "xrange")

        assert await looks() == (1, 20)
        await backend.attend("process", lease=9, entered=[Member("elsewhere", "ada")])
        assert await looks() == (1, 20)
        await backend.attend("process", lease=9, entered=[Member("c3", "ada")])
        assert await looks() == (2, 21)


def calls(server: RedisServer, command: str = "evalsha") -> int:
    found = [line for line in server.cli("INFO", "commandstats").splitlines() if line.startswith(f"cmdstat_{command}:")]
    return int(found[0].partition("calls=")[2].partition(",")[0])
