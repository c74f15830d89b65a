"""Starlette's own StreamingResponse, on a route of a Starlette application: as little around it as in raw.py."""

import asyncio
from collections.abc import AsyncIterator

from control import controlled, tokens
from raw import Reader, publish, readers
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


async def frames(channel: str) -> AsyncIterator[bytes]:
    reader = Reader()
    readers[channel].add(reader)
    loop = asyncio.get_running_loop()
    try:
        yield b":\n\n"
        while True:
            if not reader.pending:
                reader.future = loop.create_future()
                await reader.future
            body = b"".join(reader.pending)
            reader.pending.clear()
            yield body
    finally:
        readers[channel].discard(reader)


async def token_frames(query: str) -> AsyncIterator[bytes]:
    async for token in tokens(query):
        yield f"data: {token}\n\n".encode()


async def stream(request: Request) -> StreamingResponse:
    return StreamingResponse(frames(request.query_params["channel"]), media_type="text/event-stream")


async def stream_tokens(request: Request) -> StreamingResponse:
    return StreamingResponse(token_frames(request.url.query), media_type="text/event-stream")


app = controlled(Starlette(routes=[Route("/tokens", stream_tokens), Route("/", stream)]), publish)
