"""Runs on one worker: ours, and the code that people write by hand in the manner of resumable-stream.

`GET /start?run=&n=&rate=` produces n tokens, each with its time (CLOCK_MONOTONIC in ns), `rate` of them a second.
`GET /follow?run=` streams them from the beginning, in whatever worker they are produced.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import redis.asyncio

from sse_asgi import EventSourceResponse, create_hub

URL = os.environ["SSE_BACKEND_URL"]
END = b"end"
tasks: set[Any] = set()


async def tokens(count: int, rate: float) -> AsyncIterator[str]:
    due = time.monotonic() + random.random() / rate  # models do not write in step
    for _ in range(count):
        due += 1 / rate
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield f"{time.monotonic_ns():020d} token"


class Ours:
    """sse_asgi's runs."""

    def __init__(self) -> None:
        self.hub = create_hub()

    async def open(self) -> None:
        await self.hub.__aenter__()

    async def start(self, run: str, source: AsyncIterator[str]) -> None:
        await self.hub.start_run(run, source)

    async def follow(self, run: str) -> Callable[..., Awaitable[None]]:
        found = await self.hub.get_run(run)
        assert found is not None
        return EventSourceResponse(found)


class ByHand:
    """A Redis stream for what was written, pub/sub for what is new, a message for the end; no lease, no recovery."""

    async def open(self) -> None:
        self.redis = redis.asyncio.Redis.from_url(URL, max_connections=10_000)  # one for each reader

    async def start(self, run: str, source: AsyncIterator[str]) -> None:
        task = asyncio.create_task(self._produce(run, source))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _produce(self, run: str, source: AsyncIterator[str]) -> None:
        number = 0
        async for token in source:
            number += 1
            await self._append(run, number, token.encode())
        await self._append(run, number + 1, END)

    async def _append(self, run: str, number: int, data: bytes) -> None:
        async with self.redis.pipeline(transaction=False) as pipe:
            await pipe.xadd(f"run:{run}", {"d": data}).publish(f"run:{run}", b"%d %b" % (number, data)).execute()

    async def follow(self, run: str) -> Callable[..., Awaitable[None]]:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for token in self._read(run):
                await send({"type": "http.response.body", "body": b"data: %b\n\n" % token, "more_body": True})
            await send({"type": "http.response.body"})

        return serve

    async def _read(self, run: str) -> AsyncIterator[bytes]:
        async with self.redis.pubsub() as news:
            await news.subscribe(f"run:{run}")
            seen = 0  # what was written meanwhile comes twice
            for _, fields in await self.redis.xrange(f"run:{run}"):
                seen += 1
                if fields[b"d"] == END:
                    return
                yield fields[b"d"]
            async for message in news.listen():
                if message["type"] == "message":
                    number, _, data = message["data"].partition(b" ")
                    if int(number) <= seen:
                        continue
                    if data == END:
                        return
                    yield data


contender: Any = ByHand() if os.environ.get("BY_HAND") else Ours()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await contender.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    asked = dict(parse_qsl(scope["query_string"].decode()))
    if scope["path"] == "/follow":
        response = await contender.follow(asked["run"])
        await response(scope, receive, send)
        return
    await contender.start(asked["run"], tokens(int(asked["n"]), float(asked["rate"])))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
