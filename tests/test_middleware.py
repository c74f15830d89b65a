"""EventSourceMiddleware and its guard: the hub's life, get_hub, and streams that are not ours."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import (
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
)
from sse_asgi._loop.timer import shared_timer
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def notice() -> AsyncIterator[None]:
    """Leave the event loop's notice as it was."""
    yield
    current_notice().heard = False


def application(hub: Hub | None, endpoint: Any, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(EventSourceMiddleware, hub=hub, **options)
    return app


# Foreign streams


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


async def test_other_responses_are_passed_through() -> None:
    """Untouched."""
    async with EventStreamClient(application(None, lambda _: PlainTextResponse("x"))) as client:
        async with client.stream("/") as stream:
            assert await stream.read() == b"x"
            assert dict(stream.headers) == {"content-length": "1", "content-type": "text/plain; charset=utf-8"}


async def test_foreign_streams_get_headers_that_they_lack() -> None:
    """What they have set is kept."""

    def endpoint(_: Request) -> StreamingResponse:
        return StreamingResponse(
            iter([b"data: x\n\n"]), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async with EventStreamClient(application(None, endpoint)) as client, client.stream("/") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["cache-control"] == "no-store"
        assert await stream.read() == b"data: x\n\n"
        assert stream.complete


async def test_foreign_streams_are_pinged_in_silence() -> None:
    """Between frames."""
    async with EventStreamClient(application(None, plain, ping_interval=0.02)) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n:\n:\n")


async def test_foreign_streams_are_not_pinged_inside_a_frame() -> None:
    """A half-written frame stays whole."""
    async with EventStreamClient(application(None, half, ping_interval=0.01)) as client, client.stream("/") as stream:
        await stream.received(b"un")
        await anyio.sleep(0.05)
        assert stream.content == b"data: 1\n\ndata: un"


async def test_foreign_streams_have_a_lifetime() -> None:
    """With a farewell."""
    async with EventStreamClient(application(None, plain, max_lifetime=0.05)) as client, client.stream("/") as stream:
        assert (await stream.read()).startswith(b"data: 1\n\nretry: ")
        assert stream.complete


@pytest.mark.parametrize("endpoint", [plain, half])
async def test_foreign_streams_end_at_shutdown(endpoint: Any) -> None:
    """Body complete, application cancelled; a farewell only between frames."""
    async with EventStreamClient(application(None, endpoint)) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n")
        current_notice().hear()
        content = await stream.read()
        assert stream.complete
        assert (b"retry: " in content) == (endpoint is plain)
        await stream.ended()


async def test_foreign_streams_are_not_begun_during_shutdown() -> None:
    """They get a head, a retry and the end."""
    async with EventStreamClient(application(None, plain)) as client:
        current_notice().hear()
        async with client.stream("/") as stream:
            assert b"retry: " in await stream.read()
            assert stream.complete


async def test_a_foreign_stream_that_goes_on_sending_is_not_heard() -> None:
    """After the end its messages go nowhere."""
    sent = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})
            sent.set()

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/") as stream:
        current_notice().hear()
        content = await stream.read()
        await stream.ended()
    assert sent.is_set()
    assert b"late" not in content


async def test_a_foreign_stream_that_has_ended_is_not_ended_again() -> None:
    """Its application may still be busy, with a background task: that is its own business."""
    go_on = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": False})
        await go_on.wait()
        finished.append(1)

    finished: list[int] = []
    async with EventStreamClient(EventSourceMiddleware(app, max_lifetime=0.01)).stream("/") as stream:
        await stream.received(b"x\n\n")
        current_notice().hear()
        await anyio.sleep(0.03)
        assert stream.content == b"data: x\n\n"
        go_on.set()
        await stream.ended()
    assert finished == [1]


async def test_a_foreign_stream_that_ends_while_it_is_being_ended_is_left_alone() -> None:
    """Its last send holds the guard up, and then there is nothing left to end."""
    sending, go_on = anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def slow(message: Message) -> None:
            if message["type"] == "http.response.body":
                sending.set()
                await go_on.wait()
            await send(message)

        await EventSourceMiddleware(inner)(scope, receive, slow)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": False})

    async with EventStreamClient(app).stream("/") as stream:
        await sending.wait()
        current_notice().hear()
        await anyio.sleep(0.01)
        go_on.set()
        assert await stream.read() == b"data: x\n\n"


async def test_an_encoded_foreign_stream_gets_no_plain_bytes() -> None:
    """Neither a ping nor a farewell would fit into it; it ends at shutdown all the same."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = ((b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"\x1f\x8b\n\n", "more_body": True})
        await anyio.sleep_forever()

    async with EventStreamClient(EventSourceMiddleware(app, ping_interval=0.01)).stream("/") as stream:
        await anyio.sleep(0.03)
        current_notice().hear()
        assert await stream.read() == b"\x1f\x8b\n\n"
        assert stream.complete


async def test_a_foreign_stream_without_ping_and_lifetime_sets_no_alarm() -> None:
    """There is nothing to be woken for."""
    app = application(None, plain, ping_interval=None)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n")
        assert all(when < float("inf") for when in shared_timer()._scheduled)


async def test_busy_foreign_streams_are_not_pinged() -> None:
    """The interval begins again with each message."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(60):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await anyio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with EventStreamClient(EventSourceMiddleware(app, ping_interval=1)).stream("/") as stream:
        assert b"\n:" not in await stream.read()


async def test_a_foreign_stream_stuck_in_a_send_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a client that does not read."""
    monkeypatch.setattr("sse_asgi._stream.foreign.PATIENCE", 0.02)

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n" * 1000, "more_body": True})

    async with EventStreamClient(EventSourceMiddleware(flood, ping_interval=0.01)).stream("/") as stream:
        stream.stall()
        await anyio.sleep(0.05)
        current_notice().hear()
        await stream.ended(2)


async def test_a_foreign_stream_whose_client_has_gone_is_left_alone() -> None:
    """An OSError from send is a disconnect, at a ping as well."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def broken(message: Message) -> None:
            if message["type"] == "http.response.body":
                tried.set()
                raise BrokenPipeError
            await send(message)

        await EventSourceMiddleware(inner, ping_interval=0.01)(scope, receive, broken)

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await tried.wait()

    tried = anyio.Event()
    async with EventStreamClient(app).stream("/") as stream:
        await stream.ended()


@pytest.mark.filterwarnings(  # Starlettes before 0.47 leave it to the garbage collector, of which trio warns
    "ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"
)
async def test_our_own_streams_are_left_to_themselves() -> None:
    """No second ping, no second farewell, also behind another middleware."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            return await call_next(request)  # type: ignore[no-any-return]

    async def endpoint(_: Request) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe("a"), ping_interval=None)

    hub = Hub()
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(Passing)
    app.add_middleware(EventSourceMiddleware, hub=hub, ping_interval=0.01)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        await anyio.sleep(0.05)
        assert b":\n:" not in stream.content
        current_notice().hear()
        assert (await stream.read()).count(b"retry: ") == 1
        assert stream.complete


# A foreign stream's end, whatever happens to it


class Transport:
    """The transport of a stalled client: a send waits until it is aborted, or for ever."""

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


SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


@pytest.mark.parametrize("frees", [True, False])
async def test_an_application_that_sends_while_it_cleans_up_does_not_hang(*, frees: bool) -> None:
    """Neither where the blocked send returned by itself nor where it had to be cancelled."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            await send({"type": "http.response.body", "body": b"stall", "more_body": True})
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await send({"type": "http.response.body", "body": b"late"})

    transport = Transport(frees=frees)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EventSourceMiddleware(app), SCOPE, Cycle(transport).receive, transport.send)
            await anyio.sleep(0.05)
            current_notice().hear()
    assert transport.aborted.is_set()
    assert b"late" not in transport.sent
    assert current_notice().listeners == 0


async def test_a_declared_length_is_taken_off() -> None:
    """For a ping and a farewell are not in it."""

    async def declared(_: Request) -> Response:
        return Response(b"data: x\n\n", media_type="text/event-stream")

    async with EventStreamClient(application(None, declared)) as client, client.stream("/") as stream:
        assert await stream.read() == b"data: x\n\n"
        assert "content-length" not in stream.headers


async def test_a_frame_may_end_in_a_body_of_its_own() -> None:
    """The stream is pinged, and told when to come back, all the same."""

    async def split(_: Request) -> Response:
        async def parts() -> AsyncIterator[str]:
            yield "data: x\n"
            yield "\n"
            await anyio.sleep_forever()

        return StreamingResponse(parts(), media_type="text/event-stream")

    app = application(None, split, ping_interval=0.02, max_lifetime=0.2)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        content = await stream.read()
    assert content.startswith(b"data: x\n\n:\n")
    assert content.splitlines()[-1].startswith(b"retry: ")


@pytest.mark.parametrize("failing", [b":\n", b"retry: "])
async def test_a_send_that_fails_is_logged(caplog: pytest.LogCaptureFixture, failing: bytes) -> None:
    """And ends the application, not the server, whatever it raises."""
    failed = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await failed.wait()
        await anyio.sleep(0.2)

    async def send(message: Message) -> None:
        if message.get("body", b"").startswith(failing):
            failed.set()
            raise LookupError

    guarded = EventSourceMiddleware(app, ping_interval=0.02, max_lifetime=0.1)
    with anyio.fail_after(5):
        await guarded(dict(SCOPE), anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert "could not be sent" in caplog.text


@pytest.mark.parametrize("media_type", [b"text/plain", b"text/event-stream"])
async def test_headers_may_be_any_iterable(media_type: bytes) -> None:
    """Also one that can be gone through only once, as the standard allows."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = iter([(b"x-one", b"1"), (b"content-type", media_type)])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n"})

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/") as stream:
        assert await stream.read() == b"data: x\n\n"
        assert stream.headers["x-one"] == "1"
