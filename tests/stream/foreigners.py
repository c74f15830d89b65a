"""Event streams of another library below the middleware, and a stalled client, for the tests of the guard."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

import anyio
import anyio.lowlevel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Scope

from sse_asgi import EventSourceMiddleware, Hub

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}


class Telemetry:
    """Notes what it is told."""

    def observe(self, _: Hub) -> AbstractContextManager[None]:
        raise AssertionError

    def __init__(self) -> None:
        self.told: list[str] = []

    def opened(self, _: Scope, kind: str) -> "Telemetry":
        self.told.append(kind)
        return self

    def started(self) -> None:
        self.told.append("started")

    def ended(self, reason: str) -> None:
        self.told.append(reason)


def application(hub: Hub | None, endpoint: Any, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])])
    app.add_middleware(EventSourceMiddleware, hub=hub, **options)
    return app


def plain(_: Request) -> StreamingResponse:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await anyio.sleep_forever()

    return StreamingResponse(frames(), media_type="text/event-stream")


def half(_: Request) -> StreamingResponse:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: 1\n\ndata: un"
        await anyio.sleep_forever()

    return StreamingResponse(frames(), media_type="text/event-stream")


class Transport:
    """The transport of a stalled client. A send waits until the transport is aborted, or for ever."""

    def __init__(self, *, frees: bool) -> None:
        self.frees = frees
        self.aborted = anyio.Event()
        self.sent: list[bytes] = []

    def abort(self) -> None:
        self.aborted.set()

    async def send(self, message: Message) -> None:
        body = message.get("body", b"")
        if body.startswith(b"stall") and not self.aborted.is_set():
            await (self.aborted.wait() if self.frees else anyio.sleep_forever())
        self.sent.append(body)


class Cycle:
    def __init__(self, transport: Transport) -> None:
        self.transport = transport

    async def receive(self) -> Message:
        await anyio.sleep_forever()
        return {"type": "http.disconnect"}
