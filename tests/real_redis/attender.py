"""A process that is here: `attender.py URL HUB IDENTITY` lists itself on the channel `a` until it is killed."""

import asyncio
import sys

from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend


async def main() -> None:
    url, name, identity = sys.argv[1:]
    hub = Hub(RedisBackend(url, name=name), presence_ttl=0.5, presence_grace=0)
    async with hub, hub.subscribe("a", identity=identity, presence=True) as subscription:
        async for _ in subscription:
            pass


asyncio.run(main())
