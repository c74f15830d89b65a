"""Ending: last words, background tasks, and cleanup in spite of cancellations."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.dialects import OPENAI
from sse_asgi.testing import EventStreamClient
from stream.helpers import FINAL, Job, numbers, serve, three_then_fail

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


@pytest.mark.parametrize(
    ("method", "headers", "options"),
    [("POST", {}, {}), ("GET", {"accept": "*/*"}, {}), ("GET", {}, {"reconnect_after_end": True})],
)
async def test_others_get_no_final_id(method: str, headers: dict[str, str], options: dict[str, Any]) -> None:
    """A POST, clients that are not an EventSource and `reconnect_after_end` get none: the iterable runs again."""
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
