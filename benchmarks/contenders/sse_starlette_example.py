"""sse-starlette with a queue for each client.

With LOOKS=1 it calls is_disconnected() before each event, as its examples do. Its response watches for the disconnect
in any case.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator

from control import controlled, tokens
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

LOOKS = os.environ.get("LOOKS") == "1"
queues: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


async def events(request: Request) -> AsyncIterator[dict[str, str]]:
    queue: asyncio.Queue[str] = asyncio.Queue()
    mine = queues[request.query_params["channel"]]
    mine.add(queue)
    try:
        while not (LOOKS and await request.is_disconnected()):
            yield {"data": await queue.get()}
    finally:
        mine.discard(queue)


async def texts(request: Request) -> AsyncIterator[dict[str, str]]:
    async for token in tokens(request.url.query):
        if LOOKS and await request.is_disconnected():
            break
        yield {"data": token}


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(events(request))


async def stream_tokens(request: Request) -> EventSourceResponse:
    return EventSourceResponse(texts(request))


async def publish(channel: str, data: str) -> None:
    for queue in queues[channel]:
        queue.put_nowait(data)


app = controlled(Starlette(routes=[Route("/", stream), Route("/tokens", stream_tokens)]), publish)
