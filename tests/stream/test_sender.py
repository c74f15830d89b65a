"""Sender: sends without a task, and the middlewares and servers that allow it."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub
from sse_asgi._stream.sender import may_be_direct
from stream.helpers import Server, directly

pytestmark = pytest.mark.anyio


async def through(*middleware: Middleware) -> list[bool]:
    """Return [True] if an application with this middleware sends an event in the publisher's task."""
    hub = Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub))], middleware=middleware)
    async with hub, Server().serve(app, "/events/") as server:
        await hub.publish("default", "x")
        await server.has("x")
        return server.last(1)


class Counting:
    """A middleware with its own `send`."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, counted)


async def plainly(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


@directly
async def test_starlette_and_our_own_middleware_are_in_nobodys_way() -> None:
    """Their `send` only looks at the head."""
    assert await through() == [True]
    assert await through(Middleware(EventSourceMiddleware)) == [True]
    assert await through(Middleware(EventSourceMiddleware), Middleware(EventSourceMiddleware)) == [True]


@directly
@pytest.mark.parametrize(
    "other", [Middleware(Counting), Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=plainly)]
)
async def test_through_anything_else_the_connections_task_sends(other: Middleware) -> None:
    """The `send` of another middleware may depend on its task."""
    assert await through(other) == [False]
    assert await through(Middleware(EventSourceMiddleware), other) == [False]


@directly
async def test_a_foreign_stream_is_not_taken_for_ours() -> None:
    """The middleware does not pass its messages on unchanged."""
    found = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(may_be_direct(send))
        await Response("x")(scope, receive, send)

    async with Server().serve(EventSourceMiddleware(Starlette(routes=[Mount("/", app)]))):
        assert found == [False]


@directly
async def test_other_servers_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed: events were lost under granian."""
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {"uvicorn.protocols.http.h11_impl"})
    assert await through() == [False]
