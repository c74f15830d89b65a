"""Sentinel, and a cluster: the hub finds its server, and finds it again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from redis.crc import key_slot

from real_redis.launcher import RedisServer, free_port, move_slot
from real_redis.readers import reading
from sse_asgi import BackendError, Hub

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


async def until(condition: Callable[[], object], patience: float = 20) -> None:
    with anyio.fail_after(patience):
        while not await asyncio.to_thread(condition):
            await anyio.sleep(0.05)


async def test_sentinel_names_the_master(new_server: NewServer, new_hub: NewHub, tmp_path: Path) -> None:
    """After a failover everything goes on at the new master, and readers notice nothing."""
    master = new_server().start()
    replica = new_server("--replicaof", "127.0.0.1", str(master.port)).start()
    await until(lambda: replica.info("master_link_status") == "up")
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    )
    sentinel = new_server(sentinel=config).start()
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main"
    await until(lambda: "slaves=1" in sentinel.cli("INFO", "sentinel"))
    async with new_hub(url=url) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        await until(lambda: replica.cli("DBSIZE") == "4")
        master.kill()
        await until(lambda: hub.state == "down")
        await until(lambda: hub.state == "up")
        await hub.publish("a", "2")
        await reader.has("1", "2")
        assert reader.gaps == []
        assert replica.info("role") == "master"


async def test_a_service_that_sentinel_does_not_know(
    new_server: NewServer, new_hub: NewHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong name is one warning that says it."""
    config = tmp_path / "sentinel.conf"
    config.touch()
    sentinel = new_server(sentinel=config).start()
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{sentinel.port}/main") as hub:
        assert hub.state == "down"
    assert "No master found for 'main'" in caplog.text


async def test_a_cluster(cluster: list[RedisServer], new_hub: NewHub, name: str) -> None:
    """From any node the hub is found on the node that owns its slot, and followed when the slot moves."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    urls = [f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{node.port}" for node in cluster]
    async with new_hub(url=urls[0]) as hub, new_hub(url=urls[1]) as other, new_hub(url=cluster[2].url) as third:
        await until(lambda: {hub.state, other.state, third.state} == {"up"})
        async with reading(hub, "a", "b") as one, reading(third, "b") as two:
            await other.publish(["a", "b"], "1")
            await one.has("1")
            await two.has("1")
            await asyncio.to_thread(move_slot, cluster, slot)
            assert [event.data for event in await other.history("a")] == ["1"]
            await other.publish(["a", "b"], "2")
            await one.has("1", "2")
            await two.has("1", "2")
            assert one.gaps == two.gaps == []


async def test_a_slot_of_which_the_first_key_has_gone_ahead(
    cluster: list[RedisServer], new_hub: NewHub, name: str
) -> None:
    """The hub is down until the others have followed, and then goes on where it was."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    async with new_hub(url=url, timeout=0.3) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
        other = next(node for node in cluster if node is not owner)
        ids = {node: node.cli("CLUSTER", "MYID") for node in (owner, other)}
        other.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[owner])
        owner.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[other])
        move = ["MIGRATE", "127.0.0.1", str(other.port), "", "0", "5000", "KEYS"]
        owner.cli(*move, f"sse:{{{name}}}:m")
        with pytest.raises(BackendError):
            await hub.publish("a", "refused")
        await until(lambda: hub.state == "down")
        owner.cli(*move, *owner.cli("CLUSTER", "GETKEYSINSLOT", slot, "10").split())
        for node in (other, owner):
            node.cli("CLUSTER", "SETSLOT", slot, "NODE", ids[other])
        await until(lambda: hub.state == "up")
        await hub.publish("a", "2")
        await reader.has("1", "2")
        assert reader.gaps == []


async def test_without_history_a_slot_that_is_being_moved(
    cluster: list[RedisServer], new_hub: NewHub, name: str
) -> None:
    """An event for one channel passes, and one for several waits."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = key_slot(name.encode())
    async with new_hub(url=f"redis+cluster://127.0.0.1:{cluster[0].port}", history_size=0) as hub:
        async with reading(hub, "a") as reader:
            port = hub.backend._keeper.session.server.endpoint._port  # type: ignore[attr-defined]
            owner = next(node for node in cluster if node.port == port)
            other = next(node for node in cluster if node is not owner)
            owner.cli("CLUSTER", "SETSLOT", str(slot), "MIGRATING", other.cli("CLUSTER", "MYID"))
            await hub.publish("a", "1")
            waits = asyncio.create_task(hub.publish(["a", "b"], "2"))
            assert not (await asyncio.wait([waits], timeout=0.3))[0]
            await reader.has("1")
            owner.cli("CLUSTER", "SETSLOT", str(slot), "STABLE")
            await waits
            await reader.has("1", "2")


async def test_a_page_that_is_reloaded_on_a_cluster(cluster: list[RedisServer], new_hub: NewHub) -> None:
    """A channel that is left and entered at once has not moved: the session stays."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    async with new_hub(url=f"redis+cluster://127.0.0.1:{cluster[0].port}") as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        session = keeper.session
        page = await hub.subscribe("a").__aenter__()
        for _ in range(10):
            await page.__aexit__()
            page = await hub.subscribe("a").__aenter__()
        async with reading(hub, "a") as reader:
            await hub.publish("a", "1")
            await reader.has("1")
        assert keeper.session is session
        assert dict(keeper.inbox._unsubscribing) == {}


async def test_a_slot_that_is_being_moved(cluster: list[RedisServer], new_hub: NewHub, name: str) -> None:
    """Existing channels go on; new keys wait until they can be stored, and no session ends for it."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    async with new_hub(url=f"redis+cluster://127.0.0.1:{cluster[0].port}") as hub, reading(hub, "a", "b") as reader:
        await hub.publish("a", "1")
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
        other = next(node for node in cluster if node is not owner)
        owner.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", other.cli("CLUSTER", "MYID"))
        await hub.publish("a", "2")
        await reader.has("1", "2")
        tasks = [asyncio.create_task(hub.publish("b", "3")), asyncio.create_task(hub.history("b"))]
        assert not (await asyncio.wait(tasks, timeout=0.3))[0]
        owner.cli("CLUSTER", "SETSLOT", slot, "STABLE")
        await asyncio.gather(*tasks)
        await reader.has("1", "2", "3")
        assert hub.backend._keeper.session is session  # type: ignore[attr-defined]


async def test_nothing_gives_way_while_a_slot_is_being_moved(
    cluster: list[RedisServer], new_hub: NewHub, name: str
) -> None:
    """A stream that may have moved is not deleted, publishing goes on, and afterwards the sum is brought down."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot, url = str(key_slot(name.encode())), f"redis+cluster://127.0.0.1:{cluster[0].port}"
    async with new_hub(url=url, total_bytes=250) as hub:
        for channel in "abc":
            await hub.publish(channel, "x" * 70)
        owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
        other = next(node for node in cluster if node is not owner)
        owner.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", other.cli("CLUSTER", "MYID"))
        owner.cli("DEL", f"sse:{{{name}}}:s:a")
        await hub.publish("c", "y" * 70)
        assert owner.cli("HMGET", f"sse:{{{name}}}:m", "a", "c:a").split() == ["316", "79", "0"]
        owner.cli("CLUSTER", "SETSLOT", slot, "STABLE")
        await hub.publish("c", "z" * 1)
        assert owner.cli("HGET", f"sse:{{{name}}}:m", "a") == "247"
        assert [len(await hub.history(channel)) for channel in "abc"] == [0, 1, 3]


async def test_a_slot_that_does_not_arrive(cluster: list[RedisServer], new_hub: NewHub, name: str) -> None:
    """A publisher waits no longer than for a Redis that is away."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    async with new_hub(url=f"redis+cluster://127.0.0.1:{cluster[0].port}", timeout=0.3) as hub:
        await hub.publish("a", "1")
        owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
        other = next(node for node in cluster if node is not owner)
        owner.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", other.cli("CLUSTER", "MYID"))
        with pytest.raises(BackendError, match="not published: Redis refused: TRYAGAIN"):
            await hub.publish("b", "2")


async def test_the_node_of_the_url_dies(cluster: list[RedisServer], new_hub: NewHub, name: str) -> None:
    """The others are known by then, and lead to the owner of the slot."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    slot = str(key_slot(name.encode()))
    async with new_hub(url=cluster[0].url) as hub:
        await hub.publish("a", "1")
    owner = next(node for node in cluster if node.cli("CLUSTER", "COUNTKEYSINSLOT", slot) != "0")
    seed = next(node for node in cluster if node is not owner)
    async with new_hub(url=f"redis+cluster://127.0.0.1:{seed.port}") as hub, reading(hub, "a") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        session = keeper.session
        seed.kill()
        owner.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: keeper.session not in (None, session), patience=5)
        await hub.publish("a", "2")
        await reader.has("2")


async def test_a_user_who_may_not_know_the_nodes(cluster: list[RedisServer], new_hub: NewHub) -> None:
    """The nodes of the URL have to do, and the hub works."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    for node in cluster:
        node.cli("ACL", "SETUSER", "me", "on", ">pw", "~*", "&*", "+@all", "-cluster")
    async with new_hub(url=f"redis+cluster://me:pw@127.0.0.1:{cluster[0].port}") as hub:
        assert await hub.publish("a", "1")
