"""Streams that end with an event, over a real Redis."""

import math

import anyio
import pytest

from hub.readers import data
from real_redis.launcher import RedisServer
from redis_hubs import own_hub
from sse_asgi import create_hub

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_last_event_ends_readers_of_other_processes_and_times(shared_redis: RedisServer) -> None:
    """Live, from history, and for a reader that has it already and comes back; ids are those of Redis."""
    settings = own_hub(shared_redis)
    async with create_hub(settings) as publisher, create_hub(settings) as hub:
        with anyio.fail_after(10):
            async with hub.subscribe("a", until="done") as subscription:
                before = await publisher.publish("a", "1")
                await publisher.publish("b", "elsewhere", event="done")
                last = await publisher.publish("a", "2", event="done")
                await publisher.publish("a", "3")
                assert data([event async for event in subscription]) == ["1", "2"]
            async with hub.subscribe("a", until="done", rewind=math.inf) as subscription:
                assert data([event async for event in subscription]) == ["1", "2"]
            for seen, expected in ((before, ["2"]), (last, [])):
                async with hub.subscribe("a", until="done", last_event_id=seen) as subscription:
                    assert data([event async for event in subscription]) == expected
                    assert (subscription.recovery.outcome, subscription.ended) == ("resumed", "finished")
