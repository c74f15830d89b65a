"""MCP servers of two packages, `mcp` and FastMCP, by each of their transports, each mounted at a path of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import fastmcp
import fastmcp.server.event_store
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from starlette.applications import Starlette
from starlette.routing import Mount

from sse_asgi import EventSourceMiddleware, Hub


class Store(EventStore):
    """Keeps the events of all streams in one list; an id is a place in it, from 1."""

    def __init__(self) -> None:
        self.events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        stream = self.events[last - 1][0]
        for number, (other, message) in enumerate(self.events[last:], last + 1):
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


async def count(context: Any) -> None:
    """Report progress twice."""
    for number in (1, 2):
        await context.report_progress(number, 2)
        await asyncio.sleep(0.05)


async def part(context: Any) -> None:
    """Close the stream of an answer, so that its client reconnects with Last-Event-ID."""
    await asyncio.sleep(0.05)  # both packages may lose the first event of a stream that is closed at once
    await context.close_sse_stream()
    await asyncio.sleep(0.05)


def official() -> MCPServer:
    """Return a server of the package `mcp`."""
    server = MCPServer("official")

    @server.tool()
    async def add(a: int, b: int, context: Context) -> int:
        await count(context)
        return a + b

    @server.tool()
    async def add_in_two_parts(a: int, b: int, context: Context) -> int:
        await part(context)
        return a + b

    @server.tool()
    async def wait(context: Context) -> None:
        await count(context)
        await asyncio.sleep(3600)

    return server


def fast() -> fastmcp.FastMCP:
    """Return a server of FastMCP."""
    server = fastmcp.FastMCP("fast")

    @server.tool
    async def add(a: int, b: int, context: fastmcp.Context) -> int:
        await count(context)
        return a + b

    @server.tool
    async def add_in_two_parts(a: int, b: int, context: fastmcp.Context) -> int:
        await part(context)
        return a + b

    @server.tool
    async def wait(context: fastmcp.Context) -> None:
        await count(context)
        await asyncio.sleep(3600)

    return server


SERVERS = {
    "/official": official().streamable_http_app(event_store=Store(), retry_interval=50),
    "/official-json": official().streamable_http_app(json_response=True),
    "/official-stateless": official().streamable_http_app(stateless_http=True),
    "/official-sse": official().sse_app(),
    "/fast": fast().http_app(event_store=fastmcp.server.event_store.EventStore(), retry_interval=50),
    "/fast-json": fast().http_app(json_response=True),
    "/fast-stateless": fast().http_app(stateless_http=True),
    "/fast-sse": fast().http_app(transport="sse"),
}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Run the lifespan of each server, which Starlette does not do for mounted applications."""
    async with AsyncExitStack() as stack:
        for server in SERVERS.values():
            await stack.enter_async_context(server.router.lifespan_context(server))
        yield


app = Starlette(routes=[Mount(path, server) for path, server in SERVERS.items()], lifespan=lifespan)
app.add_middleware(EventSourceMiddleware, hub=Hub())
