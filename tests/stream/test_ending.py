"""Ending: last words, background tasks, and cleanup in spite of cancellations."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.dialects import OPENAI
from sse_asgi.testing import EventStreamClient
from stream.foreigners import SCOPE, Cycle, Transport
from stream.helpers import FINAL, Job, numbers, serve, shut_down, three_then_fail

pytestmark = pytest.mark.anyio


# Errors


async def test_an_exception_after_the_start_loses_nothing() -> None:
    """Every item is sent, then sse.error without details and id, a retry and the final body; then it is raised."""
    async with serve(three_then_fail).stream("/") as stream:
        events = [await stream.next_event() for _ in range(4)]
        with pytest.raises(LookupError, match="secret"):
            await stream.next_event()
    assert stream.complete
    assert stream.retry is not None
    assert stream.content.index(b"sse.error") < stream.content.index(b"retry:")
    assert [event.data for event in events[:3]] == ["0", "1", "2"]
    assert (events[3].event, events[3].id) == ("sse.error", "")
    assert b"secret" not in stream.content


async def test_a_dialect_has_words_of_its_own() -> None:
    """In place of `sse.error`, the retry and `sse.end`."""
    async with serve(lambda: [{"a": 1}], dialect=OPENAI).stream("/") as stream:
        assert await stream.read() == OPENAI.item({"a": 1}) + OPENAI.end()


async def test_on_error_gives_another_event() -> None:
    """`on_error` may return another event, or None. If it fails, that is logged, and the default is sent."""

    def fail(_: Exception) -> None:
        msg = "on_error"
        raise RuntimeError(msg)

    outcomes = {}
    for name, on_error in {
        "own": lambda e: ServerSentEvent(type(e).__name__, event="x"),
        "none": lambda _: None,
    }.items():
        with pytest.raises(LookupError):
            async with serve(three_then_fail, on_error=on_error).stream("/") as stream:
                await stream.ended()
                outcomes[name] = stream.content
    with pytest.raises(LookupError):
        async with serve(three_then_fail, on_error=fail).stream("/") as stream:
            await stream.ended()
            outcomes["fails"] = stream.content
    assert b"event: x\ndata: LookupError\n\nretry: " in outcomes["own"]
    assert b"event:" not in outcomes["none"]
    assert b"event: sse.error\n" in outcomes["fails"]


async def test_a_subscription_that_fails_later_ends_the_same_way() -> None:
    """A backend error while catching up sends sse.error, and is raised."""

    class Failing(MemoryBackend):
        async def history(self, *args: Any) -> Any:
            if len(self._sinks) == 1 and failing:
                msg = "history"
                raise OSError(msg)
            return await super().history(*args)

    failing: list[bool] = []
    async with Hub(Failing(), buffer_size=1) as hub:
        with pytest.raises(OSError, match="history"):
            async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
                failing.append(True)
                for _ in range(3):
                    await MemoryBackend.publish(
                        hub.backend,  # type: ignore[arg-type]
                        ("a",),
                        ServerSentEvent("x"),
                        key=None,
                        idempotency_key=None,
                    )
                await stream.ended()
                assert b"event: sse.error" in stream.content
                assert stream.complete


# The final id


async def test_a_finished_iterable_ends_with_the_final_id() -> None:
    """A GET that accepts event streams gets it. A request with that id is answered 204 without running the iterable."""
    runs = []

    def content() -> Any:
        runs.append(job := Job())
        return numbers() if len(runs) == 1 else job.run()

    client = serve(content)
    async with client.stream("/") as stream:
        assert (await stream.read()).endswith(b"data: 2\n\n" + FINAL)
        assert stream.complete
    async with client.stream("/", last_event_id=stream.last_event_id) as again:
        assert again.status_code == 204
        assert await again.read() == b""
        assert "content-type" not in again.headers
    assert runs[1].log == []


async def test_every_get_ends_with_the_final_id() -> None:
    """sse.js accepts everything, and asks again after an end without the final id."""
    async with serve(numbers).stream("/", headers={"accept": "*/*"}) as stream:
        assert (await stream.read()).endswith(b"data: 2\n\n" + FINAL)
        assert stream.complete


@pytest.mark.parametrize(
    ("method", "headers", "options"),
    [("POST", {}, {}), ("GET", {}, {"reconnect_after_end": True})],
)
async def test_others_get_no_final_id(method: str, headers: dict[str, str], options: dict[str, Any]) -> None:
    """A POST and `reconnect_after_end` get none: the iterable runs again."""
    client = serve(numbers, **options)
    async with client.stream("/", method=method, headers=headers) as stream:
        assert b"sse.end" not in await stream.read()
    if options:
        async with client.stream("/", last_event_id="sse.end") as again:
            assert b"data: 2" in await again.read()


# Background tasks


@pytest.mark.parametrize("end", ["finish", "fail", "disconnect", "cancel"])
async def test_a_background_task_runs_however_the_stream_ends(end: str) -> None:
    """It runs after the cleanup, if the response had started."""
    log: list[str] = []

    async def content() -> AsyncIterator[str]:
        try:
            yield "1"
            if end == "fail":
                raise LookupError
            if end != "finish":
                await anyio.sleep_forever()
        finally:
            log.append("cleaned")

    async def background() -> None:
        await anyio.sleep(0.01)
        log.append("background")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = EventSourceResponse(content(), background=BackgroundTask(background))
        with anyio.CancelScope() as scope_of_app:
            scopes.append(scope_of_app)
            await response(scope, receive, send)

    scopes: list[anyio.CancelScope] = []
    try:
        async with EventStreamClient(app).stream("/") as stream:
            await stream.next_event()
            if end == "cancel":
                scopes[0].cancel()
            elif end == "disconnect":
                stream.disconnect()
            await stream.ended()
            assert stream.complete or end == "disconnect"
    except LookupError:
        assert end == "fail"
    assert log == ["cleaned", "background"]


async def test_a_background_task_runs_for_a_client_that_left_before_the_head() -> None:
    """It runs without a response too, but not if an error response follows."""
    ran: list[str] = []

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "headers": []}
    async with Hub() as hub:
        await EventSourceResponse(hub.subscribe("a"), background=BackgroundTask(ran.append, "left"))(scope, gone, send)
    assert ran == ["left"]

    async def fail() -> AsyncIterator[str]:
        raise LookupError
        yield ""

    with pytest.raises(LookupError):
        async with serve(fail, background=BackgroundTask(ran.append, "failed")).stream("/"):
            pass
    assert ran == ["left"]


async def test_a_failing_background_task_is_logged_and_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its failure is logged, and the stream's own error is still raised."""

    async def fail() -> None:
        msg = "background"
        raise RuntimeError(msg)

    with pytest.raises(LookupError, match="secret"):
        async with serve(three_then_fail, background=BackgroundTask(fail)).stream("/") as stream:
            await stream.ended()
    assert "background" in caplog.text


# Ends that fail


FORGED = "/x%0A2026-01-01 ERROR forged%1B%5B2J%E2%80%A8end"


SHOWN = r"/x\n2026-01-01 ERROR forged\x1b[2J\u2028end"


async def test_a_path_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Failures of the content, of its cleanup, of `on_error` and of a background task log the path escaped."""

    async def content() -> AsyncIterator[str]:
        yield "x"
        msg = "a\nforged error"
        raise Odd(msg)

    class Odd(Exception):  # noqa: N818 - its repr is under test, not its name
        def __repr__(self) -> str:
            return f"Odd({self.args[0]})"

    def fail(*_: Any) -> None:
        raise ValueError

    client = serve(content, on_error=fail, background=BackgroundTask(fail))
    with contextlib.suppress(Odd):
        async with client.stream(FORGED) as stream:
            await stream.read()
    client = serve(lambda: ["x"], background=BackgroundTask(fail))
    async with client.stream(FORGED, method="HEAD") as stream:
        await stream.ended()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 4
    assert [line for line in lines if f"GET {SHOWN}" not in line and f"HEAD {SHOWN}" not in line] == []
    assert [line for line in lines if "\n" in line] == []


async def ended_by(last: Callable[[], Awaitable[None]]) -> list[int]:
    """Stream one item with a `send` that does this with the final body; return how often the connection was aborted."""
    aborted: list[int] = []

    async def send(message: Message) -> None:
        if message.get("more_body") is False:
            await last()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sse_asgi._stream.ending.FAREWELL_SECONDS", 0.02)
        patch.setattr("sse_asgi._stream.connection.cut_off", lambda *_: aborted.append(1))
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        with anyio.fail_after(5):
            await EventSourceResponse(["x"])(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    return aborted


async def test_a_client_that_does_not_take_the_end_is_cut_off() -> None:
    """After FAREWELL_SECONDS its connection is aborted."""
    assert await ended_by(anyio.sleep_forever) == [1]


async def test_a_client_that_has_gone_needs_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """An OSError from send is a disconnect."""

    async def fail() -> None:
        raise ConnectionResetError

    assert await ended_by(fail) == []
    assert caplog.text == ""


async def test_an_end_that_cannot_be_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The stream has ended, so the exception is not raised."""

    async def fail() -> None:
        raise LookupError

    assert await ended_by(fail) == []
    assert [record.getMessage() for record in caplog.records] == ["the end of the stream GET / could not be sent"]


# Interrupted is not finished

CLIENTS: dict[str, tuple[dict[str, Any], bool]] = {
    "EventSource": ({}, True),
    "GET": ({"headers": {"accept": "*/*"}}, False),
    "POST": ({"method": "POST"}, False),
}


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("how", ["shutdown", "lifetime", "error", "revoked", "finished"])
async def test_a_stream_that_is_cut_off_is_complete_for_an_event_source_only(how: str, client: str) -> None:
    """Every client gets the last words. A stream that has finished is complete for all."""
    request, complete = CLIENTS[client]
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        content: Any = Job().run() if how in ("shutdown", "lifetime") else subscription
        content = {"error": three_then_fail(), "finished": numbers()}.get(how, content)
        app = EventSourceResponse(content, max_lifetime=0.05 if how == "lifetime" else None)
        with contextlib.suppress(LookupError):
            async with EventStreamClient(app).stream("/", **request) as stream:
                if how == "shutdown":
                    await stream.next_event()
                    await shut_down()
                elif how == "revoked":
                    subscription.end("revoked")
                await stream.ended()
                assert stream.complete is (complete or how == "finished")
                assert (b"retry: " in stream.content) is (how != "finished")
        if how not in ("error", "finished"):
            assert app.reason == how


@pytest.mark.usefixtures("notice")
async def test_a_stream_that_is_cut_off_before_its_head_is_unavailable() -> None:
    """The client can ask again: it gets a 503 and the headers of the stream, and nothing was streamed."""
    job = Job(before=0)
    client = serve(job.run, start_timeout=60, headers={"X-Own": "1"}, background=BackgroundTask(job.log.append, "ran"))
    async with anyio.create_task_group() as tasks:

        async def stop() -> None:
            await job.started.wait()
            await shut_down()

        tasks.start_soon(stop)
        async with client.stream("/", method="POST") as stream:
            await stream.ended()
            assert (stream.status_code, stream.content, stream.complete) == (503, b"", True)
            assert 2 <= int(stream.headers["retry-after"]) <= 6
            assert stream.headers["x-own"] == "1"
    assert job.log == ["started", "cleaning", "cleaned", "ran"]
    async with client.stream("/", method="POST") as late:
        await late.ended()
        assert late.status_code == 503
    assert job.log.count("started") == 1


async def test_a_body_that_cannot_be_broken_off_is_complete() -> None:
    """Over HTTP/2 other streams are on the same connection."""
    bodies: list[bool] = []

    async def send(message: Message) -> None:
        bodies.append(message.get("more_body", True))

    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"0")]}
    for version in ("1.1", "2"):
        response = EventSourceResponse(Job().run(), max_lifetime=0.05)
        await response({**scope, "http_version": version}, anyio.sleep_forever, send)  # type: ignore[arg-type]
        bodies.append(version == "2")
    first, second = bodies[: bodies.index(False)], bodies[bodies.index(False) + 1 :]
    assert all(first)
    assert second[-2:] == [False, True]


@pytest.mark.parametrize("passing", [0, 2])
async def test_middleware_completes_nothing_below_ours(passing: int) -> None:
    """A BaseHTTPMiddleware completes the body of an application that returns. Every event arrives before the break."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    app: ASGIApp = EventSourceResponse(Job(before=3).run(), max_lifetime=0.5)
    for _ in range(passing):
        app = EventSourceMiddleware(Passing(app))
    async with EventStreamClient(EventSourceMiddleware(app)).stream("/", method="POST") as stream:
        await stream.ended()
        assert not stream.complete
        assert stream.content.startswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\nretry: ")


async def test_a_client_that_does_not_read_gets_no_time_for_the_last_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream ends at once, and its body stays incomplete."""
    monkeypatch.setattr("sse_asgi._stream.ending.READ_SECONDS", 60.0)
    monkeypatch.setattr("sse_asgi._stream.ending.FAREWELL_SECONDS", 60.0)
    transport = Transport(frees=True)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body"):
            await transport.aborted.wait()

    response = EventSourceResponse(["stall"], send_timeout=0.02)
    with anyio.fail_after(10):
        await response({**SCOPE, "method": "POST"}, Cycle(transport).receive, send)
    assert response.reason == "slow"
    assert all(message.get("more_body", True) for message in sent)
