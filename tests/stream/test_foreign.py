"""The guard: event streams of other libraries get headers, pings, a lifetime and an end at shutdown."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import ConnectionLimit, EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi._loop.timer import shared_timer
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream.guarded import admit, cut_off, watch_again
from sse_asgi.testing import EventStreamClient
from stream.foreigners import SCOPE, Cycle, Telemetry, Transport, application, half, plain
from stream.limited import assert_refused, forever, limited, ours, theirs

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("notice")]


async def test_other_responses_are_passed_through() -> None:
    """A response that is not an event stream is unchanged."""
    async with EventStreamClient(application(None, lambda _: PlainTextResponse("x"))) as client:
        async with client.stream("/") as stream:
            assert await stream.read() == b"x"
            assert dict(stream.headers) == {"content-length": "1", "content-type": "text/plain; charset=utf-8"}


async def test_foreign_streams_get_headers_that_they_lack() -> None:
    """Headers of their own are kept."""

    def endpoint(_: Request) -> StreamingResponse:
        return StreamingResponse(
            iter([b"data: x\n\n"]), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async with EventStreamClient(application(None, endpoint)) as client, client.stream("/") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["cache-control"] == "no-store"
        assert await stream.read() == b"data: x\n\n"
        assert stream.complete


async def test_a_declared_length_is_taken_off() -> None:
    """It does not count pings and the farewell."""

    async def declared(_: Request) -> Response:
        return Response(b"data: x\n\n", media_type="text/event-stream")

    async with EventStreamClient(application(None, declared)) as client, client.stream("/") as stream:
        assert await stream.read() == b"data: x\n\n"
        assert "content-length" not in stream.headers


@pytest.mark.parametrize("media_type", [b"text/plain", b"text/event-stream"])
async def test_headers_may_be_any_iterable(media_type: bytes) -> None:
    """ASGI allows an iterator that can be read only once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = iter([(b"x-one", b"1"), (b"content-type", media_type)])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n"})

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/") as stream:
        assert await stream.read() == b"data: x\n\n"
        assert stream.headers["x-one"] == "1"


@pytest.mark.filterwarnings(  # Starlette before 0.47 leaves it to the garbage collector, and trio warns
    "ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"
)
async def test_our_own_streams_are_left_to_themselves() -> None:
    """They get no second ping and no second farewell, behind another middleware too."""

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


# Pings


async def test_foreign_streams_are_pinged_in_silence() -> None:
    """A ping comes between two frames."""
    async with EventStreamClient(application(None, plain, ping_interval=0.02)) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n:\n:\n")


async def test_foreign_streams_are_not_pinged_inside_a_frame() -> None:
    """A half-written frame stays whole."""
    async with EventStreamClient(application(None, half, ping_interval=0.01)) as client, client.stream("/") as stream:
        await stream.received(b"un")
        await anyio.sleep(0.05)
        assert stream.content == b"data: 1\n\ndata: un"


async def test_busy_foreign_streams_are_not_pinged() -> None:
    """Each message restarts the interval."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(60):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await anyio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with EventStreamClient(EventSourceMiddleware(app, ping_interval=1)).stream("/") as stream:
        assert b"\n:" not in await stream.read()


async def test_a_frame_may_end_in_a_body_of_its_own() -> None:
    """Such a stream is pinged, and gets its farewell."""

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


async def test_an_encoded_foreign_stream_gets_no_plain_bytes() -> None:
    """A ping or a farewell would break the encoding; the stream ends at shutdown without them."""

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
    """Nothing can be due."""
    app = application(None, plain, ping_interval=None)
    async with EventStreamClient(app) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n")
        assert all(when < float("inf") for when in shared_timer()._scheduled)


# The end


async def test_foreign_streams_have_a_lifetime() -> None:
    """They end with a farewell."""
    async with EventStreamClient(application(None, plain, max_lifetime=0.05)) as client, client.stream("/") as stream:
        assert (await stream.read()).startswith(b"data: 1\n\nretry: ")
        assert stream.complete


@pytest.mark.parametrize("endpoint", [plain, half])
async def test_foreign_streams_end_at_shutdown(endpoint: Any) -> None:
    """The body is complete and the application is cancelled. The farewell is sent only between frames."""
    async with EventStreamClient(application(None, endpoint)) as client, client.stream("/") as stream:
        await stream.received(b"data: 1\n\n")
        current_notice().hear()
        content = await stream.read()
        assert stream.complete
        assert (b"retry: " in content) == (endpoint is plain)
        await stream.ended()


async def test_foreign_streams_are_not_begun_during_shutdown() -> None:
    """They get a head, a retry and the final body."""
    async with EventStreamClient(application(None, plain)) as client:
        current_notice().hear()
        async with client.stream("/") as stream:
            assert b"retry: " in await stream.read()
            assert stream.complete


async def test_a_foreign_stream_that_goes_on_sending_is_not_heard() -> None:
    """Its messages after the end are discarded."""
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
    """Its application may go on after that, for example with a background task."""
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
    """The guard waits for its last send, and then has nothing left to end."""
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


async def test_an_application_that_never_waits_is_ended() -> None:
    """Its stream ends at the shutdown, although the server's `send` does not wait either."""
    sent: list[bytes] = []

    async def flood(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(EventSourceMiddleware(flood), SCOPE, Cycle(Transport(frees=True)).receive, send)
            await anyio.sleep(0.01)
            current_notice().hear()
    assert sent[-1].startswith(b"retry: ")


# Clients that do not read


async def test_a_foreign_stream_stuck_in_a_send_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shutdown does not wait for a client that does not read."""
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
    """An OSError from send is a disconnect, also during a ping."""

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


@pytest.mark.parametrize("frees", [True, False])
async def test_an_application_that_sends_while_it_cleans_up_does_not_hang(*, frees: bool) -> None:
    """This holds if the blocked send returns by itself, and if it has to be cancelled."""

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


@pytest.mark.parametrize("failing", [b":\n", b"retry: "])
async def test_a_send_that_fails_is_logged(caplog: pytest.LogCaptureFixture, failing: bytes) -> None:
    """Any exception is logged, and ends the application, not the server."""
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

    guarded = EventSourceMiddleware(app, ping_interval=0.02, max_lifetime=0.5)
    with anyio.fail_after(5):
        await guarded(dict(SCOPE), anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert "could not be sent" in caplog.text


# Limits, and responses in place of one that failed


async def test_two_middlewares_both_limit() -> None:
    """The stricter limit decides."""
    strict, lax = ConnectionLimit(1), ConnectionLimit(2)
    for inner, outer in ((strict, lax), (lax, strict)):
        app = limited(inner)
        app.add_middleware(EventSourceMiddleware, max_connections=outer)
        async with EventStreamClient(app) as client:
            async with client.stream("/ours") as stream:
                await stream.received(b"data: x\n\n")
                await assert_refused(client, "/ours")
            assert (inner.open, outer.open) == (0, 0)


async def fails(_: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        raise KeyError
        yield

    return EventSourceResponse(events())


async def answer_ours(request: Request, _: Exception) -> Response:
    return await ours(request)


async def answer_theirs(request: Request, _: Exception) -> Response:
    return await theirs(request)


@pytest.mark.parametrize("answer", [answer_ours, answer_theirs])
async def test_a_stream_in_the_place_of_one_that_failed_has_its_place(answer: Any) -> None:
    """The request is counted in once and out once."""
    limit = ConnectionLimit(2)
    app = Starlette(routes=[Route("/fails", fails)], exception_handlers={KeyError: answer})
    app.add_middleware(EventSourceMiddleware, max_connections=limit)
    client = EventStreamClient(app)
    for _ in range(4):
        async with client.stream("/fails") as stream:
            await stream.received(b"data: x\n\n")
            assert limit.open == 1
        assert limit.open == 0


async def test_a_foreign_stream_in_the_place_of_one_that_failed_is_guarded() -> None:
    """It gets pings, an end and missing headers, also below two middlewares."""
    app = Starlette(routes=[Route("/fails", fails)], exception_handlers={KeyError: answer_theirs})
    guarded = EventSourceMiddleware(EventSourceMiddleware(app, max_lifetime=0.02))
    async with EventStreamClient(guarded).stream("/fails") as stream:
        assert stream.headers["x-accel-buffering"] == "no"
        await stream.ended()


async def test_a_foreign_stream_in_the_place_of_a_poll_that_failed_is_guarded() -> None:
    """It is guarded like one in place of a stream."""

    async def snapshot() -> str:
        raise KeyError

    async with Hub() as hub:
        routes = [Mount("/events", EventSourceApp(hub, snapshot=snapshot))]
        app = Starlette(routes=routes, exception_handlers={KeyError: answer_theirs})
        limit = ConnectionLimit(2)
        guarded = EventSourceMiddleware(app, max_lifetime=0.02, max_connections=limit)
        async with EventStreamClient(guarded).stream("/events/?poll=1") as stream:
            assert stream.headers["x-accel-buffering"] == "no"
            assert limit.open == 1
            await stream.ended()
        assert limit.open == 0


@pytest.mark.parametrize("guards", [1, 2])
async def test_a_client_of_ours_that_does_not_read_is_cut_off_through_the_guards(guards: int) -> None:
    """The outermost guard has the server's `receive`, by which the connection is found."""
    transport = Transport(frees=True)
    app: ASGIApp = EventSourceResponse(["stall"], send_timeout=0.02)
    for _ in range(guards):
        app = EventSourceMiddleware(app)

    async def send(message: Message) -> None:
        if message.get("body") and not transport.aborted.is_set():
            await transport.aborted.wait()

    with anyio.fail_after(5):
        await app(dict(SCOPE), Cycle(transport).receive, send)
    assert transport.aborted.is_set()


@pytest.mark.parametrize("held_bytes", ["none", "in the final body", "before the final body"])
async def test_a_stream_is_broken_off_behind_the_bytes_that_a_middleware_has_held(held_bytes: str) -> None:
    """A compressor sends its last bytes with the final body, or in a body before it."""

    async def content() -> AsyncIterator[str]:
        yield "x"
        await anyio.sleep_forever()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        held: list[bytes] = []

        async def late(message: Message) -> None:
            if held_bytes == "none" or message["type"] != "http.response.body":
                await send(message)
                return
            held.append(message["body"])
            if message["more_body"]:
                return
            final = {**message, "body": b"".join(held)}
            if held_bytes == "before the final body":
                await send({**final, "more_body": True})
                final["body"] = b""
            await send(final)

        await EventSourceResponse(content(), max_lifetime=0.05)(scope, receive, late)

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/", method="POST") as stream:
        await stream.ended(5)
        assert stream.content.startswith(b"data: x\n\n")
        assert not stream.complete


async def test_a_foreign_stream_one_too_many_is_refused() -> None:
    """It keeps its own headers, without the length and the encoding of the body."""
    async with EventStreamClient(limited(1)) as client, client.stream("/ours") as stream:
        await stream.received(b"data: x\n\n")
        headers = await assert_refused(client, "/theirs")
        assert headers["x-theirs"] == "1"
        assert {"content-length", "content-encoding"}.isdisjoint(headers)


async def test_without_a_middleware_nothing_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stream is let through, and its connection is aborted by its own `receive`."""
    aborted: list[Any] = []
    monkeypatch.setattr("sse_asgi._stream.guarded.abort", lambda *arguments: aborted.append(arguments))
    timer, receive = shared_timer(), Cycle(Transport(frees=True)).receive
    assert admit({}, "iterable")
    watch_again({}, "client")
    cut_off({}, receive, timer)
    assert aborted == [({}, receive, timer)]


# Interrupted is not finished


@pytest.mark.parametrize("drain", [0, 0.1])
@pytest.mark.parametrize("endpoint", [plain, half])
async def test_a_foreign_stream_that_is_cut_off_is_incomplete(endpoint: Any, drain: float) -> None:
    """A POST cannot reconnect. Nothing is written into the middle of a frame. One that begins later gets a 503."""
    client = EventStreamClient(application(None, endpoint, drain_timeout=drain))
    current_notice().watch()
    async with client.stream("/", method="POST") as stream:
        await stream.received(b"data: 1")
        current_notice().hear()
        await stream.ended(2)
        assert not stream.complete
        assert (b"retry: " in stream.content) is (endpoint is plain)
    async with client.stream("/", method="POST") as late:
        await late.ended(2)
        assert (late.status_code, late.complete) == (503, True)
    current_notice().unwatch()


@pytest.mark.parametrize("passing", [0, 2])
async def test_our_stream_is_broken_off_behind_its_last_bytes(passing: int) -> None:
    """A BaseHTTPMiddleware passes them on later, and completes the body."""
    app: ASGIApp = EventSourceResponse(forever(), max_lifetime=0.1)
    for _ in range(passing):
        app = EventSourceMiddleware(BaseHTTPMiddleware(app, lambda request, call_next: call_next(request)))
    async with EventStreamClient(EventSourceMiddleware(app)).stream("/", method="POST") as stream:
        await stream.ended(2)
        assert not stream.complete
        assert stream.content.startswith(b"data: x\n\nretry: ")


# Telemetry


def failing(_: Request) -> StreamingResponse:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise LookupError

    return StreamingResponse(frames(), media_type="text/event-stream")


def own(_: Request) -> EventSourceResponse:
    return EventSourceResponse(iter("a"))


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        (failing, ["foreign", "started", "error"]),
        (own, ["iterable", "started", "finished"]),
        (lambda _: PlainTextResponse("x"), []),
    ],
)
async def test_telemetry_is_told_of_streams(endpoint: Any, told: list[str]) -> None:
    """Of their kind, their head and the reason of their end; also by a guard around that of the stream."""
    telemetry = Telemetry()
    app = Starlette(routes=[Mount("/in", application(None, endpoint))])
    app.add_middleware(EventSourceMiddleware, telemetry=telemetry)
    try:
        async with EventStreamClient(app).stream("/in/") as stream:
            await stream.read()
    except (LookupError, BaseExceptionGroup):
        assert endpoint is failing
    assert telemetry.told == told
