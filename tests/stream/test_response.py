"""EventSourceResponse: its arguments, its head, answers without the content, and the reason of an end."""

import math
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from fastapi import FastAPI
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, ServerSentEvent
from sse_asgi.dialects import AI_SDK, ANTHROPIC
from sse_asgi.testing import EventStreamClient
from stream.helpers import (
    UNSTREAMED,
    AsyncRows,
    Job,
    Kept,
    Rows,
    SyncRows,
    answer_without_the_content,
    numbers,
    serve,
    shut_down,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        ("text", "into a list"),
        (b"bytes", "into a list"),
        ({"a": 1}, "into a list"),
        (ServerSentEvent("x"), "into a list"),
        (numbers, "call the function"),
        (list, "call the function"),
        (5, "pass hub.subscribe"),
        (None, "pass hub.subscribe"),
    ],
)
async def test_what_cannot_be_streamed_names_the_fix(content: Any, fix: str) -> None:
    """The TypeError is raised in the endpoint, where it is easy to find."""
    with pytest.raises(TypeError, match=fix):
        EventSourceResponse(content)


async def test_a_coroutine_is_refused_without_a_warning() -> None:
    """The error says that an async function lacks a yield, and the coroutine is closed."""

    async def forgot_to_yield() -> None:
        pass

    with pytest.raises(TypeError, match="yield"):
        EventSourceResponse(forgot_to_yield())  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["ping_interval", "send_timeout", "max_lifetime"])
async def test_numbers_of_seconds_are_above_zero(option: str) -> None:
    """0 is refused; None turns the option off."""
    with pytest.raises(ValueError, match=option):
        EventSourceResponse([], **{option: 0})  # type: ignore[arg-type]


async def test_a_bad_retry_is_refused() -> None:
    """The constructor refuses it."""
    with pytest.raises(ValueError, match="retry"):
        EventSourceResponse([], retry=-1)


# Headers and methods


async def test_headers_keep_proxies_from_buffering() -> None:
    """They forbid caching, transforming and buffering, and have no charset and no Connection header."""
    async with serve(numbers).stream("/") as stream:
        assert dict(stream.headers) == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }


async def test_the_callers_headers_win() -> None:
    """Their case does not matter. Cookies can be set until the response is called."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = EventSourceResponse([], headers={"Cache-Control": "no-store", "X-Mine": "1"}, status_code=201)
        response.set_cookie("seen", "yes")
        await response(scope, receive, send)

    async with EventStreamClient(app).stream("/") as stream:
        assert stream.status_code == 201
        assert stream.headers.getlist("cache-control") == ["no-store"]
        assert stream.headers["x-mine"] == "1"
        assert "seen=yes" in stream.headers["set-cookie"]


async def test_head_does_not_run_the_source() -> None:
    """The answer has the headers and an empty body."""
    job = Job()
    async with serve(job.run).stream("/", method="HEAD") as stream:
        assert await stream.read() == b""
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.complete
    assert job.log == []


# The first bytes


async def test_retry_is_in_the_first_bytes() -> None:
    """It is a single line without a blank line."""
    async with serve(numbers, retry=1234).stream("/") as stream:
        assert (await stream.read()).startswith(b"retry: 1234\ndata: 0\n\n")


async def test_padding_is_before_the_retry() -> None:
    """It is one comment line."""
    async with serve(numbers, retry=1234, padding=50).stream("/") as stream:
        assert (await stream.read()).startswith(b":" + b" " * 48 + b"\nretry: 1234\ndata: 0\n\n")


@pytest.mark.parametrize("padding", [-1, 8193])
async def test_padding_is_bounded(padding: int) -> None:
    """Larger padding is refused, because every reader would get it."""
    with pytest.raises(ValueError, match="8192"):
        EventSourceResponse([], padding=padding)


# Answers without the content


@pytest.mark.parametrize("case", UNSTREAMED)
@pytest.mark.parametrize("kind", [AsyncRows, SyncRows])
async def test_what_is_not_streamed_is_closed(case: str, kind: type[Rows]) -> None:
    """The endpoint has made it. A sync iterator is closed in a thread, because that may block."""
    rows = kind()
    response, ran = await answer_without_the_content(case, rows)
    assert (rows.closed, list(rows.rows)) == (1, ["a", "b"])
    assert (rows.thread == threading.get_ident()) == (kind is AsyncRows)
    assert ran == ["background"]
    assert response.reason == ("refused" if case == "refused" else "finished")


@pytest.mark.parametrize("case", UNSTREAMED)
async def test_a_generator_that_is_not_streamed_is_closed(case: str) -> None:
    """An async or sync generator cannot be iterated afterwards, and nothing of it runs."""
    job, ran = Job(), list[str]()
    generator = job.run()
    await answer_without_the_content(case, generator)
    with pytest.raises(StopAsyncIteration):
        await anext(generator)
    assert job.log == []

    def sync() -> Iterator[str]:
        ran.append("ran")
        yield "x"

    plain = sync()
    await answer_without_the_content(case, plain)
    assert (list(plain), ran) == ([], [])


@pytest.mark.parametrize("case", UNSTREAMED)
async def test_what_cannot_be_closed_is_left_alone(case: str) -> None:
    """A list, an iterable that makes iterators for other streams too, and a subscription that was not entered."""

    class Shared:
        closed = False

        def __aiter__(self) -> AsyncIterator[str]:
            return numbers()

        async def aclose(self) -> None:
            self.closed = True

    shared = Shared()
    for content in (["x"], shared):
        assert (await answer_without_the_content(case, content))[1] == ["background"]
    assert not shared.closed
    async with Hub() as hub:
        subscription = hub.subscribe("a", until="done")
        assert (await answer_without_the_content(case, subscription))[1] == ["background"]


async def test_a_client_that_has_gone_leaves_nothing_open() -> None:
    """An OSError from `send` is a disconnect, and is not raised."""
    rows, ran = AsyncRows(), list[str]()
    response = EventSourceResponse(rows, background=BackgroundTask(ran.append, "background"))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise OSError

    await response({"type": "http", "method": "HEAD", "path": "/", "headers": []}, receive, send)
    assert (rows.closed, ran) == (1, ["background"])


# The reason of the end


async def test_the_reason_is_the_client() -> None:
    """The background task sees the reason; before the end it is None."""
    app = Kept(Job().run())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.received(b"data: 0\n\n")
        app.note()
        stream.disconnect()
        await stream.ended()
    assert app.noted == [(None, False), (None, False), ("client", True)]


async def test_the_reason_is_a_slow_client() -> None:
    """It stays `slow` when the aborted connection reports a disconnect."""

    async def flood() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    app = Kept(flood(), send_timeout=0.05)
    async with EventStreamClient(app).stream("/") as stream:
        stream.stall()
        await anyio.sleep(0.1)
        stream.disconnect()
        await stream.ended()
    assert app.noted[-1] == ("slow", True)


@pytest.mark.parametrize(
    ("options", "content", "reason"),
    [
        ({}, numbers, "finished"),
        ({"max_lifetime": 0.05}, Job().run, "lifetime"),
        ({"on_error": lambda _: None}, None, "error"),
    ],
)
async def test_the_reason_is_told(
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], content: Any, reason: str
) -> None:
    """Other ends have their reasons, and an error is logged with its route."""

    async def broken() -> AsyncIterator[str]:
        yield "x"
        raise LookupError

    app = Kept((content or broken)(), **options)
    async with EventStreamClient(app).stream("/") as stream:
        if content:
            await stream.read()
        await stream.ended()
        if not content:
            with pytest.raises(LookupError):
                await stream.read()
            assert [record.getMessage() for record in caplog.records] == [
                "the content of the stream GET / failed: LookupError()"
            ]
    assert app.noted[-1] == (reason, False)


@pytest.mark.usefixtures("notice")
async def test_the_reason_is_the_shutdown() -> None:
    """The notice of the server gives it."""
    app = Kept(Job().run())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.received(b"data: 0\n\n")
        await shut_down()
        await stream.read()
        await stream.ended()
    assert app.noted[-1] == ("shutdown", False)


async def test_a_subscription_with_an_id_of_its_own_keeps_it() -> None:
    """The id of the request is for a subscription that was given none."""
    async with Hub() as hub:
        subscription = hub.subscribe("a", last_event_id="")
        app = Kept(subscription)
        async with EventStreamClient(app).stream("/", last_event_id="7") as stream:
            await stream.received(b"id: ")
        assert subscription.last_event_id == ""
    assert app.noted[-1] == ("client", True)


async def test_the_ping_interval_has_a_default() -> None:
    """None is an interval, that of no pings."""
    async with Hub(ping_interval=7) as hub:
        found = [EventSourceResponse(one)._terms.ping_interval for one in (["x"], hub.subscribe("a"))]
        silent = EventSourceResponse(hub.subscribe("a"), ping_interval=None)
    assert found == [15.0, 7]
    assert silent._terms.ping_interval == math.inf


@pytest.mark.usefixtures("notice")
async def test_a_drain_timeout_is_for_iterables() -> None:
    """A subscription's reader resumes elsewhere, and 0 is no time."""
    async with Hub() as hub:
        for content, seconds, drained in ((numbers(), 5, 5), (numbers(), 0, 0), (hub.subscribe("a"), 5, 0)):
            response = EventSourceResponse(content, drain_timeout=seconds)
            async with EventStreamClient(response).stream("/"):
                assert response._terms.drain_timeout == drained


# Dialects and streams that are passed on


async def test_a_dialect_adds_its_headers_and_frames() -> None:
    """The caller's headers win; a subscription is streamed in it as well."""
    async with serve(lambda: [{"type": "a"}], dialect=AI_SDK).stream("/") as stream:
        assert await stream.read() == AI_SDK.item({"type": "a"}) + AI_SDK.end()
    assert stream.headers["x-vercel-ai-ui-message-stream"] == "v1"
    async with Hub() as hub, serve(lambda: hub.subscribe("a"), dialect=AI_SDK).stream("/") as stream:
        await hub.publish("a", {"type": "a"})
        await stream.received(AI_SDK.item({"type": "a"}))
        assert b"sse.position" not in stream.content


async def test_a_stream_that_is_refused_is_said_to_be_interrupted() -> None:
    """In a dialect, an empty stream would be taken for an answer."""

    async def endless() -> AsyncIterator[dict[str, str]]:
        yield {"type": "a"}
        await anyio.sleep_forever()

    client = EventStreamClient(EventSourceMiddleware(serve(endless, dialect=ANTHROPIC)._app, max_connections=1))
    async with client.stream("/"), client.stream("/") as stream:
        assert await stream.read() == ANTHROPIC.interrupted("refused")


async def test_chunks_are_passed_on() -> None:
    """In a dialect too, which says an error only; a subscription has none."""
    for dialect in (None, AI_SDK):
        client = serve(lambda: ["data: x\r\n", "\r\n"], encoded=True, dialect=dialect)
        async with client.stream("/", method="POST") as stream:
            assert await stream.read() == b"data: x\r\n\r\n"
    async with Hub() as hub:
        with pytest.raises(TypeError, match="encoded=True is for chunks"):
            EventSourceResponse(hub.subscribe("a"), encoded=True)


async def test_a_dialect_has_the_words_for_an_error() -> None:
    """So that `on_error` is refused beside it."""
    with pytest.raises(ValueError, match="on_error and dialect exclude each other"):
        EventSourceResponse([], dialect=AI_SDK, on_error=lambda _: None)


async def test_a_subscription_that_ends_with_an_event_is_not_read_again() -> None:
    """Another option that says the contrary is refused."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="until and reconnect_after_end exclude each other"):
            EventSourceResponse(hub.subscribe("a", until="done"), reconnect_after_end=True)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_run_is_followed_from_the_clients_last_event(method: str) -> None:
    """A client that has seen the end gets 204, whatever its method, and the others get the end and nothing after it."""
    async with Hub() as hub:
        run = await hub.start_run("a", ["1", "2"])
        await run.wait()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            found = await hub.get_run("a")
            assert found is not None
            await EventSourceResponse(found)(scope, receive, send)

        client = EventStreamClient(app)
        async with client.stream("/", method=method) as stream:
            events = [event async for event in stream]
        assert [(event.event, event.data) for event in events] == [
            ("message", "1"),
            ("message", "2"),
            ("sse.end", '{"state":"finished"}'),
        ]
        for query in ("", f"?last_event_id={events[0].id}"):
            async with client.stream(
                f"/{query}", method=method, last_event_id=None if query else events[0].id
            ) as stream:
                assert [event.data async for event in stream] == ["2", '{"state":"finished"}']
        async with client.stream("/", method=method, last_event_id=events[-1].id) as stream:
            assert (stream.status_code, await stream.read()) == (204, b"")


async def test_a_reader_with_an_id_of_its_own_gets_204_after_the_end() -> None:
    """Where the application gives the id to `follow`."""
    async with Hub() as hub:
        run = await hub.start_run("a", ["1"])
        await run.wait()
        ended = await hub.get_run("a")
        assert ended is not None

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await EventSourceResponse(ended.follow(str(ended._record.last)))(scope, receive, send)

        async with EventStreamClient(app).stream("/") as stream:
            assert stream.status_code == 204


async def test_a_drain_timeout_is_for_runs_too() -> None:
    async with Hub() as hub:
        run = await hub.start_run("a", ["1"])
        response = EventSourceResponse(run, drain_timeout=3)
        assert response._with_drain({"type": "http"}).drain_timeout == 3


async def test_a_run_has_events_and_no_chunks() -> None:
    async with Hub() as hub:
        run = await hub.start_run("a", ["1"])
        with pytest.raises(TypeError, match="encoded"):
            EventSourceResponse(run, encoded=True)


# With FastAPI


async def endpoint(response: Response) -> AsyncIterator[int]:
    response.headers["x-late"] = "1"
    yield 1


def in_fastapi(kind: type[EventSourceResponse]) -> FastAPI:
    pytest.importorskip("fastapi.sse")  # an older FastAPI does not take endpoints that yield
    app = FastAPI()
    app.api_route("/", methods=["GET", "HEAD"], response_class=kind, status_code=201)(endpoint)
    return app


async def test_a_response_class_has_options() -> None:
    """They are checked once, and kept by a class that has more of them."""
    with pytest.raises(TypeError, match="ping_interval"):
        EventSourceResponse.having(ping=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="retry"):
        EventSourceResponse.having(retry=-1)
    kind = EventSourceResponse.having(retry=7, padding=5).having(padding=0)
    assert kind.options == {"retry": 7, "padding": 0}
    async with EventStreamClient(in_fastapi(kind)) as client, client.stream("/") as stream:
        assert (await stream.read()).startswith(b"retry: 7\ndata: 1\n\n")


async def test_an_endpoint_of_fastapi_sets_the_head() -> None:
    """Until its first item; a HEAD does not run it."""
    app = in_fastapi(EventSourceResponse)
    async with EventStreamClient(app) as client:
        async with client.stream("/") as stream:
            assert (stream.status_code, stream.headers["x-late"]) == (201, "1")
        async with client.stream("/", method="HEAD") as stream:
            assert (stream.status_code, stream.headers.get("x-late")) == (201, None)


async def test_a_subscription_in_fastapi_is_no_iterable() -> None:
    """A response that an endpoint returns has no items of a type."""
    app = FastAPI()
    async with Hub() as hub:

        @app.get("/")
        async def subscribe() -> EventSourceResponse:
            return EventSourceResponse(hub.subscribe("a"))

        async with EventStreamClient(app) as client, client.stream("/") as stream:
            await hub.publish("a", "1")
            assert (await stream.next_event()).data == "1"
