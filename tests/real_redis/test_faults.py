"""The events of readers when Redis fails: none lost, none twice, or one gap."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from real_redis.launcher import RedisServer
from real_redis.readers import publishing, reading
from sse_asgi import BackendError, Hub, PublishUnknownError
from sse_asgi._servers.shutdown import current_notice

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


async def state_is(hub: Hub, state: str, patience: float = 10) -> None:
    with anyio.fail_after(patience):
        while hub.state != state:
            await anyio.sleep(0.002)


async def test_a_crash_without_persistence_is_one_gap(server: RedisServer, new_hub: NewHub) -> None:
    """Each reader gets one gap, and then every event of the next life."""
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(hub, "a") as one, reading(hub, "a", "b") as two, reading(other, "b") as three:
            await hub.publish(["a", "b"], "1")
            for reader in (one, two, three):
                await reader.has("1")
            server.kill()
            await state_is(hub, "down")
            server.start()
            await other.publish(["a", "b"], "2")
            await state_is(hub, "up")
            await hub.publish(["a", "b"], "3")
            for reader in (one, two, three):
                await reader.has("1", "2", "3")
                assert reader.gaps == ["epoch"]


async def test_a_crash_with_aof_is_no_gap(new_server: NewServer, new_hub: NewHub) -> None:
    """Readers do not notice a restart that lost no writes, under a continuous load."""
    server = new_server("--appendonly", "yes").start()
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(hub, "a") as near, reading(other, "a", "b") as far, publishing(hub, "a") as publisher:
            await far.until(lambda one: len(one.texts) > 50)
            await anyio.to_thread.run_sync(server.restart)
            await state_is(other, "up")
            count = len(publisher.stored)
            await far.until(lambda _: len(publisher.stored) > count + 50)
        last = await hub.publish("a", "last")
        async with reading(hub, "a", last_event_id=near.ids[0]) as resumed:
            await resumed.until(lambda one: "last" in one.texts)
    for reader in (near, far):
        assert reader.gaps == []
        assert len(set(reader.ids)) == len(reader.ids)
        assert reader.ids == sorted(reader.ids, key=lambda one: int(one.partition("-")[2]))
        assert set(publisher.stored) <= {*reader.texts, publisher.stored[-1]}
    assert resumed.gaps == []
    assert set(publisher.stored) <= {near.texts[0], *resumed.texts}
    assert resumed.ids[-1] == last


async def test_a_power_failure_is_one_gap(new_server: NewServer, new_hub: NewHub) -> None:
    """A server that lost its last writes begins another life once: all readers get a gap, and no event twice."""
    server = new_server("--appendonly", "yes").start()
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(hub, "a") as near, reading(other, "a", "b") as far, reading(other, "b") as quiet:
            texts = [str(number) for number in range(20)]
            for text in texts:
                await hub.publish("a", text)
            await far.has(*texts)
            await near.has(*texts)
            server.kill()
            log = next(server.directory.glob("appendonlydir/*.incr.aof"))
            os.truncate(log, log.stat().st_size * 2 // 3)
            server.start()
            for one in (hub, other):
                await state_is(one, "up")
            await quiet.until(lambda one: one.gaps)
            await hub.publish(["a", "b"], "new")
            await near.has(*texts, "new")
            await far.has(*texts, "new")
            await quiet.has("new")
            async with reading(other, "a", last_event_id=near.ids[-2]) as resumed:
                await resumed.has("new")
        assert near.gaps == far.gaps == quiet.gaps == resumed.gaps == ["epoch"]


async def test_killed_subscriptions_lose_nothing(server: RedisServer, new_hub: NewHub) -> None:
    """Ten times the pub/sub connections are killed, under load: everything arrives once, in order."""
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(other, "a") as reader, publishing(hub, "a") as publisher:
            for _ in range(10):
                await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", "pubsub")
                await anyio.sleep(0.05)
                await state_is(other, "up")
            await reader.until(lambda one: len(one.texts) > 100)
        await state_is(hub, "up")
        await hub.publish("a", "last")
        await reader_sees_last(other, reader.ids[-1])
    assert reader.gaps == []
    sure = [text for text in publisher.stored if int(text) <= int(reader.texts[-1] or 0)]
    assert [text for text in reader.texts if text not in publisher.unknown] == sure


async def reader_sees_last(hub: Hub, last_event_id: str) -> None:
    async with reading(hub, "a", last_event_id=last_event_id) as reader:
        await reader.until(lambda one: one.texts[-1:] == ["last"])
    assert reader.gaps == []


async def test_killed_commands_are_unknown_or_safe(server: RedisServer, new_hub: NewHub) -> None:
    """With a key every publish is stored once, although the connection that carries it is killed again and again."""
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(other, "a") as reader, publishing(hub, "a", keyed=True) as publisher:
            for _ in range(5):
                await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", "normal")
                await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", "pubsub")
                await anyio.sleep(0.05)
                await state_is(hub, "up")
            count = len(publisher.stored)
            await reader.until(lambda _: len(publisher.stored) > count + 20)
            await reader.until(lambda one: publisher.stored[count] in one.texts)
    assert publisher.unknown == []
    assert publisher.refused == 0
    numbers = [int(text or 0) for text in reader.texts]
    assert numbers == list(range(1, numbers[-1] + 1))
    assert reader.gaps == []


async def test_flushing_everything_is_one_gap(server: RedisServer, new_hub: NewHub) -> None:
    """A quiet hub whose log is deleted gives its readers a gap within a few seconds; the same under load."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        server.cli("FLUSHALL")
        await reader.until(lambda one: one.gaps == ["epoch"])
        await state_is(hub, "up")
        await hub.publish("a", "2")
        await reader.has("1", "2")
        server.cli("FLUSHALL")
        await hub.publish("a", "3")
        await reader.has("1", "2", "3")
        assert reader.gaps == ["epoch", "epoch"]


async def test_forgotten_scripts_are_sent_again(server: RedisServer, new_hub: NewHub) -> None:
    """After SCRIPT FLUSH publishing goes on."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        server.cli("SCRIPT", "FLUSH")
        await hub.publish("a", "2")
        await reader.has("1", "2")
        assert reader.gaps == []


@pytest.mark.parametrize("keyed", [False, True])
async def test_a_frozen_server(server: RedisServer, new_hub: NewHub, keyed: bool) -> None:  # noqa: FBT001
    """An event that was sent to a server before it froze is unknown without a key, and stored once with one."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(other, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        server.stop()
        publishing = asyncio.create_task(hub.publish("a", "2", idempotency_key="key" if keyed else None))
        await anyio.sleep(6)
        server.cont()
        if keyed:
            await publishing
        else:
            with pytest.raises(PublishUnknownError, match="may have been stored"):
                await publishing
        await state_is(hub, "up")
        await state_is(other, "up")
        await hub.publish("a", "3")
        await reader.has("1", "2", "3")
        assert reader.gaps == []


async def test_a_stale_replica_is_one_gap(new_server: NewServer, new_hub: NewHub) -> None:
    """A replica that lacks acknowledged events is promoted: readers who had them get a gap, and every new event."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    async with new_hub(master) as hub, reading(hub, "a") as reader, reading(hub, "b") as quiet:
        await hub.publish("a", "1")
        await reader.until(lambda _: replica.info("master_link_status") == "up" and replica.cli("DBSIZE") == "4")
        replica.cli("CONFIG", "SET", "masterauth", "wrong")  # it cannot come back
        master.cli("CONFIG", "SET", "requirepass", "right")
        master.cli("CLIENT", "KILL", "TYPE", "replica", password="right")
        await hub.publish("a", "2")
        await reader.has("1", "2")
        master.kill()
        await state_is(hub, "down")
        replica.cli("REPLICAOF", "NO", "ONE")
        replica.cli("CONFIG", "SET", "port", str(master.port))
        await state_is(hub, "up")
        await hub.publish(["a", "b"], "3")
        await reader.has("1", "2", "3")
        await quiet.has("3")
        assert reader.gaps == quiet.gaps == ["epoch"]
        async with reading(hub, "a", last_event_id=reader.ids[1]) as resumed:
            await resumed.has("3")
        assert resumed.gaps == ["epoch"]


async def test_a_demoted_master_is_left(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub that does nothing notices within a few seconds that its server became a replica."""
    server = new_server().start()
    async with new_hub(server) as hub:
        server.cli("REPLICAOF", "127.0.0.1", str(server.port))
        await state_is(hub, "down")
        server.cli("REPLICAOF", "NO", "ONE")
        await state_is(hub, "up")
    assert "it is not a master any more" in caplog.text


async def test_redis_down_at_start(new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """The hub opens, streams begin, publishing fails after a bounded wait; all is live soon after Redis comes."""
    caplog.set_level("INFO", "sse_asgi")
    server = new_server()
    async with new_hub(server, timeout=0.3) as hub, reading(hub, "a", wait=False) as reader:
        assert hub.state == "down"
        began = time.monotonic()
        with pytest.raises(BackendError, match=r"not published: Redis was away for 0\.3 s"):
            await hub.publish("a", "1")
        assert 0.2 < time.monotonic() - began < 1
        server.start()
        began = time.monotonic()
        await state_is(hub, "up", 1)
        await reader.until(lambda _: "a" in hub._registry._channels and hub._registry._channels["a"].subscribed)  # type: ignore[union-attr]
        assert time.monotonic() - began < 1
        await hub.publish("a", "2")
        await reader.has("2")
        assert reader.gaps == []
    assert [one.levelname for one in caplog.records if one.name == "sse_asgi.backends.redis"] == ["WARNING", "INFO"]
    assert caplog.messages[-1].startswith(f"Redis at 127.0.0.1:{server.port} is back after ")


@pytest.fixture
async def stop() -> AsyncIterator[Callable[[], None]]:
    """Return the seconds that a server takes to stop."""
    yield lambda: current_notice().hear()
    current_notice().heard = False


async def test_publishing_does_not_wait_while_the_server_stops(
    new_server: NewServer, new_hub: NewHub, stop: Callable[[], None]
) -> None:
    """Calls that wait for Redis fail when the server stops, and later calls fail at once."""
    async with new_hub(new_server()) as hub:
        waiting = asyncio.create_task(hub.publish("a", "1"))
        await anyio.sleep(0.05)
        assert not waiting.done()
        began = time.monotonic()
        stop()
        for publish in (waiting, hub.publish("a", "2")):
            with pytest.raises(BackendError, match="not published: Redis is away, and this server stops"):
                await publish
        assert time.monotonic() - began < 0.5
        assert current_notice().listeners == 0


async def test_a_server_that_stops_as_the_wait_ends(
    new_server: NewServer, new_hub: NewHub, stop: Callable[[], None]
) -> None:
    """A wait that has just ended is not ended again."""
    async with new_hub(new_server(), timeout=0.1) as hub:
        waiting = asyncio.create_task(hub.publish("a", "1"))
        await anyio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.12, stop)
        time.sleep(0.15)  # noqa: ASYNC251 - so that both are due in one turn of the loop
        with pytest.raises(BackendError, match="not published"):
            await waiting


async def test_a_server_that_stops_still_publishes(
    server: RedisServer, new_hub: NewHub, stop: Callable[[], None]
) -> None:
    """Where Redis is there, a request that is being answered is answered."""
    async with new_hub(server) as hub:
        stop()
        assert await hub.publish("a", "1")


async def test_closing_while_reconnecting_leaves_no_task(new_server: NewServer, new_hub: NewHub) -> None:
    """A hub that is closed in the middle of an outage is gone: readers end, and no task is left."""
    before = asyncio.all_tasks()
    hub = new_hub(new_server())
    async with hub:
        ended = asyncio.create_task(read_to_the_end(hub))
        await anyio.sleep(0.1)
    await ended
    assert asyncio.all_tasks() == before


async def read_to_the_end(hub: Hub) -> None:
    with pytest.raises(Exception, match="the hub was closed"):
        async with hub.subscribe("a"):
            pass
