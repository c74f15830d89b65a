"""Sender: sends without a task, and the middlewares and servers that allow it."""

import asyncio
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
from sse_asgi._servers.known import may_be_stepped
from sse_asgi._stream.sender import Sender, past_wrappers
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
        found.append(may_be_stepped(past_wrappers(send)))
        await Response("x")(scope, receive, send)

    async with Server().serve(EventSourceMiddleware(Starlette(routes=[Mount("/", app)]))):
        assert found == [False]


@directly
async def test_other_servers_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Observed: events were lost under granian."""
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {"uvicorn.protocols.http.h11_impl"})
    assert await through() == [False]


# A sender by itself


class Sending:
    """A server whose `send` waits for a future, or fails, or does neither."""

    def __init__(self, *, waits: bool = False, error: Exception | None = None) -> None:
        self.sent: list[Message] = []
        self.errors: list[type[BaseException]] = []
        self.free = asyncio.get_running_loop().create_future() if waits else None
        self.error = error

    async def send(self, message: Message) -> None:
        if self.error is not None:
            raise self.error
        try:
            if self.free is not None:
                await self.free
                await asyncio.sleep(0)
        except BaseException as error:
            self.errors.append(type(error))
            raise
        self.sent.append(message)


@directly
async def test_a_send_that_does_not_wait_is_complete() -> None:
    """One generator runs one send after another."""
    server, sender = Sending(), Sender()
    assert [sender.send(server.send, {"type": str(number)}) for number in range(3)] == [None] * 3
    assert [message["type"] for message in server.sent] == ["0", "1", "2"]


@directly
async def test_a_send_that_waits_is_finished_by_a_task() -> None:
    """The next send does not wait for it."""
    server, other, sender = Sending(waits=True), Sending(), Sender()
    unsent = sender.send(server.send, {"type": "0"})
    assert unsent is not None
    assert sender.send(other.send, {"type": "1"}) is None
    assert server.free is not None
    server.free.set_result(None)
    await unsent
    assert (len(server.sent), len(other.sent)) == (1, 1)


@directly
async def test_a_cancellation_reaches_the_send() -> None:
    """It is thrown into the send, as into any coroutine that a task awaits."""
    server = Sending(waits=True)
    unsent = Sender().send(server.send, {"type": "0"})
    assert unsent is not None

    async def finish() -> None:
        await unsent

    task = asyncio.create_task(finish())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.errors == [asyncio.CancelledError]


@directly
async def test_a_send_that_is_given_up_is_closed() -> None:
    """Its `finally` runs."""
    server = Sending(waits=True)
    unsent = Sender().send(server.send, {"type": "0"})
    assert unsent is not None
    unsent.close()
    assert server.errors == [GeneratorExit]


@directly
async def test_a_send_that_fails_raises_in_the_task_that_awaits_it() -> None:
    """The caller and the next send do not see the exception."""
    server, sender = Sending(error=ValueError("odd")), Sender()
    unsent = sender.send(server.send, {"type": "0"})
    assert unsent is not None
    unsent.close()
    with pytest.raises(ValueError, match="odd"):
        await unsent
    server.error = None
    assert sender.send(server.send, {"type": "1"}) is None
