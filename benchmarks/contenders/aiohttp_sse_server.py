"""aiohttp-sse on aiohttp's own server with uvloop, and a queue for each client."""

import asyncio
import sys
from collections import defaultdict

import uvloop
from aiohttp import web
from aiohttp_sse import sse_response
from control import publish_events, tokens

queues: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


async def stream(request: web.Request) -> web.StreamResponse:
    queue: asyncio.Queue[str] = asyncio.Queue()
    mine = queues[request.query["channel"]]
    mine.add(queue)
    try:
        async with sse_response(request) as response:
            while response.is_connected():
                await response.send(await queue.get())
    finally:
        mine.discard(queue)
    return response


async def stream_tokens(request: web.Request) -> web.StreamResponse:
    async with sse_response(request) as response:
        async for token in tokens(request.query_string):
            await response.send(token)
    return response


async def publish(channel: str, data: str) -> None:
    for queue in queues[channel]:
        queue.put_nowait(data)


async def control(request: web.Request) -> web.Response:
    await publish_events(publish, request.query_string)
    return web.Response()


application = web.Application()
application.add_routes([web.get("/", stream), web.get("/tokens", stream_tokens), web.get("/publish", control)])
uvloop.install()
web.run_app(
    application,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    backlog=4096,
    access_log=None,
    print=None,
    handle_signals=False,
)
