"""Resuming after restarts and losses of Redis: events and gaps."""

from collections.abc import Callable

import anyio
import pytest

from hub.readers import framed
from real_redis.helpers import epoch, ids, resumed
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


async def test_a_channel_that_never_had_an_event(new_server: Callable[..., RedisServer], new_hub: NewHub) -> None:
    """Its readers missed nothing, also where the first event of the hub is published after a restart of Redis."""
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    async with new_hub(server) as hub:
        async with framed(hub.subscribe("quiet")) as feed:
            first = feed.take().decode().partition("\n")[0].removeprefix("id: ")
        server.restart()
        await hub.publish("other", "1", idempotency_key="key")
        assert await resumed(hub, "quiet", first) == ([], [])


async def test_the_index_is_bounded(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """Of 100,000 channels those that were published to longest ago fall out of the index."""
    fill = "for i = 1, 100001 do redis.call('ZADD', KEYS[1], i, 'old' .. i) end"
    async with new_hub() as hub:
        shared_redis.cli("EVAL", fill, "1", keys("i"))
        await ids(hub, "a", 2)
        assert shared_redis.cli("ZCARD", keys("i")) == "100000"
        assert shared_redis.cli("HGET", keys("m"), "x") == "2"


async def test_two_power_failures(server: RedisServer, new_hub: NewHub) -> None:
    """A reader that was away over both gets a gap for its lost events, of the first failure and of the second."""
    kept, lost = [], []
    for life in ("1", "2"):
        async with new_hub(server) as hub:
            kept.append(await hub.publish("a", f"kept {life}") or "")
            server.cli("SAVE")
            lost.append(await hub.publish("a", f"lost {life}") or "")
        await anyio.to_thread.run_sync(server.restart)
    async with new_hub(server) as hub:
        assert await resumed(hub, "a", kept[0]) == (["kept 2"], [])
        assert await resumed(hub, "a", lost[0]) == (["kept 2", "end"], ["fork"])
        assert await resumed(hub, "a", kept[1]) == (["end", "end"], [])
        assert await resumed(hub, "a", lost[1]) == (["end", "end", "end"], ["fork"])


async def test_a_process_that_was_cut_off_over_two_power_failures(server: RedisServer, new_hub: NewHub) -> None:
    """It knows the events that the first failure lost: the log begins another life, and all readers get one gap."""
    async with proxied(server) as proxy, new_hub(url=proxy.url) as away, reading(away, "a") as reader:
        await away.publish("a", "1")
        server.cli("SAVE")
        await away.publish("a", "2")
        await reader.has("1", "2")
        proxy.cut()
        await anyio.to_thread.run_sync(server.restart)
        async with new_hub(server) as hub:
            await hub.publish("a", "3")
        server.cli("SAVE")
        await anyio.to_thread.run_sync(server.restart)
        async with new_hub(server) as hub, reading(hub, "a") as other:
            await hub.publish("a", "4")
            await other.has("4")
            proxy.open = True
            await reader.until(lambda one: one.gaps)
            await away.publish("a", "5")
            await reader.has("1", "2", "3", "4", "5")
            await other.has("4", "5")
        assert reader.gaps == other.gaps == ["epoch"]


async def test_the_holes_are_bounded(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """After very many restarts the oldest holes are merged, so that every reader with an id in a hole gets a gap."""
    holes = ["10-20", "30-40", *(f"{n}0-{n}5" for n in range(5, 35))]
    async with new_hub():
        shared_redis.cli("HSET", keys("m"), "r", "another", "h", " ".join(holes))
    async with new_hub() as hub:
        kept = shared_redis.cli("HGET", keys("m"), "h").split()
        assert kept[:-1] == ["10-40", *holes[2:]]
        first, _, following = kept[-1].partition("-")
        assert int(holes[-1].partition("-")[2]) < int(first) < int(following)
        mine = epoch(hub)
        assert (await resumed(hub, "a", f"{mine}-39"))[1] == ["fork"]
        assert (await resumed(hub, "a", f"{mine}-45"))[1] != ["fork"]
        assert (await resumed(hub, "a", f"{mine}-53"))[1] == ["fork"]


@pytest.mark.parametrize("publish", [False, True])
async def test_a_meta_key_that_was_evicted(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    publish: bool,  # noqa: FBT001
) -> None:
    """If only the meta key is gone, readers get one gap, and no event twice."""
    async with new_hub() as hub, reading(hub, "a") as live:
        given = await ids(hub, "a", 2)
        await live.has("0", "1")
        shared_redis.cli("DEL", keys("m"))
        if publish:
            await hub.publish("b", "elsewhere")
        await live.until(lambda one: one.gaps)
        assert await resumed(hub, "a", given[1]) == ([], ["epoch"])
        await live.until(lambda one: len(one.texts) > 2)
    assert (live.texts[:2], live.gaps) == (["0", "1"], ["epoch"])
