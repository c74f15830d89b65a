"""One process is cut off while others publish, or reaches servers that it did not expect."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from real_redis.helpers import state_is
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub, ServerSentEvent
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


async def test_a_reader_that_is_ahead_of_its_process(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """A reader that moves to a process which is behind gets no event again."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as local, reading(hub, "a") as ahead:
            proxy.cut()
            await state_is(far, "down")
            await hub.publish("a", "1")
            await hub.publish("a", "2")
            await ahead.has("1", "2")
            async with reading(far, "a", wait=False, last_event_id=ahead.ids[0]) as first:
                async with reading(far, "a", wait=False, last_event_id=ahead.ids[1]) as second:
                    await anyio.sleep(0.05)
                    proxy.open = True
                    await state_is(far, "up")
                    await hub.publish("a", "3")
                    await first.has("2", "3")
                    await second.has("3")
                    await local.has("1", "2", "3")
                    assert first.gaps == second.gaps == []


async def test_a_gap_never_leads_back(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """A reader that moves to a process which is behind, and missed events, gets a gap without an earlier id."""
    async with proxied(shared_redis) as proxy, new_hub(history_size=3) as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a"):
            proxy.cut()
            await state_is(far, "down")
            known = await hub.publish("a", "1")
            resumed = hub_reader(far, known)
            await anyio.sleep(0.05)
            for number in range(2, 10):
                await hub.publish("a", str(number))
            proxy.open = True
            gap, *events = await resumed
    assert gap.event == "sse.gap"
    assert [event.data for event in events] == ["7", "8", "9"]
    before, between, after = (Position.parse(one or "") for one in (known, gap.id, events[0].id))
    assert before is not None
    assert between is not None
    assert after is not None
    assert before.sequence <= between.sequence < after.sequence


def hub_reader(hub: Hub, last_event_id: str | None) -> "asyncio.Task[list[ServerSentEvent]]":
    async def read() -> list[ServerSentEvent]:
        async with hub.subscribe("a", last_event_id=last_event_id) as subscription:
            return [await anext(subscription) for _ in range(4)]

    return asyncio.create_task(read())


async def test_a_reader_that_knows_the_next_life(server: RedisServer, new_hub: NewHub) -> None:
    """A reader that got the gap of a loss from one process gets no second gap from another that has not heard of it."""
    async with proxied(server) as proxy, new_hub(server) as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as local:
            await hub.publish("a", "0")
            await local.has("0")
            proxy.cut()
            await state_is(far, "down")
            server.cli("FLUSHALL")
            first = await hub.publish("a", "1")
            async with reading(far, "a", wait=False, last_event_id=first) as moved:
                await anyio.sleep(0.05)
                proxy.open = True
                await state_is(far, "up")
                await hub.publish("a", "2")
                await moved.has("2")
                await local.has("0", "1", "2")
            assert (moved.gaps, local.gaps) == ([], ["epoch"])
