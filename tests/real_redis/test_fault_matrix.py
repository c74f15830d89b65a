"""Faults under a load, each on servers of its own: nothing lost without a gap, nothing twice, no false alarm.

Where the other faults are that a log must survive:

| fault | test |
|---|---|
| crash, with and without persistence; power failure | below, test_faults |
| connections killed; publisher and subscriber | below, test_faults |
| frozen server; with and without a key | below, test_faults |
| everything flushed: busy, idle, while history is read | below, test_faults, test_moments, test_network |
| scripts flushed | below, test_faults |
| replica promoted, in sync and stale; failing back | below, test_faults |
| planned failover, the old master alive; an idle process | below, test_faults |
| Sentinel, the first one asked refuses | below, test_topologies |
| pub/sub on another server than commands | test_network |
| output buffer limit | below |
| trimming: the exact boundary, and under load | test_history, below |
| ids: garbage, foreign, future, expired | tests/backends, test_history |
| stream, index or meta key evicted | below, test_moments, test_history |
| one event on several channels | below, tests/backends |
| 10,000 channels, that come and go | test_moments, test_backend |
| cancelled at every await | test_moments, test_backend |
| clock set back | test_moments |
| LOADING, READONLY, NOAUTH, OOM, MOVED | below, test_network |
| slot moves | below, test_topologies |
| Redis away at the start, closing while it is away | test_faults |
| two versions of the scripts | test_bad_input |
| slow readers, held messages | test_moments, test_backend |
"""

import asyncio
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from redis.crc import key_slot

from real_redis.crowd import until
from real_redis.launcher import RedisServer, free_port, move_slot
from real_redis.proxy import proxied
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
Judged = Callable[..., Any]


async def thread(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a blocking function while the load goes on."""
    return await asyncio.to_thread(function, *arguments)


async def test_no_fault(server: RedisServer, judged: Judged) -> None:
    """The load itself is seen complete."""
    async with judged(server.url, fault="none") as load:
        load.heals()


async def test_a_crash_without_persistence(server: RedisServer, judged: Judged) -> None:
    """Each reader gets one gap."""
    async with judged(server.url, fault="SIGKILL, no persistence", gaps="one each") as load:
        load.losses = 1
        server.kill()
        await load.state("down")
        await thread(server.start)
        load.heals()


@pytest.mark.parametrize("fsync", ["everysec", "always"])
async def test_a_crash_with_aof(new_server: NewServer, judged: Judged, fsync: str) -> None:
    """Readers notice only a delay."""
    server = new_server("--appendonly", "yes", "--appendfsync", fsync).start()
    async with judged(server.url, fault=f"SIGKILL, AOF {fsync}") as load:
        server.kill()
        await load.state("down")
        await thread(server.start)
        load.heals()


async def test_a_power_failure(new_server: NewServer, judged: Judged) -> None:
    """The end of the log is lost: each reader gets one gap."""
    server = new_server("--appendonly", "yes").start()
    async with judged(server.url, fault="power failure", gaps="one each") as load:
        load.losses = 1
        await load.flow(200)
        server.kill()
        log = next(server.directory.glob("appendonlydir/*.incr.aof"))
        os.truncate(log, log.stat().st_size * 2 // 3)
        await load.state("down")
        await thread(server.start)
        load.heals()


@pytest.mark.parametrize("kinds", [("pubsub",), ("normal",), ("pubsub", "normal")])
async def test_killed_connections(server: RedisServer, judged: Judged, kinds: tuple[str, ...]) -> None:
    """Readers notice only a delay."""
    async with judged(server.url, fault=f"CLIENT KILL {', '.join(kinds)}, 8 times") as load:
        for _ in range(8):
            for kind in kinds:
                await thread(server.cli, "CLIENT", "KILL", "TYPE", kind)
            await load.flow(2)
        load.heals()


async def test_a_frozen_server(server: RedisServer, judged: Judged) -> None:
    """Readers notice only a delay."""
    async with judged(server.url, fault="SIGSTOP", timeout=1) as load:
        server.stop()
        await anyio.sleep(3)
        server.cont()
        load.heals()
        await load.state("up")


async def test_a_server_that_is_frozen_for_long(server: RedisServer, judged: Judged) -> None:
    """For 20 s. An event that was on its way without a key is unknown, and its publisher gets that error."""
    async with judged(server.url, fault="SIGSTOP for 20 s", timeout=2) as load:
        server.stop()
        await anyio.sleep(20)
        server.cont()
        load.heals()
        await load.state("up")
        assert all(one.unknown for one in load.publishers)
        assert load.refused > len(load.publishers)


async def test_flushall(server: RedisServer, judged: Judged) -> None:
    """Each reader gets one gap for each flush."""
    async with judged(server.url, fault="FLUSHALL three times", gaps="three each") as load:
        for _ in range(3):
            load.losses += 1
            await thread(server.cli, "FLUSHALL")
            load.heals()
            await until(lambda: all(one.gaps >= load.losses for one in load.browsers))


async def test_script_flush(server: RedisServer, judged: Judged) -> None:
    """Readers notice only a delay."""
    async with judged(server.url, fault="SCRIPT FLUSH five times") as load:
        for _ in range(5):
            await thread(server.cli, "SCRIPT", "FLUSH")
            load.heals()
            await load.flow(20)


async def test_a_reader_of_redis_that_is_too_slow(server: RedisServer, judged: Judged) -> None:
    """A worker that does not read is cut off by Redis, and catches up; its own buffers stay small."""
    server.cli("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0")
    async with proxied(server) as proxy, judged(proxy.url, server.url, server.url, fault="output buffer limit") as load:
        async with load.hubs[0].subscribe("large") as slow:
            proxy.flows.clear()
            while server.cli("CLIENT", "LIST", "TYPE", "pubsub").count("\n") == 2:
                await load.hubs[1].publish("large", "x" * (1 << 20))
            proxy.flows.set()
            load.heals()
            await until(lambda: load.hubs[0].state == "down")
            await load.state("up")
            assert sum(len(one.frame) for one in slow.gate.buffer.entries) < 3 << 20


async def test_a_network_that_is_cut(server: RedisServer, judged: Judged) -> None:
    """One process is cut off again and again, while the others publish: it catches up."""
    async with proxied(server) as proxy, judged(proxy.url, server.url, server.url, fault="network cut") as load:
        for _ in range(3):
            proxy.cut()
            await load.flow()
            proxy.open = True
            load.heals()
            await load.state("up")


async def in_sync(master: RedisServer, replica: RedisServer) -> None:
    """Wait until writes flow; a replica that is up may have to wait a second for them."""
    await until(lambda: replica.info("master_link_status") == "up")
    master.cli("SET", "probe", str(master.port))
    await until(lambda: replica.cli("GET", "probe") == str(master.port))


async def in_step(master: RedisServer, replica: RedisServer) -> None:
    """Hold all writes back, and wait until the replica has applied those before: none is acknowledged from then on.

    Otherwise a master that is killed between two writes to sockets may have acknowledged an event that its replica has
    not been sent.
    """
    master.cli("CLIENT", "PAUSE", "60000", "WRITE")
    await until(lambda: replica.info("slave_repl_offset") == master.info("master_repl_offset"))


async def promote(replica: RedisServer, master: RedisServer) -> None:
    """Make the replica a master at the address of the one that has died."""
    assert replica.cli("REPLICAOF", "NO", "ONE") == "OK"
    # Another process may use the port for a moment, for an outgoing connection.
    await until(lambda: replica.cli("CONFIG", "SET", "port", str(master.port)) == "OK")


async def test_a_replica_in_sync(new_server: NewServer, judged: Judged) -> None:
    """The master dies, and its replica takes over all events: readers notice only a delay."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    await in_sync(master, replica)
    async with judged(master.url, fault="replica promoted") as load:
        await in_step(master, replica)
        master.kill()
        await load.state("down")
        # A promoted replica drops received bytes that it has not read. It reports "down" when it has read all of them.
        await until(lambda: replica.info("master_link_status") == "down")
        await promote(replica, master)
        load.heals()


async def test_a_stale_replica(new_server: NewServer, judged: Judged) -> None:
    """A replica that lacks acknowledged events takes over: each reader gets one gap."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    await in_sync(master, replica)
    async with judged(master.url, fault="stale replica promoted", gaps="one each") as load:
        load.losses = 1
        replica.cli("CONFIG", "SET", "masterauth", "wrong")
        master.cli("CONFIG", "SET", "requirepass", "right")
        master.cli("CLIENT", "KILL", "TYPE", "replica", password="right")
        await load.flow()
        master.kill()
        await load.state("down")
        await promote(replica, master)
        load.heals()


def is_master(server: RedisServer) -> bool:
    return server.info("role") == "master"


async def test_a_planned_failover_and_back(new_server: NewServer, judged: Judged) -> None:
    """The old master goes on as a replica, then it is master again. Readers notice only a delay."""
    one = new_server().start()
    two = new_server("--replicaof", "127.0.0.1", str(one.port)).start()
    await in_sync(one, two)
    async with proxied(one) as proxy, judged(proxy.url, fault="planned failover, and back") as load:
        for old, new in ((one, two), (two, one)):
            proxy.targets = [new]
            old.cli("FAILOVER")
            await until(partial(is_master, new))
            load.heals()
            await load.live()
            await load.flow()
            await in_sync(new, old)


async def test_sentinel(new_server: NewServer, judged: Judged, tmp_path: Path) -> None:
    """Sentinel promotes the replica of a dead master: readers notice only a delay."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    await in_sync(master, replica)
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    sentinel = new_server(sentinel=config).start()
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main"
    await until(lambda: "slaves=1" in sentinel.cli("INFO", "sentinel"))
    async with judged(url, fault="Sentinel, master killed") as load:
        master.kill()
        load.heals()
        await load.state("down")


async def test_a_slot_that_moves(cluster: list[RedisServer], judged: Judged, name: str) -> None:
    """The hub moves to another node of the cluster, key by key, under load, and on: readers notice only a delay."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    urls = [f"redis+cluster://127.0.0.1:{node.port}" for node in cluster]
    async with judged(*urls, fault="cluster slot moved, twice") as load:
        for _ in range(2):
            await thread(move_slot, cluster, slot)
            load.heals()
            await load.live()


async def test_out_of_memory(server: RedisServer, judged: Judged) -> None:
    """Publishing is refused, reading goes on, and a process that reconnects meanwhile is live again."""
    async with judged(server.url, fault="maxmemory reached") as load:
        server.cli("CONFIG", "SET", "maxmemory", "1")
        await until(lambda: load.refused > 20)
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await load.state("up")
        server.cli("CONFIG", "SET", "maxmemory", "0")
        load.heals()


async def test_a_password_is_set(server: RedisServer, judged: Judged) -> None:
    """A password that is wrong for a while is an outage as any other."""
    async with judged(server.url, fault="password changed") as load:
        server.cli("CONFIG", "SET", "requirepass", "new")
        for kind in ("normal", "pubsub"):
            server.cli("CLIENT", "KILL", "TYPE", kind, password="new")
        await load.state("down")
        server.cli("CONFIG", "SET", "requirepass", "", password="new")
        load.heals()


async def test_a_server_that_loads(server: RedisServer, judged: Judged, caplog: pytest.LogCaptureFixture) -> None:
    """A server that answers LOADING for a while is waited for."""
    async with judged(server.url, fault="restart, slow to load") as load:
        server.save()
        await load.state("down")
        server.options = ("--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024")
        starting = asyncio.create_task(thread(server.start))
        await until(lambda: b"LOADING" in ping(server))
        async with Hub(RedisBackend(server.url)) as late:
            assert late.state == "down"
        await starting
        load.heals()
    assert "LOADING" in caplog.text


def ping(server: RedisServer) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100)
    except OSError:
        return b""


async def test_evicted_keys(server: RedisServer, judged: Judged, name: str) -> None:
    """Only readers that were away meanwhile, and had not read the evicted events, get a gap."""
    async with judged(server.url, fault="half of the streams evicted", gaps="where it was missed") as load:
        for _ in range(3):
            server.cli("DEL", *(f"sse:{{{name}}}:s:{channel}" for channel in "ace"))
            load.heals()
            await load.flow()
    assert load.gaps(moves=False) == [0] * 12
    assert max(load.gaps(moves=True)) <= 3


async def test_an_evicted_index(server: RedisServer, judged: Judged, name: str) -> None:
    """A process that was cut off catches up without the index: readers notice only a delay."""
    async with (
        proxied(server) as proxy,
        judged(proxy.url, server.url, server.url, fault="index evicted") as load,
    ):
        for _ in range(3):
            proxy.cut()
            await load.flow(50)
            server.cli("DEL", f"sse:{{{name}}}:i")
            await load.flow(50)
            proxy.open = True
            load.heals()
            await load.state("up")


async def test_trimming(server: RedisServer, judged: Judged) -> None:
    """A process is cut off for longer than events are kept: its readers get a gap, and no reader is sent back."""
    options = {"fault": "history too short", "gaps": "where it was missed", "history_size": 20}
    async with proxied(server) as proxy, judged(proxy.url, server.url, server.url, **options) as load:
        for _ in range(3):
            load.losses += 1
            proxy.cut()
            await load.flow(400)
            proxy.open = True
            load.heals()
            await load.state("up")
            await load.live()
    assert set(load.gaps(moves=False, hub=0)) == {3}
    assert {*load.gaps(moves=False, hub=1), *load.gaps(moves=False, hub=2)} == {0}
