"""Contents that read the body of a request, and a server that has one, for the tests of uploads."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope

from sse_asgi import EventSourceMiddleware, EventSourceResponse

CHUNK = b"x" * 1000


class Contents:
    """Endpoints with contents that read the body, and with others that do not.

    Attributes:
        cleaned: Set when the content of an idle stream was cleaned up.
    """

    def __init__(self) -> None:
        self.cleaned = anyio.Event()

    @property
    def app(self) -> Starlette:
        """An application with these endpoints."""
        endpoints = (self.as_json, self.count, self.idle, self.ask)
        return Starlette(routes=[Route(f"/{one.__name__}", one, methods=["GET", "POST"]) for one in endpoints])

    async def as_json(self, request: Request) -> Response:
        async def events() -> AsyncIterator[Any]:
            yield await request.json()

        return EventSourceResponse(events())

    async def count(self, request: Request) -> Response:
        async def events() -> AsyncIterator[int]:
            size = 0
            async for chunk in request.stream():
                size += len(chunk)
                yield size
                await anyio.sleep(0)

        return EventSourceResponse(events(), reconnect_after_end=True)

    async def idle(self, request: Request) -> Response:
        if "read" in request.query_params:
            await request.body()

        async def events() -> AsyncIterator[str]:
            try:
                if "silent" not in request.query_params:
                    yield "x"
                await anyio.sleep_forever()
            finally:
                self.cleaned.set()

        return EventSourceResponse(events(), start_timeout=0.01)

    async def ask(self, request: Request) -> Response:
        async def events() -> AsyncIterator[Any]:
            yield len(await request.body())
            while not await request.is_disconnected():
                await anyio.sleep(0.01)

        return EventSourceResponse(events())


class Passing(BaseHTTPMiddleware):
    """Has its own `receive`, which must not be called twice at a time."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)


def passing(app: ASGIApp) -> ASGIApp:
    return Passing(app)


STACKS: dict[str, Callable[[ASGIApp], ASGIApp]] = {
    "bare": lambda app: app,
    "middleware": EventSourceMiddleware,
    "middleware twice": lambda app: EventSourceMiddleware(EventSourceMiddleware(app)),
    "passing": passing,
    "middleware, passing": lambda app: EventSourceMiddleware(passing(app)),
    "passing, middleware": lambda app: passing(EventSourceMiddleware(app)),
}


class Transport:
    """An unknown server: it gives one message for each call, then the client disconnects.

    Attributes:
        receiving: The number of calls of `receive` that are under way.
    """

    def __init__(self, *bodies: bytes, more: bool = False, fails: Exception | None = None) -> None:
        self.messages: list[Message] = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
        if self.messages and not more:
            self.messages[-1]["more_body"] = False
        self.gone = anyio.Event()
        self.receiving = 0
        self.fails = fails
        self.body = b""
        self.ended = anyio.Event()

    async def receive(self) -> Message:
        assert not self.receiving
        self.receiving += 1
        try:
            await anyio.sleep(0.001)
            if self.messages:
                return self.messages.pop(0)
            await self.gone.wait()
            if self.fails is not None:
                raise self.fails
            return {"type": "http.disconnect"}
        finally:
            self.receiving -= 1

    async def send(self, message: Message) -> None:
        self.body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended.set()

    def closure(self) -> Receive:
        """Return a `receive` that does not show this object, like that of most servers and test clients."""

        async def receive() -> Message:
            return await self.receive()

        return receive

    async def serve(self, app: ASGIApp, path: str, receive: Receive | None = None, **headers: str) -> None:
        path, _, query = path.partition("?")
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
            "root_path": "",
        }
        with anyio.fail_after(10):
            await app(scope, receive or self.closure(), self.send)

    async def has(self, part: bytes) -> None:
        with anyio.fail_after(10):
            while part not in self.body:
                await anyio.sleep(0.001)


def scope_of(method: str, headers: Collection[tuple[bytes, bytes]] = ()) -> Scope:
    return {"type": "http", "method": method, "path": "/", "query_string": b"", "headers": [*headers], "root_path": ""}
