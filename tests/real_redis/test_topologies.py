"""Sentinel, and a cluster: the hub finds its server, and finds it again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from redis.crc import key_slot

from real_redis.launcher import RedisServer, free_port, move_slot
from real_redis.readers import reading
from sse_asgi import Hub

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
        await until(lambda: replica.cli("DBSIZE") == "3")
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
    """Whichever node is asked, the hub is found on the node that owns its slot, and followed when the slot moves."""
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


async def test_a_page_that_is_reloaded_on_a_cluster(cluster: list[RedisServer], new_hub: NewHub) -> None:
    """A channel that is left and entered at once has not moved: the session stays."""
    await until(lambda: all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster))
    async with new_hub(url=f"redis+cluster://127.0.0.1:{cluster[0].port}") as hub:
        worker = hub.backend._worker  # type: ignore[attr-defined]
        session = worker.session
        page = await hub.subscribe("a").__aenter__()
        for _ in range(10):
            await page.__aexit__()
            page = await hub.subscribe("a").__aenter__()
        async with reading(hub, "a") as reader:
            await hub.publish("a", "1")
            await reader.has("1")
        assert worker.session is session
        assert dict(worker.feed._parting) == {}
