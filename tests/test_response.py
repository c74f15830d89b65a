"""EventSourceResponse: one connection's life, in process; each sentence of its contract with what would break it."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import (
    ConnectionLimit,
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi._hub.options import MAX_SHARED, Terms
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream import connection as connection_module
from sse_asgi.testing import EventStream, EventStreamClient

FINAL = b'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'

pytestmark = pytest.mark.anyio


def serve(content: Callable[[], Any], **options: Any) -> EventStreamClient:
    """Make a client of an app that answers every request with this content."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(content(), **options)(scope, receive, send)

    return EventStreamClient(app)


async def contents(stream: EventStream) -> list[str]:
    """Return the data of every event but the end."""
    return [event.data async for event in stream if event.event != "sse.end"]


async def numbers(count: int = 3) -> AsyncIterator[str]:
    for number in range(count):
        yield str(number)


class Job:
    """An async generator that tells what happens to it."""

    def __init__(self, *, before: int = 1) -> None:
        self.log: list[str] = []
        self.started = anyio.Event()
        self.cleaned = anyio.Event()
        self.before = before

    async def run(self) -> AsyncIterator[str]:
        self.log.append("started")
        self.started.set()
        try:
            for number in range(self.before):
                yield str(number)
            await anyio.sleep_forever()
        finally:
            self.log.append("cleaning")
            with anyio.CancelScope(shield=True):  # only trio needs this
                await anyio.sleep(0.01)
            self.log.append("cleaned")
            self.cleaned.set()


# What can be streamed


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
    """A TypeError in the endpoint, where it is easy to find."""
    with pytest.raises(TypeError, match=fix):
        EventSourceResponse(content)


async def test_a_coroutine_is_refused_without_a_warning() -> None:
    """An async function without a yield was called: it says so, and the coroutine is closed."""

    async def forgot_to_yield() -> None:
        pass

    with pytest.raises(TypeError, match="yield"):
        EventSourceResponse(forgot_to_yield())  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["ping_interval", "send_timeout", "max_lifetime"])
async def test_numbers_of_seconds_are_above_zero(option: str) -> None:
    """None turns them off, 0 is refused."""
    with pytest.raises(ValueError, match=option):
        EventSourceResponse([], **{option: 0})  # type: ignore[arg-type]


async def test_a_bad_retry_is_refused() -> None:
    """In the constructor."""
    with pytest.raises(ValueError, match="retry"):
        EventSourceResponse([], retry=-1)


async def test_items_follow_the_data_rule() -> None:
    """Text, bytes, JSON and events; None is skipped."""

    async def items() -> AsyncIterator[Any]:
        for item in ("a", b"b", {"c": 1}, None, ServerSentEvent("d", id="1"), [None]):
            yield item

    async with serve(items).stream("/") as stream:
        events = [(event.data, event.id) async for event in stream]
    assert events[:-1] == [("a", ""), ("b", ""), ('{"c":1}', ""), ("d", "1"), ("[null]", "1")]
    assert events[-1] == ('{"state":"finished"}', "sse.end")


class Countdown:
    """An async iterator that is no generator."""

    def __init__(self) -> None:
        self.rest = ["1", "0"]

    def __aiter__(self) -> "Countdown":
        return self

    async def __anext__(self) -> str:
        if not self.rest:
            raise StopAsyncIteration
        return self.rest.pop()


@pytest.mark.parametrize(
    "make", [lambda: ["0", "1"], lambda: ("0", "1"), lambda: iter(["0", "1"]), lambda: numbers(2), Countdown]
)
async def test_any_iterable_works(make: Callable[[], Any]) -> None:
    """Lists, sync iterators and async generators."""
    async with serve(make).stream("/") as stream:
        assert await contents(stream) == ["0", "1"]


async def test_an_item_that_cannot_be_written_is_the_sources_error() -> None:
    """It is raised on, and the generator is closed."""
    closed = anyio.Event()

    async def items() -> AsyncIterator[Any]:
        try:
            yield object()
        finally:
            closed.set()

    with pytest.raises(TypeError, match="object"):
        async with serve(items).stream("/"):
            pass
    assert closed.is_set()


# Headers and methods


async def test_headers_keep_proxies_from_buffering() -> None:
    """No charset, no caching, no transformation, no buffering, and no Connection header."""
    async with serve(numbers).stream("/") as stream:
        assert dict(stream.headers) == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache, no-transform",
            "x-accel-buffering": "no",
        }


async def test_the_callers_headers_win() -> None:
    """Whatever their case; cookies can be set until the response is called."""

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
    """Headers and an empty body."""
    job = Job()
    async with serve(job.run).stream("/", method="HEAD") as stream:
        assert await stream.read() == b""
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.complete
    assert job.log == []


# The start


async def test_a_subscription_starts_at_once() -> None:
    """Head and first bytes before there is any event, and what is published after the head is not missed."""
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await hub.publish("a", "x")
        assert (await stream.next_event()).data == "x"


async def test_the_first_bytes_do_not_wait_for_the_backend() -> None:
    """While entering takes long there is a comment already; the position follows when it is known."""
    gate = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Any:
            await gate.wait()
            return await super().subscribe(channels)

    async with Hub(Slow()) as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await stream.received(b":\n")
        assert stream.content == b":\n"
        gate.set()
        await stream.received(b"\n\n")
        assert stream.content.startswith(b":\nid: ")


async def test_retry_is_in_the_first_bytes() -> None:
    """As a single line without a blank line."""
    async with serve(numbers, retry=1234).stream("/") as stream:
        assert (await stream.read()).startswith(b"retry: 1234\ndata: 0\n\n")


async def test_padding_is_before_the_retry() -> None:
    """One line of a comment, for those that hold back the first bytes."""
    async with serve(numbers, retry=1234, padding=50).stream("/") as stream:
        assert (await stream.read()).startswith(b":" + b" " * 48 + b"\nretry: 1234\ndata: 0\n\n")


@pytest.mark.parametrize("padding", [-1, 8193])
async def test_padding_is_bounded(padding: int) -> None:
    """Every reader would pay for it."""
    with pytest.raises(ValueError, match="8192"):
        EventSourceResponse([], padding=padding)


async def test_a_stream_that_is_revoked_before_it_starts_is_answered() -> None:
    """An empty stream with a farewell, not a connection that breaks."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        subscription.end("revoked")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await EventSourceResponse(subscription)(scope, receive, send)

        async with EventStreamClient(app).stream("/") as stream:
            assert b"retry:" in await stream.read()


async def test_an_iterable_starts_at_its_first_event() -> None:
    """Not before: so that an exception can still become an error response."""
    job = Job(before=0)
    heads = []

    async def send(message: Message) -> None:
        heads.append(message)

    async def receive() -> Message:
        await job.started.wait()
        await anyio.wait_all_tasks_blocked()
        assert heads == []
        return {"type": "http.disconnect"}

    await EventSourceResponse(job.run())({"type": "http", "method": "GET", "headers": []}, receive, send)
    assert heads == []
    assert job.log == ["started", "cleaning", "cleaned"]


async def test_an_iterable_starts_after_start_timeout() -> None:
    """A slow one still opens the stream."""
    async with serve(Job(before=0).run, start_timeout=0.01).stream("/") as stream:
        await stream.received(b":\n")


@pytest.mark.parametrize("error", [HTTPException(403, "no"), ValueError("no")])
async def test_an_exception_before_the_first_event_is_raised(error: Exception) -> None:
    """Nothing was sent, so it becomes a real error response."""

    async def fail() -> AsyncIterator[str]:
        raise error
        yield ""

    with pytest.raises(type(error)):
        async with serve(fail).stream("/"):
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks in random order
async def test_what_comes_at_once_needs_no_start_timeout() -> None:
    """The source has a turn before the head is sent without it."""
    sent = []

    async def fail() -> AsyncIterator[str]:
        raise LookupError
        yield ""

    async def send(message: Message) -> None:
        sent.append(message)

    response = EventSourceResponse(fail(), start_timeout=0)
    with pytest.raises(LookupError):
        await response({"type": "http", "method": "GET", "headers": []}, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert sent == []


async def test_a_snapshot_that_fails_at_once_is_raised() -> None:
    """Also for a subscription, as long as nothing was sent."""

    async def fail() -> None:
        raise HTTPException(404)

    async with Hub() as hub:
        with pytest.raises(HTTPException):
            async with serve(lambda: hub.subscribe("a", snapshot=fail)).stream("/"):
                pass


async def test_an_empty_iterable_is_an_empty_stream() -> None:
    """200 with the final id."""
    async with serve(list).stream("/") as stream:
        assert await stream.read() == FINAL
        assert stream.status_code == 200


# Errors


async def three_then_fail() -> AsyncIterator[str]:
    for number in range(3):
        yield str(number)
    msg = "secret"
    raise LookupError(msg)


async def test_an_exception_after_the_start_loses_nothing() -> None:
    """Everything yielded is sent, then sse.error without details and id, a retry, the final body; then it is raised."""
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


async def test_on_error_gives_another_event() -> None:
    """Or none; one that fails is logged, and the default goes out."""

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
    """A backend error while catching up: sse.error, then raised."""

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


async def test_a_source_cancelled_from_within_is_an_error() -> None:
    """It ends the stream instead of leaving it hanging."""

    async def cancelled() -> AsyncIterator[str]:
        yield "1"
        raise anyio.get_cancelled_exc_class()

    if anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        return  # trio's Cancelled cannot be made by hand
    with pytest.raises(RuntimeError, match="cancelled from within"):
        async with serve(cancelled).stream("/") as stream:
            await stream.ended()
            assert b"sse.error" in stream.content


# The end


async def test_a_finished_iterable_ends_with_the_final_id() -> None:
    """For a GET that accepts event streams, and the request that comes with it is answered 204 without running it."""
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
    """POST, clients that are no EventSource, and where it was turned off: then the iterable runs again."""
    client = serve(numbers, **options)
    async with client.stream("/", method=method, headers=headers) as stream:
        assert b"sse.end" not in await stream.read()
    if options:
        async with client.stream("/", last_event_id="sse.end") as again:
            assert b"data: 2" in await again.read()


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "evs_last_event_id", "Last-Event-ID"])
async def test_the_query_may_say_that_the_end_was_seen(name: str) -> None:
    """For polyfills, which cannot set the header."""
    async with serve(numbers).stream(f"/?{name}=sse.end") as stream:
        assert (stream.status_code, await stream.read()) == (204, b"")
        assert stream.headers["cache-control"] == "no-store"


async def test_the_header_wins_over_the_query() -> None:
    """It is the newer one: a browser keeps the URL."""
    async with serve(numbers).stream("/?last_event_id=sse.end", last_event_id="x") as stream:
        assert b"data: 2" in await stream.read()


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId"])
async def test_a_subscription_resumes_from_the_query(name: str) -> None:
    """In an endpoint of one's own as in the app."""
    async with Hub() as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        client = serve(lambda: hub.subscribe("a"))
        async with client.stream(f"/?{name}={first}") as stream:
            assert (await stream.next_event()).data == "2"
        client = serve(lambda: hub.subscribe("a", last_event_id=""))
        async with client.stream(f"/?{name}={first}") as stream:
            await stream.received(b"id: ")
            await hub.publish("a", "3")
            await stream.received(b"data: 3")
            assert b"data: 2" not in stream.content


# Answers without the content


class Rows:
    """An iterator that holds something until it is closed, as a cursor of a database does."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.closed = 0
        self.thread: int | None = None
        self.rows = iter("ab")
        self.fails = fails
        self.hangs = hangs

    def _close(self) -> None:
        self.closed += 1
        self.thread = threading.get_ident()
        if self.fails:
            msg = "it cannot be closed"
            raise ValueError(msg)


class AsyncRows(Rows):
    def __aiter__(self) -> "AsyncRows":
        return self

    async def __anext__(self) -> str:
        for row in self.rows:
            return row
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._close()
        if self.hangs:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()


class SyncRows(Rows):
    def __iter__(self) -> "SyncRows":
        return self

    def __next__(self) -> str:
        return next(self.rows)

    def close(self) -> None:
        self._close()


UNSTREAMED: dict[str, dict[str, Any]] = {
    "HEAD": {"method": "HEAD"},
    "204": {"last_event_id": "sse.end"},
    "refused": {},
}


async def answer_without_the_content(case: str, content: Any, **options: Any) -> tuple[EventSourceResponse, list[str]]:
    """Have a response answer a request so, and return what its background task did."""
    ran: list[str] = []
    response = EventSourceResponse(content, background=BackgroundTask(ran.append, "background"), **options)
    limit = ConnectionLimit(1)
    if case == "refused":
        assert limit.enter({"type": "http", "headers": []}) is not None
    app: ASGIApp = EventSourceMiddleware(response, max_connections=limit) if case == "refused" else response
    async with EventStreamClient(app).stream("/", **UNSTREAMED[case]) as stream:
        await stream.ended()
        assert stream.status_code == (204 if case == "204" else 200)
        assert stream.complete
    return response, ran


@pytest.mark.parametrize("case", UNSTREAMED)
@pytest.mark.parametrize("kind", [AsyncRows, SyncRows])
async def test_what_is_not_streamed_is_closed(case: str, kind: type[Rows]) -> None:
    """The endpoint has made it; a sync one is closed in a thread, because that may block."""
    rows = kind()
    response, ran = await answer_without_the_content(case, rows)
    assert (rows.closed, list(rows.rows)) == (1, ["a", "b"])
    assert (rows.thread == threading.get_ident()) == (kind is AsyncRows)
    assert ran == ["background"]
    assert response.reason == ("refused" if case == "refused" else "finished")


@pytest.mark.parametrize("case", UNSTREAMED)
async def test_a_generator_that_is_not_streamed_is_closed(case: str) -> None:
    """It cannot be iterated afterwards, and nothing of it runs; a sync one neither."""
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
    """A list; an iterable that makes iterators, which other streams may need; a subscription that was not entered."""

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
    if case != "204":
        async with Hub() as hub:
            assert (await answer_without_the_content(case, hub.subscribe("a")))[1] == ["background"]


@pytest.mark.parametrize("kind", [AsyncRows, SyncRows])
async def test_a_failing_close_is_logged_and_hides_nothing(kind: type[Rows], caplog: pytest.LogCaptureFixture) -> None:
    """The answer is complete, and the background task runs."""
    rows = kind(fails=True)
    assert (await answer_without_the_content("HEAD", rows))[1] == ["background"]
    assert f"a {kind.__name__} that was not streamed could not be closed" in caplog.text


async def test_a_close_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After `cleanup_timeout`."""
    rows = AsyncRows(hangs=True)
    assert (await answer_without_the_content("HEAD", rows, cleanup_timeout=0.01))[1] == ["background"]
    assert "took more than 0.01 s to close" in caplog.text


async def test_a_stream_that_ends_before_it_begins_is_closed() -> None:
    """A stream that is refused because the server stops has not begun its content."""
    rows = AsyncRows()
    response = EventSourceResponse(rows)
    notice = current_notice()
    notice.heard = True
    try:
        async with EventStreamClient(response).stream("/") as stream:
            await stream.read()
    finally:
        notice.heard = False
    assert (response.reason, rows.closed, list(rows.rows)) == ("shutdown", 1, ["a", "b"])


async def test_a_client_that_has_gone_leaves_nothing_open() -> None:
    """Servers whose `send` raises say so by an OSError, which is no error of the application."""
    rows, ran = AsyncRows(), list[str]()
    response = EventSourceResponse(rows, background=BackgroundTask(ran.append, "background"))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        raise OSError

    await response({"type": "http", "method": "HEAD", "path": "/", "headers": []}, receive, send)
    assert (rows.closed, ran) == (1, ["background"])


@pytest.mark.parametrize("end", ["finished", "client", "error"])
async def test_an_async_iterator_is_closed_however_its_stream_ends(end: str) -> None:
    """One with `aclose()` that is not a generator, in the task that iterated it."""
    tasks: list[int] = []

    class Cursor(AsyncRows):
        async def __anext__(self) -> str:
            tasks.append(anyio.get_current_task().id)
            try:
                return await super().__anext__()
            except StopAsyncIteration:
                if end == "error":
                    msg = "it failed"
                    raise ValueError(msg) from None
                if end == "client":
                    await anyio.sleep_forever()
                raise

        async def aclose(self) -> None:
            tasks.append(anyio.get_current_task().id)
            self._close()

    cursor = Cursor()
    with contextlib.suppress(ValueError):
        async with serve(lambda: cursor).stream("/") as stream:
            await stream.received(b"data: b")
            if end == "client":
                stream.disconnect()
            await stream.ended()
    assert cursor.closed == 1
    assert len({*tasks}) == 1


async def test_a_stream_of_objects_is_closed() -> None:
    """So that a producer which sends to it hears that the client has gone."""
    sending, receiving = anyio.create_memory_object_stream[str](1)
    async with sending, serve(lambda: receiving).stream("/") as stream:
        await sending.send("x")
        await stream.received(b"data: x")
        stream.disconnect()
        await stream.ended()
        with pytest.raises(anyio.BrokenResourceError):
            await sending.send("y")


async def test_a_subscription_never_ends_for_good() -> None:
    """A drained hub sends what is pending and a retry, not the final id; `sse.end` as an id is just unreadable."""
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a"))
        async with client.stream("/", last_event_id="sse.end") as stream:
            assert (await stream.next_event()).event == "sse.gap"
            await hub.publish("a", "last")
            await hub.drain()
            content = await stream.read()
        assert b"data: last\n\nretry: " in content
        assert b"sse.end" not in content
        assert stream.complete


async def test_overflow_close_ends_the_stream_with_a_retry() -> None:
    """The browser comes back with its Last-Event-ID."""
    async with Hub(buffer_size=1, overflow="close") as hub:
        async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
            stream.stall()
            for number in range(10):
                await hub.publish("a", str(number))
            stream._reading = True
            stream._notify()
            assert b"retry:" in await stream.read()
        assert stream.complete


async def terms_of(*options: dict[str, Any]) -> list[Terms]:
    """Serve a stream with each of these options, and return what was agreed with it."""
    found = []
    for one in options:
        response = EventSourceResponse([], **one)
        async with EventStreamClient(response).stream("/") as stream:
            await stream.read()
        found.append(response._terms)
    return found


async def test_equal_terms_are_kept_once() -> None:
    """In an event loop, and not for ever; those with a function, which may hold on to its request, are its own."""
    one, two, other = await terms_of({"retry": 5}, {"retry": 5}, {"retry": 6})
    assert one is two
    assert other.greeting == b"retry: 6\n"
    mine, yours = await terms_of({"on_error": str}, {"on_error": str})
    assert mine is not yours
    await terms_of(*({"retry": number} for number in range(100, 100 + MAX_SHARED)))
    (again,) = await terms_of({"retry": 5})
    assert again is not one


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_event_loops_share_no_terms(backend: str) -> None:
    """Nothing of one is kept for the next."""
    one, two = (anyio.run(terms_of, {"retry": 5}, backend=backend) for _ in range(2))
    assert one == two
    assert one[0] is not two[0]


# Disconnects and cleanup


async def test_a_disconnect_cleans_the_source_up_with_its_awaits() -> None:
    """While it awaits: it is cancelled once, and what it awaits in `finally` works."""
    job = Job()
    async with serve(job.run).stream("/") as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.ended()
    assert job.log == ["started", "cleaning", "cleaned"]


async def test_a_source_suspended_at_yield_is_closed_in_its_task() -> None:
    """While a send is pending: the generator is closed by the task that ran it, in its context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[Any] = []

    async def endless() -> AsyncIterator[str]:
        token = variable.set("mine")
        task = anyio.get_current_task().id
        try:
            while True:
                yield "x" * 70_000
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0)
            seen.append((variable.get(), anyio.get_current_task().id == task))
            variable.reset(token)

    async with serve(endless).stream("/") as stream:
        stream.stall()
        await anyio.wait_all_tasks_blocked()
    assert seen == [("mine", True)]


async def test_a_source_is_not_pulled_while_a_send_is_pending() -> None:
    """A client that does not read stops the generator within an item."""
    pulled = 0

    async def endless() -> AsyncIterator[str]:
        nonlocal pulled
        while True:
            pulled += 1
            await anyio.sleep(0)
            yield "x" * 1000

    async with serve(endless).stream("/") as stream:
        stream.stall()
        await anyio.wait_all_tasks_blocked()
        before = pulled
        await anyio.sleep(0.02)
        assert pulled == before
        assert pulled * 1000 < len(stream.content) + 2 * 66_000


async def test_a_source_that_pauses_is_sent_at_once() -> None:
    """What was yielded before a pause does not wait for more."""
    go = anyio.Event()

    async def pausing() -> AsyncIterator[str]:
        yield "1"
        yield "2"
        await go.wait()
        yield "3"

    async with serve(pausing).stream("/") as stream:
        assert [(await stream.next_event()).data for _ in range(2)] == ["1", "2"]
        go.set()
        assert (await stream.next_event()).data == "3"


async def test_a_busy_source_that_never_awaits_is_not_held_back() -> None:
    """Joining ends after some milliseconds, and everyone else gets a turn."""
    times = []

    async def busy() -> AsyncIterator[str]:
        for _ in range(3):
            threading.Event().wait(0.02)
            yield "x"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            times.append(message.get("body", b""))
            await send(message)

        await EventSourceResponse(busy())(scope, receive, note)

    async with EventStreamClient(app).stream("/") as stream:
        await stream.read()
    assert times[1:4] == [b"data: x\n\n"] * 3


async def test_bodies_are_joined_up_to_64_kib() -> None:
    """A generator that does not pause goes out in few bodies, none larger, except for a single larger event."""
    bodies = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            bodies.append(len(message.get("body", b"")))
            await send(message)

        items = ["x" * 1000] * 200 + ["y" * 100_000] + ["z"]
        await EventSourceResponse(items)(scope, receive, note)

    async with EventStreamClient(app).stream("/") as stream:
        events = await contents(stream)
    assert len(events) == 202
    assert len(bodies) < 60
    assert [size for size in bodies if size > 64 * 1024] == [100_008]


async def test_a_source_that_yields_only_none_does_not_starve_the_loop() -> None:
    """Each None is a checkpoint, so that a disconnect is noticed."""

    async def idle() -> AsyncIterator[None]:
        while True:
            yield None

    async with serve(idle, start_timeout=0).stream("/") as stream:
        await stream.received(b":\n")
        stream.disconnect()
        await stream.ended()


async def test_cleanup_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """What does not end in cleanup_timeout is cut and logged."""
    cut = anyio.Event()

    async def stubborn() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            try:
                with anyio.CancelScope(shield=anyio.get_cancelled_exc_class().__module__.startswith("asyncio")):
                    await anyio.sleep_forever()
            finally:
                cut.set()

    async with serve(stubborn, cleanup_timeout=0.05).stream("/") as stream:
        await stream.next_event()
    with anyio.fail_after(5):
        await cut.wait()
    if not anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        assert "took more than 0.05 s to clean up" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("send failed"), ConnectionResetError()])
async def test_a_send_that_fails_leaves_nothing_behind(error: Exception) -> None:
    """Whatever it raises: the reader has left, the notice is not listened to, and what is no disconnect is raised."""
    calls = 0

    async def send(_: Message) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise error

    async with Hub() as hub:
        response = EventSourceResponse(hub.subscribe("a"))

        async def serve_it() -> None:
            await response({"type": "http", "method": "GET", "headers": []}, anyio.sleep_forever, send)  # type: ignore[arg-type]

        with anyio.move_on_after(5):
            async with anyio.create_task_group() as tasks:
                caught: list[Exception] = []

                async def run() -> None:
                    try:
                        await serve_it()
                    except RuntimeError as raised:
                        caught.append(raised)

                tasks.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                await hub.publish("a", "x")
        assert caught == ([error] if isinstance(error, RuntimeError) else [])
        assert hub._registry is not None
        assert not hub._registry._channels
    assert current_notice().listeners == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_no_shield_keeps_out_leaves_nothing_behind() -> None:
    """Asyncio's own, while the end of a stream is stuck in send: what is left is done by another task."""
    stuck = anyio.Event()

    async def send(message: Message) -> None:
        if message.get("more_body") is False:
            stuck.set()
            await anyio.sleep_forever()

    async def gone() -> Message:
        await anyio.sleep(0.01)
        return {"type": "http.disconnect"}

    async with Hub() as hub:
        response = EventSourceResponse(hub.subscribe("a"))
        task = asyncio.create_task(response({"type": "http", "method": "GET", "headers": []}, gone, send))
        await stuck.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await anyio.wait_all_tasks_blocked()
        assert hub._registry is not None
        assert not hub._registry._channels
    assert current_notice().listeners == 0


async def test_content_that_outlives_its_cleanup_leaves_the_hub_all_the_same() -> None:
    """A snapshot that does not let itself be cancelled holds no reader in the hub."""
    gate, began = anyio.Event(), anyio.Event()

    async def stubborn() -> str:
        began.set()
        with anyio.CancelScope(shield=True):
            try:
                await gate.wait()
            except BaseException:  # noqa: BLE001 - that is the point
                await gate.wait()
        return "state"

    async with Hub() as hub:
        async with serve(lambda: hub.subscribe("a", snapshot=stubborn), cleanup_timeout=0.05).stream("/") as stream:
            await began.wait()
            stream.disconnect()
            await stream.ended()
            assert hub._registry is not None
            assert not hub._registry._channels
            gate.set()


async def test_a_receive_that_fails_is_a_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it raises, which is logged."""
    job = Job()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        async def broken() -> Message:
            await job.started.wait()
            msg = "receive"
            raise LookupError(msg)

        await EventSourceResponse(job.run(), start_timeout=0)(scope, broken, send)

    async def send(_: Message) -> None:
        pass

    await app({"type": "http", "method": "GET", "headers": []}, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert job.log[-1] == "cleaned"
    assert "receive" in caplog.text


async def test_leaving_a_hub_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that does not answer when the last reader leaves holds nobody up."""
    monkeypatch.setattr("sse_asgi._hub.registry.UNSUBSCRIBE_SECONDS", 0.05)

    class Stuck(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            await anyio.sleep_forever()

    async with Hub(Stuck()) as hub:
        async with serve(lambda: hub.subscribe("a"), cleanup_timeout=0.01).stream("/") as stream:
            await stream.received(b"\n\n")
        assert stream._ended.is_set()


async def test_an_exception_in_cleanup_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is nobody left to tell."""

    async def messy() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            msg = "in cleanup"
            raise LookupError(msg)

    async with serve(messy).stream("/") as stream:
        await stream.next_event()
    assert "in cleanup" in caplog.text


async def test_an_oserror_from_send_is_a_disconnect() -> None:
    """As some servers tell it."""
    job = Job()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def broken(message: Message) -> None:
            if message.get("body"):
                raise ConnectionResetError
            await send(message)

        await EventSourceResponse(job.run())(scope, receive, broken)

    async with EventStreamClient(app).stream("/") as stream:
        await stream.ended()
    assert job.log == ["started", "cleaning", "cleaned"]


async def test_an_oserror_from_receive_is_a_disconnect() -> None:
    """The same."""
    job, reset = Job(), anyio.Event()

    async def app(scope: Scope, _: Receive, send: Send) -> None:
        async def broken() -> Message:
            await reset.wait()
            raise ConnectionResetError

        await EventSourceResponse(job.run())(scope, broken, send)

    async with EventStreamClient(app).stream("/") as stream:
        reset.set()
        await stream.ended()
    assert job.log[-1] == "cleaned"


async def test_receive_has_one_owner() -> None:
    """It is called by one task, never again before it has returned, and not cancelled to be called again."""
    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched() -> Message:
            assert "waiting" not in calls
            calls.append("waiting")
            message = await receive()
            calls[-1] = message["type"]
            return message

        await EventSourceResponse(numbers_slowly(), ping_interval=0.01)(scope, watched, send)

    async def numbers_slowly() -> AsyncIterator[str]:
        for number in range(5):
            await anyio.sleep(0.02)
            yield str(number)

    async with EventStreamClient(app).stream("/", method="POST", body=b"unread") as stream:
        assert stream.status_code == 200
        await stream.read()
        stream.disconnect()
        await stream.ended()
    assert calls[0] == "http.request"
    assert len(calls) <= 2


async def test_leaving_a_subscription_stream_leaves_the_hub() -> None:
    """Nothing of a reader stays behind."""
    async with Hub() as hub:
        async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
            await stream.received(b"\n\n")
            assert hub._registry is not None
            assert hub._registry._channels
        assert not hub._registry._channels
        assert current_notice().listeners == 0


@pytest.mark.parametrize("end", ["finish", "fail", "disconnect", "cancel"])
async def test_a_background_task_runs_however_the_stream_ends(end: str) -> None:
    """After cleanup, whenever a response had started."""
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
    """What the endpoint began is ended; an error response has its own."""
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
    """The stream's own error is still raised."""

    async def fail() -> None:
        msg = "background"
        raise RuntimeError(msg)

    with pytest.raises(LookupError, match="secret"):
        async with serve(three_then_fail, background=BackgroundTask(fail)).stream("/") as stream:
            await stream.ended()
    assert "background" in caplog.text


# Pings, timeouts, lifetimes


async def test_pings_come_only_in_silence() -> None:
    """A bare comment line, without a blank line."""
    go = anyio.Event()

    async def pausing() -> AsyncIterator[str]:
        yield "1"
        await go.wait()
        yield "2"

    async with serve(pausing, ping_interval=0.02).stream("/") as stream:
        await stream.received(b":\n:\n")
        go.set()
        assert (await stream.read()).startswith(b"data: 1\n\n:\n:\n")


async def test_busy_streams_are_not_pinged() -> None:
    """The interval begins again with each event."""

    async def busy() -> AsyncIterator[str]:
        for number in range(30):
            await anyio.sleep(0.005)
            yield str(number)

    async with serve(busy, ping_interval=0.1).stream("/") as stream:
        assert b":\n:" not in await stream.read()
        assert b"\n:\n" not in stream.content


async def test_ping_interval_none_sends_none() -> None:
    """Silence stays silence."""
    async with serve(Job().run, ping_interval=None, send_timeout=None, start_timeout=0.02).stream("/") as stream:
        await stream.next_event()
        await anyio.sleep(0.05)
        assert stream.content == b"data: 0\n\n"


async def test_a_subscriptions_ping_interval_is_its_hubs() -> None:
    """Unless the response is given one; a ping shows a position that moved."""
    async with Hub(ping_interval=0.02) as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        moved = await hub.publish("b", "elsewhere")
        await stream.received(f"id: {moved}\nevent: sse.position\ndata: {{}}\n\n".encode())
        assert stream.last_event_id == moved


async def test_a_ping_during_a_replay_moves_no_id() -> None:
    """While history is slow the stream is kept alive, and no id is ahead of what is still to come."""
    gate = anyio.Event()

    class Slow(MemoryBackend):
        async def history(self, *args: Any) -> Any:
            await gate.wait()
            return await super().history(*args)

    async with Hub(Slow(), ping_interval=0.01) as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        client = serve(lambda: hub.subscribe("a"))
        async with client.stream("/", last_event_id=first) as stream:
            await stream.received(b":\n:\n:\n")
            assert b"id" not in stream.content
            gate.set()
            assert (await stream.next_event()).data == "2"


@pytest.mark.parametrize("guards", [0, 1, 2])
async def test_a_client_that_does_not_read_is_cut_off(guards: int) -> None:
    """After send_timeout, by aborting its transport where the server shows it; no event is sent to it again."""
    aborted = anyio.Event()
    log = []

    class Cycle:
        """What uvicorn's receive belongs to."""

        class transport:  # noqa: N801 - an attribute of that name
            abort = aborted.set

        def __init__(self, receive: Receive) -> None:
            self._receive = receive

        async def receive(self) -> Message:
            return await self._receive()

    async def flood() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            log.append("closed")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        guarded: ASGIApp = EventSourceResponse(flood(), send_timeout=0.05)
        for _ in range(guards):
            guarded = EventSourceMiddleware(guarded)
        await guarded(scope, Cycle(receive).receive, send)

    async with EventStreamClient(app).stream("/") as stream:
        stream.stall()
        await stream.ended()
        assert not stream.complete
    assert aborted.is_set()
    assert log == ["closed"]


async def test_send_timeout_none_waits() -> None:
    """Nobody is cut off."""

    async def flood() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    async with serve(flood, send_timeout=None, ping_interval=0.01).stream("/") as stream:
        stream.stall()
        await anyio.sleep(0.05)
        assert not stream._ended.is_set()


async def test_max_lifetime_makes_the_browser_reconnect() -> None:
    """The stream ends properly, with a retry and without the final id."""
    job = Job()
    async with serve(job.run, max_lifetime=0.05).stream("/") as stream:
        content = await stream.read()
    assert content.startswith(b"data: 0\n\nretry: ")
    assert b"sse.end" not in content
    assert stream.complete
    assert job.log[-1] == "cleaned"


async def test_lifetimes_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a fifth either way, so that clients do not come back together."""
    asked = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 1

    monkeypatch.setattr("random.uniform", uniform)
    async with serve(numbers, max_lifetime=10).stream("/") as stream:
        await stream.read()
    assert asked == [(0.8, 1.2)]


# A stream that never pauses


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize("how", ["shutdown", "lifetime"])
async def test_a_busy_stream_ends(how: str) -> None:
    """Though its buffer is never empty, because a send takes longer than to publish; its client is not cut off."""
    reasons = []
    async with Hub(MemoryBackend(history_size=10_000), buffer_size=10_000) as hub, anyio.create_task_group() as tasks:
        response = EventSourceResponse(hub.subscribe("a"), max_lifetime=0.3 if how == "lifetime" else None)

        async def send(message: Message) -> None:
            for _ in range(4):
                await hub.publish("a", "x")

        async def publish() -> None:
            while True:
                await hub.publish("a", "x")

        tasks.start_soon(publish)
        if how == "shutdown":
            tasks.start_soon(shut_down_later)
        with anyio.fail_after(5):
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await response(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        reasons.append(response.reason)
        tasks.cancel_scope.cancel()
    assert reasons == [how]


async def shut_down_later() -> None:
    await anyio.sleep(0.1)
    current_notice().hear()


async def test_the_application_may_revoke_a_subscription() -> None:
    """Its stream ends with a retry, and says why."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        app = Kept(subscription)
        async with EventStreamClient(app).stream("/") as stream:
            await stream.received(b"id: ")
            subscription.end("revoked")
            assert b"retry: " in (await stream.read()).splitlines()[-1]
            await stream.ended()
    assert app.noted[-1] == ("revoked", False)


# When a subscription's head is sent


class Distant(MemoryBackend):
    """Takes its time to subscribe."""

    def __init__(self) -> None:
        super().__init__()
        self.there = anyio.Event()

    async def subscribe(self, channels: tuple[str, ...]) -> Any:
        await self.there.wait()
        return await super().subscribe(channels)


async def test_who_has_seen_the_head_misses_nothing() -> None:
    """It waits until the backend has joined the channels, however far away that is."""
    backend = Distant()
    async with Hub(backend) as hub, anyio.create_task_group() as tasks:

        async def read() -> None:
            async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
                await hub.publish("a", "x")
                assert (await stream.next_event()).data == "x"

        tasks.start_soon(read)
        await anyio.sleep(0.05)  # in which a head would be sent
        backend.there.set()


async def test_a_backend_that_is_away_does_not_hold_the_head_for_ever() -> None:
    """After `start_timeout` the stream opens, and is pinged."""
    async with Hub(Distant()) as hub, serve(lambda: hub.subscribe("a"), start_timeout=0.05).stream("/") as stream:
        await stream.received(b":\n")
        assert stream.status_code == 200


# Why it ended


class Kept:
    """An application that keeps its response."""

    def __init__(self, content: Any, **options: Any) -> None:
        self.response = EventSourceResponse(content, background=BackgroundTask(self.note), **options)
        self.noted: list[Any] = []

    def note(self) -> None:
        self.noted.append((self.response.reason, self.response.disconnected))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.note()
        await self.response(scope, receive, send)


async def test_the_reason_is_the_client() -> None:
    """Known to the background task; nothing before."""
    app = Kept(Job().run())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.received(b"data: 0\n\n")
        app.note()
        stream.disconnect()
        await stream.ended()
    assert app.noted == [(None, False), (None, False), ("client", True)]


async def test_the_reason_is_a_slow_client() -> None:
    """Also when its connection, which is closed for that, ends thereby."""

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
    """Of every other end; an error is logged with its route."""

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
    """Of the server, by its notice, or by cancelling."""
    app = Kept(Job().run())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.received(b"data: 0\n\n")
        await shut_down()
        await stream.read()
        await stream.ended()
    assert app.noted[-1] == ("shutdown", False)


@pytest.mark.usefixtures("notice")
async def test_a_shutdown_during_the_clean_up_changes_nothing() -> None:
    """Neither the reason nor the connection, which others may be using."""
    cleaning = anyio.Event()

    async def slow_to_leave() -> AsyncIterator[str]:
        try:
            yield "x"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                cleaning.set()
                await anyio.sleep(0.1)

    app = Kept(slow_to_leave())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.received(b"data: x\n\n")
        stream.disconnect()
        await cleaning.wait()
        await shut_down()
        await stream.ended()
    assert app.noted[-1] == ("client", True)


# Shutdown


async def shut_down() -> None:
    current_notice().hear()


@pytest.fixture
async def notice() -> AsyncIterator[None]:
    """Leave the event loop's notice as it was."""
    yield
    current_notice().heard = False


@pytest.mark.usefixtures("notice")
async def test_shutdown_ends_streams_with_a_farewell() -> None:
    """What is pending is flushed, then a jittered retry and the final body; the source is cleaned up."""
    job, retries = Job(), set()
    async with Hub() as hub:
        clients = [serve(lambda: hub.subscribe("a")) for _ in range(5)]
        async with anyio.create_task_group() as tasks:

            async def visit(client: EventStreamClient) -> None:
                async with client.stream("/") as stream:
                    await stream.received(b"\n\n")
                    ready.append(1)
                    content = await stream.read()
                    assert b"data: last\n\nretry: " in content
                    assert stream.complete
                    retries.add(stream.retry)

            ready: list[int] = []
            for client in clients:
                tasks.start_soon(visit, client)
            async with serve(job.run).stream("/") as stream:
                await stream.next_event()
                await anyio.wait_all_tasks_blocked()
                assert len(ready) == 5
                await hub.publish("a", "last")
                await shut_down()
                assert b"retry: " in await stream.read()
                assert stream.complete
    assert job.log[-1] == "cleaned"
    assert len(retries) > 1


@pytest.mark.usefixtures("notice")
async def test_new_streams_are_refused_during_shutdown() -> None:
    """200, a jittered retry, the end: so that a browser comes back; the source is not touched."""
    job = Job()
    await shut_down()
    async with serve(job.run).stream("/") as stream:
        assert stream.status_code == 200
        assert (await stream.read()).startswith(b"retry: ")
        assert stream.complete
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as refused:
        assert (await refused.read()).startswith(b"retry: ")
    assert job.log == []


@pytest.mark.usefixtures("notice")
async def test_shutdown_does_not_wait_for_a_stalled_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its send is broken off after half a second."""
    monkeypatch.setattr(connection_module, "SHUTDOWN_SECONDS", 0.05)

    async def flood() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    async with serve(flood).stream("/") as stream:
        stream.stall()
        await anyio.wait_all_tasks_blocked()
        await shut_down()
        await stream.ended(2)


@pytest.mark.usefixtures("notice")
async def test_shutdown_cuts_off_nobody_who_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then its connection may serve another request."""
    cut: list[int] = []
    monkeypatch.setattr(connection_module, "SHUTDOWN_SECONDS", 0.05)
    monkeypatch.setattr(connection_module, "cut_off", lambda *_: cut.append(1))
    async with serve(Job().run).stream("/") as stream:
        await stream.next_event()
        await shut_down()
        await stream.read()
        await stream.ended()
    await anyio.sleep(0.1)
    assert cut == []


# Sync sources


async def test_a_sync_generator_runs_in_a_thread_of_its_own() -> None:
    """One thread and one context from first to last, none of the event loop's."""
    threads = set()

    def content() -> Iterator[str]:
        for number in range(3):
            threads.add(threading.current_thread())
            yield str(number)

    async with serve(content).stream("/") as stream:
        assert await contents(stream) == ["0", "1", "2"]
    assert len(threads) == 1
    assert threads.isdisjoint({threading.main_thread()})


async def test_a_sync_generator_is_closed_on_disconnect() -> None:
    """In its thread, when it next yields."""
    closed = threading.Event()

    def content() -> Iterator[str]:
        try:
            while True:
                yield "x"
        finally:
            closed.set()

    async with serve(content).stream("/") as stream:
        await stream.next_event()
    assert await anyio.to_thread.run_sync(closed.wait, 5)


# Context


async def test_context_variables_of_the_request_are_visible() -> None:
    """The source runs in a copy of the request's context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def content() -> AsyncIterator[str]:
        yield variable.get()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("request")
        await EventSourceResponse(content())(scope, receive, send)

    async with EventStreamClient(app).stream("/") as stream:
        assert (await stream.next_event()).data == "request"


async def test_a_subscription_that_was_entered_is_refused() -> None:
    """By hand or by the response, not both: it would be left when the endpoint returns."""
    async with Hub() as hub:
        async with hub.subscribe("a") as subscription:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            async with serve(lambda: subscription).stream("/"):
                pass


async def test_initial_events_do_not_wait_for_the_snapshot() -> None:
    """They go out while it is made."""
    gate = anyio.Event()

    async def snapshot() -> str:
        await gate.wait()
        return "state"

    async with Hub() as hub:
        content = lambda: hub.subscribe("a", initial=["hello"], snapshot=snapshot)  # noqa: E731
        async with serve(content).stream("/") as stream:
            assert (await stream.next_event()).data == "hello"
            gate.set()
            assert (await stream.next_event()).data == "state"


async def test_a_closed_hub_is_an_error_response() -> None:
    """Entered after closing: raised before anything is sent."""
    hub = Hub()
    async with hub:
        subscription = hub.subscribe("a")
    with pytest.raises(HubClosedError):
        async with serve(lambda: subscription).stream("/"):
            pass


# The log

FORGED = "/x%0A2026-01-01 ERROR forged%1B%5B2J%E2%80%A8end"
SHOWN = r"/x\n2026-01-01 ERROR forged\x1b[2J\u2028end"


async def test_a_path_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of whatever failed: the content after its first event, its clean-up, `on_error`, a background task."""

    async def content() -> AsyncIterator[str]:
        yield "x"
        msg = "a\nforged error"
        raise Odd(msg)

    class Odd(Exception):  # noqa: N818 - it is one for this test alone
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
