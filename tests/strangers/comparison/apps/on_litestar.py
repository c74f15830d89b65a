"""Litestar, as its documentation shows it: ServerSentEvent over generators, and over a subscription to channels.

REDIS is the URL of a Redis, in place of the memory; BACKLOG bounds what may wait for a subscriber.
"""

import asyncio
import os
from collections.abc import AsyncIterator

import redis.asyncio
from litestar import Litestar, Request, get, post
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.backends.redis import RedisChannelsPubSubBackend
from litestar.exceptions import HTTPException
from litestar.response import ServerSentEvent, ServerSentEventMessage

from strangers.comparison.apps.contents import FLOOD, PART, asked, report, taken

REDIS = os.environ.get("REDIS")
BACKLOG = os.environ.get("BACKLOG")
plugin = ChannelsPlugin(
    RedisChannelsPubSubBackend(redis=redis.asyncio.Redis.from_url(REDIS)) if REDIS else MemoryChannelsBackend(),
    channels=["news"],
    subscriber_max_backlog=BACKLOG and int(BACKLOG),
)


async def raise_at_once() -> AsyncIterator[str]:
    raise HTTPException(status_code=402)
    yield ""


@get("/refused")
async def refused() -> ServerSentEvent:
    return ServerSentEvent(raise_at_once())


async def raise_later() -> AsyncIterator[str]:
    yield "one"
    raise ValueError


@get("/fails")
async def fails() -> ServerSentEvent:
    return ServerSentEvent(raise_later())


async def wait() -> AsyncIterator[str]:
    yield "one"
    try:
        await asyncio.sleep(3600)
    finally:
        report("cleanup begins")
        await asyncio.sleep(0.05)
        report("cleanup ends")


@get("/waits")
async def waits() -> ServerSentEvent:
    return ServerSentEvent(wait())


async def nothing() -> AsyncIterator[str]:
    await asyncio.sleep(3600)
    yield ""


@get("/silent")
async def silent() -> ServerSentEvent:
    return ServerSentEvent(nothing())


async def many() -> AsyncIterator[str]:
    try:
        for _ in range(FLOOD):
            taken.update(events=1)
            yield PART
    finally:
        report("flood ends")


@get("/flood")
async def flood() -> ServerSentEvent:
    return ServerSentEvent(many())


async def work() -> AsyncIterator[str]:
    report("job runs")
    yield "done"


@get("/job")
async def job() -> ServerSentEvent:
    return ServerSentEvent(work())


async def only(query: str) -> AsyncIterator[ServerSentEventMessage]:
    yield ServerSentEventMessage(**asked(query))


@get("/one")
async def one(request: Request) -> ServerSentEvent:
    return ServerSentEvent(only(request.url.query))


@get("/paid")
async def paid() -> ServerSentEvent:
    raise HTTPException(status_code=402)


@get("/count")
async def count() -> str:
    return str(taken["events"])


async def events(channels: ChannelsPlugin) -> AsyncIterator[bytes]:
    async with channels.start_subscription(["news"]) as subscriber:
        async for event in subscriber.iter_events():
            yield event


@get("/channel/")
async def channel(channels: ChannelsPlugin) -> ServerSentEvent:
    return ServerSentEvent(events(channels))


@post("/publish", status_code=200)
async def publish(request: Request, channels: ChannelsPlugin) -> None:
    await channels.wait_published(await request.body(), "news")


@post("/burst", status_code=200)
async def burst(channels: ChannelsPlugin) -> None:
    for number in range(FLOOD):
        await channels.wait_published(f"{number} {PART}", "news")
        await asyncio.sleep(0)  # in memory, publishing never waits, so that nothing would be delivered meanwhile


app = Litestar(
    [refused, fails, waits, silent, flood, job, one, count, channel, publish, paid, burst],
    plugins=[plugin],
)
