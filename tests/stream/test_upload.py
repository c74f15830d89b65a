"""Sharing receive(): the content gets every byte of the body, and a disconnect is noticed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi._stream.upload import AHEAD_BYTES, UNREAD_BYTES, NoBody, Upload, own_receive
from sse_asgi.testing import EventStreamClient
from stream.bodies import CHUNK, STACKS, Contents, Transport, scope_of

pytestmark = [
    pytest.mark.anyio,
    # Starlette before 0.47 leaves it to the garbage collector behind BaseHTTPMiddleware, and trio warns.
    pytest.mark.filterwarnings("ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"),
]

stacks = pytest.mark.parametrize("stack", STACKS)


# The content reads


@stacks
async def test_the_content_may_read_the_body(stack: str) -> None:
    """It reads JSON before its first event."""
    client = EventStreamClient(STACKS[stack](Contents().app))
    async with client.stream("/as_json", method="POST", body=b'{"a": 1}') as stream:
        assert (await stream.next_event()).data == '{"a":1}'


@stacks
@pytest.mark.parametrize("path", ["/ask", "/idle"])
async def test_a_client_that_goes_is_noticed_after_the_content_has_read(stack: str, path: str) -> None:
    """The watcher notices it, and content that asks."""
    seen = Contents()
    client = EventStreamClient(STACKS[stack](seen.app))
    async with client.stream(path, method="POST", body=b"12345") as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.ended()


@stacks
async def test_every_byte_of_an_upload_is_counted(stack: str) -> None:
    """Content that sends an event for each chunk gets more bytes than are read ahead."""
    transport = Transport(*[CHUNK] * 200)
    app = STACKS[stack](Contents().app)
    await transport.serve(app, "/count", transfer_encoding="chunked")
    assert f"data: {200 * len(CHUNK)}\n\n".encode() in transport.body


@stacks
async def test_a_client_that_goes_in_the_middle_is_no_error(stack: str, caplog: pytest.LogCaptureFixture) -> None:
    """The content, which waits for more, gets ClientDisconnect. Its stream ends with the reason `client`."""
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
    """It is noticed with a body that was read or not, before and after the first event."""
    seen = Contents()
    client = EventStreamClient(STACKS[stack](seen.app))
    async with client.stream(path, method="POST", body=b"body") as stream:
        stream.disconnect()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


@pytest.mark.parametrize("stack", ["bare", "middleware"])
async def test_fastapi_reads_the_body_before_the_endpoint(stack: str) -> None:
    """Nothing has to be kept for the content then, and the client is watched."""
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
    """The server keeps the rest, and makes the client wait. Every byte arrives when it is read."""
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
    """A body of any size is discarded, so that the client is watched."""
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
    """The watcher ends the stream, and a later read gets the disconnect too."""
    transport, seen = Transport(b"x", fails=fails), Contents()
    app = EventSourceMiddleware(seen.app)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(app, "/ask"))
        await transport.has(b"data: 1")
        transport.gone.set()


# Requests without a body


async def read_body(request: Request) -> Response:
    async def events() -> AsyncIterator[int]:
        yield len(await request.body())
        await anyio.sleep_forever()

    return EventSourceResponse(events())


READING = Starlette(routes=[Route("/", read_body)])


@pytest.mark.parametrize("stack", ["middleware", "middleware twice"])
async def test_the_content_of_a_get_may_ask_for_the_body(stack: str) -> None:
    """The body is empty, and the client is watched."""
    async with EventStreamClient(STACKS[stack](READING)).stream("/") as stream:
        assert (await stream.next_event()).data == "0"
        stream.disconnect()
        await stream.ended()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_under_uvicorn_the_content_of_a_get_may_ask_for_the_body() -> None:
    """It works over a real connection."""
    server = uvicorn.Server(uvicorn.Config(EventSourceMiddleware(READING), port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    with anyio.fail_after(10):
        while not server.started:
            await anyio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient() as client, client.stream("GET", f"http://127.0.0.1:{port}/") as response:
            assert await anext(response.aiter_bytes()) == b"data: 0\n\n"
        server.should_exit = True
        await serving


async def test_an_application_that_has_read_gets_no_second_message() -> None:
    """The server's messages are passed on once, before and after a stream begins to watch."""
    transport = Transport(b"")
    shared = NoBody(transport.receive)
    assert (await shared())["type"] == "http.request"
    assert shared.behind() == transport.receive
    transport.gone.set()
    assert (await shared())["type"] == "http.disconnect"


async def test_a_middleware_in_between_has_its_own_messages() -> None:
    """The client of a GET is watched through that middleware."""
    transport, cleaned = Transport(b""), anyio.Event()

    async def events() -> AsyncIterator[str]:
        try:
            yield "x"
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def counted() -> Message:
            heard.append(message := await receive())
            return message

        await EventSourceResponse(events())(scope, counted, send)

    heard: list[Message] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(EventSourceMiddleware(app), scope_of("GET"), transport.receive, transport.send)
        await transport.has(b"data: x")
        transport.gone.set()
        with anyio.fail_after(5):
            await cleaned.wait()
    assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]


async def test_a_get_that_may_have_a_body_has_an_upload() -> None:
    """A body of no bytes needs none. An inner middleware uses the `receive` of the outer one."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        seen.append(type(receive))
        assert own_receive(scope, receive) is receive

    transport = Transport()
    for headers in ([], [(b"content-length", b"0")], [(b"content-length", b"1")], [(b"content-length", b"odd")]):
        await EventSourceMiddleware(app)(scope_of("GET", headers), transport.receive, transport.send)
    assert seen == [NoBody, NoBody, Upload, Upload]


# Without the middleware, below servers whose `receive` tells something, or nothing


class Cycle(Transport):
    """The attributes of uvicorn's request that tell how much was taken."""

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
    """These servers run on asyncio."""

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
        """The disconnect is noticed with a body that was taken or not."""
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
        """The messages in the queue of hypercorn or daphne stay there, in order."""
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
        """It is noticed although the body is not read."""
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
    """A body that the endpoint reads is read before that."""
    transport, seen = Transport(b"body"), Contents()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(seen.app, path, content_length="4"))
        await transport.has(b"data: x")
        transport.gone.set()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


async def test_elsewhere_a_silent_content_has_its_time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is watched after that time."""
    monkeypatch.setattr("sse_asgi._stream.upload.READ_SECONDS", 0.01)
    transport, seen = Transport(b"body"), Contents()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: transport.serve(seen.app, "/idle?silent", content_length="4"))
        await transport.has(b":")
        transport.gone.set()
        with anyio.fail_after(5):
            await seen.cleaned.wait()


async def test_elsewhere_a_large_body_is_left_to_the_content() -> None:
    """Every byte reaches it, in spite of events and pauses in between."""
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
    """JSON and a chunked upload reach the content."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield CHUNK

    transport = httpx.ASGITransport(STACKS[stack](Contents().app))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        assert 'data: {"a":1}' in (await client.post("/as_json", json={"a": 1})).text
        assert "data: 100000\n\n" in (await client.post("/count", content=pieces())).text


async def test_the_app_of_a_hub_reads_no_body() -> None:
    """A GET with a body is served, and its disconnect is noticed."""
    async with Hub() as hub:
        client = EventStreamClient(EventSourceMiddleware(EventSourceApp(hub)))
        async with client.stream("/", headers={"content-length": "4"}, body=b"body") as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
            stream.disconnect()
            await stream.ended()
