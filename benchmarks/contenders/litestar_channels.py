"""Litestar's channels in memory, streamed by its ServerSentEvent."""

from collections.abc import AsyncIterator

from control import controlled, tokens
from litestar import Litestar, Request, get
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.response import ServerSentEvent

plugin = ChannelsPlugin(MemoryChannelsBackend(), arbitrary_channels_allowed=True)


async def events(channels: ChannelsPlugin, channel: str) -> AsyncIterator[bytes]:
    async with channels.start_subscription([channel]) as subscriber:
        async for event in subscriber.iter_events():
            yield event


@get("/")
async def stream(channels: ChannelsPlugin, channel: str) -> ServerSentEvent:
    return ServerSentEvent(events(channels, channel))


@get("/tokens")
async def stream_tokens(request: Request) -> ServerSentEvent:
    return ServerSentEvent(tokens(request.url.query))


async def publish(channel: str, data: str) -> None:
    plugin.publish(data.encode(), channel)


app = controlled(Litestar([stream, stream_tokens], plugins=[plugin]), publish)
