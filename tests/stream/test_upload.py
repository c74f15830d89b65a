"""The body of a request whose response is a stream: who gets it, and that a client that goes is noticed beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi._stream.upload import AHEAD_BYTES, UNREAD_BYTES
from sse_asgi.testing import EventStreamClient

pytestmark = [
    pytest.mark.anyio,
    # Starlettes before 0.47 leave it to the garbage collector behind BaseHTTPMiddleware, of which trio warns.
    pytest.mark.filterwarnings("ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"),
]

CHUNK = b"x" * 1000


class Contents:
    """Endpoints whose contents read the body, or do not.

    Attributes:
        cleaned: Set when the content of an idle stream was cleaned up.
    """

    def __init__(self) -> None:
        self.cleaned = anyio.Event()

    @property
    def app(self) -> Starlette:
        """The application that has them."""
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
    """Has a `receive` of its own, which must not be called twice at a time."""

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
stacks = pytest.mark.parametrize("stack", STACKS)


class Transport:
    """A server that knows nothing of the library: it has messages, one for each call, then the client goes.

    Attributes:
        receiving: How many calls of `receive` are under way.
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
        """Hide this object, as most servers and test clients do."""

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


# The content reads


@stacks
async def test_the_content_may_read_the_body(stack: str) -> None:
    """As JSON, before its first event."""
    client = EventStreamClient(STACKS[stack](Contents().app))
    async with client.stream("/as_json", method="POST", body=b'{"a": 1}') as stream:
        assert (await stream.next_event()).data == '{"a":1}'


@stacks
@pytest.mark.parametrize("path", ["/ask", "/idle"])
async def test_a_client_that_goes_is_noticed_after_the_content_has_read(stack: str, path: str) -> None:
    """By the watcher, and by a content that asks."""
    seen = Contents()
    client = EventStreamClient(STACKS[stack](seen.app))
    async with client.stream(path, method="POST", body=b"12345") as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.ended()


@stacks
async def test_every_byte_of_an_upload_is_counted(stack: str) -> None:
    """With an event for each chunk, while the client is watched: more than is read ahead."""
    transport = Transport(*[CHUNK] * 200)
    app = STACKS[stack](Contents().app)
    await transport.serve(app, "/count", transfer_encoding="chunked")
    assert f"data: {200 * len(CHUNK)}\n\n".encode() in transport.body


@stacks
async def test_a_client_that_goes_in_the_middle_is_no_error(stack: str, caplog: pytest.LogCaptureFixture) -> None:
    """The content, which waits for more, hears of it first: that ends its stream as the watcher would."""
    transport = Transport(CHUNK, more=True)
    app = STACKS[stack](Contents().app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(app, "/count", transfer_encoding="chunked"))
        await transport.has(b"data: 1000")
        transport.gone.set()
    assert caplog.text == ""


# The content does not read


@pytest.mark.parametrize("path", ["/idle", "/idle?read", "/idle?silent&read", "/idle?silent"])
@stacks
async def test_a_client_that_goes_is_noticed(stack: str, path: str) -> None:
    """Whether the body was read by the endpoint or by nobody, and whether an event has come."""
    seen = Contents()
    client = EventStreamClient(STACKS[stack](seen.app))
    async with client.stream(path, method="POST", body=b"body") as stream:
        stream.disconnect()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


@pytest.mark.parametrize("stack", ["bare", "middleware"])
async def test_fastapi_reads_the_body_before_the_endpoint(stack: str) -> None:
    """Then there is nothing to be kept for the content, and the client is watched."""
    transport, cleaned, app = Transport(b'{"a": 1}'), anyio.Event(), FastAPI()

    async def events(body: dict[str, int]) -> AsyncIterator[Any]:
        try:
            yield body
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    @app.post("/")
    async def endpoint(body: dict[str, int]) -> Response:
        return EventSourceResponse(events(body))

    headers: dict[str, Any] = {"content_length": "8", "content_type": "application/json"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(STACKS[stack](app), "/", **headers))
        await transport.has(b'data: {"a":1}')
        transport.gone.set()
        with anyio.fail_after(5):
            await cleaned.wait()


@pytest.mark.parametrize(("reads", "limit"), [(True, AHEAD_BYTES), (False, UNREAD_BYTES)])
async def test_no_more_is_read_ahead_than_a_bound(*, reads: bool, limit: int) -> None:
    """The rest waits with the server, which makes the client wait; every byte comes when it is read."""
    chunk = b"x" * 10_000
    transport = Transport(*[chunk] * 500, more=True)
    go_on = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def events() -> AsyncIterator[int]:
            size = 0
            if reads:
                size += len((await receive())["body"])
            yield size
            await go_on.wait()
            async for part in Request(scope, receive).stream():
                size += len(part)
                yield size

        await EventSourceResponse(events())(scope, receive, send)

    left = 500 - limit // len(chunk) - 1 - reads
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(EventSourceMiddleware(app), "/", transfer_encoding="chunked"))
        with anyio.fail_after(10):
            while len(transport.messages) > left:
                await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        assert len(transport.messages) == left
        go_on.set()
        await transport.has(b"data: 5000000")
        transport.gone.set()


async def test_a_subscription_needs_no_body() -> None:
    """It is thrown away, however large, so that the client is watched behind it."""
    transport = Transport(*[CHUNK] * 200)
    async with Hub() as hub, anyio.create_task_group() as tasks:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await EventSourceResponse(hub.subscribe("a"))(scope, receive, send)

        tasks.start_soon(lambda: transport.serve(EventSourceMiddleware(app), "/"))
        with anyio.fail_after(5):
            while transport.messages or not transport.receiving:
                await anyio.sleep(0.001)
        transport.gone.set()


@pytest.mark.parametrize("fails", [OSError(), ValueError("odd")])
async def test_a_receive_that_fails_means_that_the_client_has_gone(fails: Exception) -> None:
    """For the watcher; whoever reads afterwards hears it as well."""
    transport, seen = Transport(b"x", fails=fails), Contents()
    app = EventSourceMiddleware(seen.app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(app, "/ask"))
        await transport.has(b"data: 1")
        transport.gone.set()


async def test_a_get_is_passed_on_untouched() -> None:
    """It has no body, and its `receive` is the server's own; so has a request of no bytes."""
    seen: list[Any] = []

    async def app(_: Scope, receive: Receive, __: Send) -> None:
        seen.append(receive)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None: ...

    for headers in ([], [(b"content-length", b"0")], [(b"content-length", b"1")], [(b"content-length", b"odd")]):
        await EventSourceMiddleware(app)({"type": "http", "method": "GET", "headers": headers}, receive, send)
    assert [one is receive for one in seen] == [True, True, False, False]


# Without the middleware, below servers whose `receive` tells something, or nothing


class Cycle(Transport):
    """The parts of uvicorn's request that tell what has been taken."""

    def __init__(self) -> None:
        super().__init__()
        self.message_event = asyncio.Event()
        self.more_body = True
        self.disconnected = False
        self.pending = b""

    def feed(self, body: bytes, *, more: bool) -> None:
        self.pending += body
        self.more_body = more
        self.message_event.set()

    def leave(self) -> None:
        self.disconnected = True
        self.message_event.set()

    async def receive(self) -> Message:
        if not self.disconnected:
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected:
            return {"type": "http.disconnect"}
        body, self.pending = self.pending, b""
        return {"type": "http.request", "body": body, "more_body": self.more_body}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestServersThatAreKnown:
    """They are asyncio's."""

    async def test_uvicorn_tells_what_was_taken(self) -> None:
        """Each byte reaches the content; then the client is watched."""
        cycle = Cycle()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: cycle.serve(Contents().app, "/count", cycle.receive))
            for number in range(1, 5):
                cycle.feed(CHUNK, more=number < 4)
                await cycle.has(f"data: {number * 1000}\n\n".encode())

    @pytest.mark.parametrize("taken", [True, False])
    async def test_uvicorn_tells_of_a_client_that_goes(self, *, taken: bool) -> None:
        """Whether its body was taken or not."""
        cycle, seen = Cycle(), Contents()
        cycle.feed(CHUNK, more=False)
        async with anyio.create_task_group() as tasks:
            path = "/idle?read" if taken else "/idle"
            tasks.start_soon(lambda: cycle.serve(seen.app, path, cycle.receive))
            await cycle.has(b"data: x")
            cycle.leave()
            with anyio.fail_after(5):
                await seen.cleaned.wait()

    async def test_a_queue_is_looked_through(self) -> None:
        """As hypercorn's and daphne's; the messages stay in it, and in order."""
        queue: asyncio.Queue[Message] = asyncio.Queue(10)
        transport, seen = Transport(), Contents()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: transport.serve(seen.app, "/count", queue.get))
            for _ in range(29):
                await queue.put({"type": "http.request", "body": CHUNK, "more_body": True})
                await anyio.sleep(0.02)
            await transport.has(b"data: 29000")
            await queue.put({"type": "http.disconnect"})

    async def test_a_client_that_leaves_a_queue_is_noticed(self) -> None:
        """Also where nobody reads the body."""
        queue: asyncio.Queue[Message] = asyncio.Queue(10)
        transport, seen = Transport(), Contents()
        queue.put_nowait({"type": "http.request", "body": CHUNK, "more_body": True})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: transport.serve(seen.app, "/idle", queue.get))
            await transport.has(b"data: x")
            queue.put_nowait({"type": "http.disconnect"})
            with anyio.fail_after(5):
                await seen.cleaned.wait()


@pytest.mark.parametrize("path", ["/idle", "/idle?read"])
async def test_elsewhere_the_client_is_watched_from_the_first_event_on(path: str) -> None:
    """Whatever was read before it: a body that is read is read first."""
    transport, seen = Transport(b"body"), Contents()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(seen.app, path, content_length="4"))
        await transport.has(b"data: x")
        transport.gone.set()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


async def test_elsewhere_a_silent_content_has_its_time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the client is watched all the same."""
    monkeypatch.setattr("sse_asgi._stream.upload.READ_SECONDS", 0.01)
    transport, seen = Transport(b"body"), Contents()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(seen.app, "/idle?silent", content_length="4"))
        await transport.has(b":")
        transport.gone.set()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


async def test_elsewhere_a_large_body_is_left_to_the_content() -> None:
    """Every byte of it, with events in between and pauses that a watcher would use."""
    transport = Transport(*[CHUNK] * 70)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def events() -> AsyncIterator[int]:
            size = 0
            async for chunk in Request(scope, receive).stream():
                size += len(chunk)
                yield size
                if size == len(CHUNK):
                    await anyio.sleep(0.6)

        await EventSourceResponse(events())(scope, receive, send)

    await transport.serve(app, "/", content_length="70000")
    assert b"data: 70000\n\n" in transport.body


# Test clients


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("stack", ["bare", "middleware"])
async def test_httpx_may_send_a_body(stack: str) -> None:
    """As JSON, and as an upload in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield CHUNK

    transport = httpx.ASGITransport(STACKS[stack](Contents().app))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        assert 'data: {"a":1}' in (await client.post("/as_json", json={"a": 1})).text
        assert "data: 100000\n\n" in (await client.post("/count", content=pieces())).text


async def test_the_app_of_a_hub_reads_no_body() -> None:
    """A GET that has one is served all the same, and its client is noticed."""
    async with Hub() as hub:
        client = EventStreamClient(EventSourceMiddleware(EventSourceApp(hub)))
        async with client.stream("/", headers={"content-length": "4"}, body=b"body") as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
            stream.disconnect()
            await stream.ended()
