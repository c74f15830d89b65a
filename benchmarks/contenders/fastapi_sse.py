"""FastAPI's own events: a generator with response_class=EventSourceResponse, and a queue for each client."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterable

from control import controlled, tokens
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse

application = FastAPI()
queues: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


@application.get("/", response_class=EventSourceResponse)
async def stream(channel: str) -> AsyncIterable[str]:
    queue: asyncio.Queue[str] = asyncio.Queue()
    queues[channel].add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        queues[channel].discard(queue)


@application.get("/tokens", response_class=EventSourceResponse)
async def stream_tokens(request: Request) -> AsyncIterable[str]:
    async for token in tokens(request.url.query):
        yield token


async def publish(channel: str, data: str) -> None:
    for queue in queues[channel]:
        queue.put_nowait(data)


app = controlled(application, publish)
