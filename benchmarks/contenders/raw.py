"""A minimal ASGI app written by hand: no pings, no watch for disconnects, no bounds, no ids, no resuming."""

import asyncio
from collections import defaultdict
from typing import Any
from urllib.parse import parse_qs

from control import controlled, tokens

HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")],
}
readers: defaultdict[str, set["Reader"]] = defaultdict(set)


class Reader:
    __slots__ = ("future", "pending")

    def __init__(self) -> None:
        self.pending: list[bytes] = []
        self.future: asyncio.Future[None] | None = None


async def stream(channel: str, send: Any) -> None:
    reader = Reader()
    readers[channel].add(reader)
    loop = asyncio.get_running_loop()
    try:
        await send(HEAD)
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        while True:
            if not reader.pending:
                reader.future = loop.create_future()
                await reader.future
            body = b"".join(reader.pending)
            reader.pending.clear()
            await send({"type": "http.response.body", "body": body, "more_body": True})
    finally:
        readers[channel].discard(reader)


async def stream_tokens(query: str, send: Any) -> None:
    await send(HEAD)
    async for token in tokens(query):
        await send({"type": "http.response.body", "body": f"data: {token}\n\n".encode(), "more_body": True})
    await send({"type": "http.response.body"})


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    query = scope["query_string"].decode()
    if scope["path"] == "/tokens":
        await stream_tokens(query, send)
    else:
        await stream(parse_qs(query)["channel"][0], send)


async def publish(channel: str, data: str) -> None:
    frame = f"data: {data}\n\n".encode()
    for reader in readers[channel]:
        reader.pending.append(frame)
        if reader.future is not None and not reader.future.done():
            reader.future.set_result(None)


app = controlled(serve, publish)
