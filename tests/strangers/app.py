"""Applications of other libraries that stream events, each under its own path, all inside our middleware.

Set BARE to have them without it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import fastapi.sse
import fastmcp.server.event_store
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from fastapi import FastAPI
from fastmcp import FastMCP
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.types import JSONRPCMessage
from quart import Quart, Response, request
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from sse_asgi import EventSourceMiddleware, Hub

FRAMES = (b"id: 1\nretry: 50\ndata\n\n", b"\xef\xbb\xbfid", b": 2\r", b"\n: comment\r\nevent: x\r\nda", b"ta: \xc3", b"\xbc\r\n\r\n")


class Store(EventStore):
    """Events in a list, numbered from 1."""

    def __init__(self) -> None:
        self.events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        stream = self.events[int(last_event_id) - 1][0]
        for number, (other, message) in enumerate(self.events[int(last_event_id) :], int(last_event_id) + 1):
            if other == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def mcp_server() -> MCPServer:
    """Return a server of the official package."""
    server = MCPServer("official")

    @server.tool()
    async def add(a: int, b: int, context: Context) -> int:
        """Add slowly, and tell how far it is."""
        await context.report_progress(1, 2, "one")
        await asyncio.sleep(0.05)
        await context.report_progress(2, 2, "two")
        return a + b

    @server.tool()
    async def add_in_two_streams(a: int, b: int, context: Context) -> int:
        """Close the stream that answers; the client comes back with its Last-Event-ID."""
        await context.close_sse_stream()
        await asyncio.sleep(0.1)
        return a + b

    @server.tool()
    async def wait(context: Context) -> None:
        """Never answer."""
        await context.report_progress(1)
        await asyncio.sleep(3600)

    return server


def fast_mcp() -> FastMCP:
    """Return a server of FastMCP."""
    server: FastMCP = FastMCP("fast")

    @server.tool
    async def add(a: int, b: int, context: fastmcp.Context) -> int:
        await context.report_progress(1, 2, "one")
        await asyncio.sleep(0.05)
        await context.report_progress(2, 2, "two")
        return a + b

    @server.tool
    async def add_in_two_streams(a: int, b: int, context: fastmcp.Context) -> int:
        await context.close_sse_stream()
        await asyncio.sleep(0.1)
        return a + b

    @server.tool
    async def wait(context: fastmcp.Context) -> None:
        await context.report_progress(1)
        await asyncio.sleep(3600)

    return server


async def frames(*, endless: bool) -> AsyncIterator[bytes]:
    """Cut a stream where no frame ends, and then perhaps say nothing more."""
    for frame in FRAMES:
        yield frame
        await asyncio.sleep(0.01)
    if endless:
        await asyncio.sleep(3600)


def django_application() -> ASGIApp:
    """Return Django's ASGI application."""

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        content = frames(endless="endless" in request.GET)
        return StreamingHttpResponse(content, content_type="text/event-stream; charset=utf-8")

    urls = type("urls", (), {"urlpatterns": [path("django/stream", stream)]})
    settings.configure(ROOT_URLCONF=urls, SECRET_KEY="x", ALLOWED_HOSTS=["*"])
    return get_asgi_application()


def quart_application() -> Quart:
    """Return an application of Quart."""
    app = Quart("stranger")

    @app.route("/stream", methods=["GET", "POST"])
    async def stream() -> Response:
        response = Response(frames(endless="endless" in request.args), content_type="text/event-stream")
        response.timeout = None
        return response

    return app


def fastapi_application() -> FastAPI:
    """Return an application of FastAPI whose streams are its own."""
    app = FastAPI()

    @app.api_route("/stream", methods=["GET", "POST"], response_class=fastapi.sse.EventSourceResponse)
    async def stream(endless: str | None = None) -> AsyncIterator[fastapi.sse.ServerSentEvent]:
        yield fastapi.sse.ServerSentEvent(id="1", retry=50, data="ü")
        if endless is not None:
            await asyncio.sleep(3600)
        yield fastapi.sse.ServerSentEvent(event="x", data={"a": 1})

    return app


def application() -> ASGIApp:
    """Mount all of them."""
    stores = {"event_store": Store(), "retry_interval": 50}
    lively = {
        "/mcp-sse": mcp_server().sse_app(),
        "/mcp-stream": mcp_server().streamable_http_app(event_store=Store(), retry_interval=50),
        "/mcp-json": mcp_server().streamable_http_app(json_response=True),
        "/mcp-stateless": mcp_server().streamable_http_app(stateless_http=True),
        "/fast-sse": fast_mcp().http_app(path="/sse", transport="sse"),
        "/fast-stream": fast_mcp().http_app(
            path="/mcp", event_store=fastmcp.server.event_store.EventStore(), retry_interval=50
        ),
        "/fast-json": fast_mcp().http_app(path="/mcp", json_response=True),
    }
    quart = quart_application()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in lively.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            await quart.startup()
            stack.push_async_callback(quart.shutdown)
            yield

    others = {"/quart": quart, "/fastapi": fastapi_application()}
    routes = [Mount(path, app) for path, app in {**lively, **others}.items()]
    return Starlette(routes=[*routes, Mount("/", django_application())], lifespan=lifespan)


def guarded(app: ASGIApp) -> ASGIApp:
    """Put our middleware around."""
    return app if os.environ.get("BARE") else EventSourceMiddleware(app, hub=Hub())


KINDS = {"all": application, "django": django_application, "quart": quart_application}
app = guarded(KINDS[os.environ.get("KIND", "all")]())
