"""A hub of a test's own on a shared Redis, and the events that it keeps."""

import secrets
import time
from collections.abc import Callable
from typing import Any

import anyio

from real_redis.launcher import RedisServer
from sse_asgi import ServerSentEvent, Settings, create_hub

PATIENCE = 15.0


def own_hub(server: RedisServer) -> Settings:
    """Return settings with a new name for a hub on this server."""
    return Settings(backend_url=server.url, hub_name=secrets.token_hex(8))


def kept(settings: Settings, channel: str = "a") -> list[ServerSentEvent]:
    """Return the events that a hub keeps of a channel."""

    async def read() -> list[ServerSentEvent]:
        async with create_hub(settings) as hub:
            return await hub.history(channel, limit=1000)

    return anyio.run(read)


def texts(settings: Settings) -> list[str | None]:
    """Return the data of the events that a hub keeps of the channel `a`."""
    return [event.data for event in kept(settings)]


def until(fact: Callable[[], Any]) -> None:
    """Wait until a function returns something true."""
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)
