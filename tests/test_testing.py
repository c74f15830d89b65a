"""EventStreamClient: responses, requests and the lifespan; tests/test_testing_clients.py has slow clients."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Receive, Scope, Send

from sse_asgi import Hub, testing
from sse_asgi.testing import EventStream, EventStreamClient
from streaming_apps import Probe, body, streaming

pytestmark = pytest.mark.anyio

SOON = 0.05
"""Seconds in which an event that must not happen would have happened."""


# The head


async def test_the_head_is_there_before_the_end() -> None:
    """Status and headers can be read while the application streams."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert not probe.left.is_set()
        assert not stream.complete


async def test_an_exception_before_the_head_is_raised_instead_of_it() -> None:
    """stream() raises the exception of an application that fails before the head."""

    async def app(*_: Any) -> None:
        msg = "before the head"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="before the head"):
        async with EventStreamClient(app).stream("/"):
            pytest.fail("there was no head")


async def test_an_application_that_does_not_answer_is_an_error() -> None:
    """An application that returns without a response is a RuntimeError that says so."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="returned without a response"):
        async with EventStreamClient(app).stream("/"):
            pytest.fail("there was no head")


async def test_a_late_head_is_waited_for() -> None:
    """stream() waits for the head, however long the application works before it."""
    begun = anyio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await anyio.wait_all_tasks_blocked()
        begun.set()
        await send({"type": "http.response.start", "status": 404})
        await send(body(b"", more=False))

    async with EventStreamClient(app).stream("/") as stream:
        assert begun.is_set()
        assert (stream.status_code, len(stream.headers)) == (404, 0)


# Events


async def test_next_event_waits_for_the_event() -> None:
    """next_event returns an event when it is complete, while the stream goes on."""

    async def work(probe: Probe) -> None:
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b"id: 7\nevent: chat\nda"))
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b"ta: x\n\n"))

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        assert await stream.next_event() == ("chat", "x", "7")


async def test_iterating_gives_every_event_until_the_end() -> None:
    """The iteration returns all events, and ends with the stream."""
    async with EventStreamClient(streaming(b"data: a\n\ndata: b\n\n", b"data: c\n\n")).stream("/") as stream:
        assert [event.data async for event in stream] == ["a", "b", "c"]
        assert stream.complete


async def test_no_next_event_after_the_end() -> None:
    """next_event of a stream that has ended is an EOFError."""
    async with EventStreamClient(streaming(b"data: a\n\n")).stream("/") as stream:
        assert (await stream.next_event()).data == "a"
        with pytest.raises(EOFError, match="the stream has ended"):
            await stream.next_event()


@pytest.mark.parametrize(
    "wait",
    [
        lambda stream: stream.next_event(timeout=SOON),
        lambda stream: stream.read(timeout=SOON),
        lambda stream: stream.received(b"never", timeout=SOON),
        lambda stream: stream.ended(timeout=SOON),
    ],
    ids=["next_event", "read", "received", "ended"],
)
async def test_every_wait_has_a_timeout(wait: Callable[[EventStream], Awaitable[object]]) -> None:
    """Each method that waits raises a TimeoutError after its timeout."""
    async with EventStreamClient(Probe()).stream("/") as stream:
        with pytest.raises(TimeoutError):
            await wait(stream)


async def test_read_gives_every_byte() -> None:
    """read() returns all bytes up to the end, also comments and unfinished lines."""
    async with EventStreamClient(streaming(b":\n", b"data: a\n\n", b"data: b")).stream("/") as stream:
        assert await stream.read() == b":\ndata: a\n\ndata: b"


async def test_received_waits_for_bytes() -> None:
    """received() waits for bytes that are not an event, and returns at once if they are there."""

    async def work(probe: Probe) -> None:
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b":"))
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b"\n"))

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        await stream.received(b":\n")
        await stream.received(b":\n")
        assert stream.content == b":\n"


async def test_two_tasks_can_wait_on_one_stream() -> None:
    """Both tasks block while no bytes come, and new bytes wake both."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        async with anyio.create_task_group() as group:
            group.start_soon(stream.received, b"data: a")
            group.start_soon(stream.next_event)
            with anyio.fail_after(1):
                await anyio.wait_all_tasks_blocked()
            await probe.send_event(b"a")


async def test_a_stream_has_the_last_id_and_the_reconnection_time() -> None:
    """The last event id and the reconnection time are the last ones received."""
    async with EventStreamClient(streaming(b"id: 1\ndata: a\n\nretry: 50\n", b"id: 2\n\n")).stream("/") as stream:
        await stream.read()
        assert (stream.last_event_id, stream.retry) == ("2", 50)


async def test_a_position_is_kept_and_not_returned() -> None:
    """next_event skips `sse.position`; its id still becomes the last event id, and `content` has its bytes."""
    frame = b"id: 7\nevent: sse.position\ndata: {}\n\n"
    async with EventStreamClient(streaming(frame, b"data: a\n\n")).stream("/") as stream:
        assert await stream.next_event() == ("message", "a", "7")
        assert stream.content.startswith(frame)


async def test_every_other_event_is_returned() -> None:
    """Iteration returns the library's own events too: gaps, errors and the end."""
    names = ["sse.gap", "sse.error", "sse.end"]
    frames = [f"event: {name}\ndata: {{}}\n\n".encode() for name in names]
    async with EventStreamClient(streaming(*frames)).stream("/") as stream:
        assert [event.event async for event in stream] == names


async def test_an_exception_after_the_head_is_raised_when_everything_is_read() -> None:
    """The reader gets the events sent before, then the application's exception, once."""

    async def work(probe: Probe) -> None:
        await probe.send_event(b"a")
        msg = "after the head"
        raise ValueError(msg)

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        assert (await stream.next_event()).data == "a"
        with pytest.raises(ValueError, match="after the head"):
            await stream.next_event()
        assert not stream.complete


async def test_an_exception_that_was_not_raised_is_raised_on_leaving() -> None:
    """The end of the block raises an exception of the application that the test has not seen."""

    async def work(_: Probe) -> None:
        msg = "unseen"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="unseen"):
        async with EventStreamClient(Probe(work)).stream("/") as stream:
            await stream.ended()


async def test_the_tests_own_exception_wins() -> None:
    """If the block and the application both raise, the exception of the block is raised."""

    async def work(_: Probe) -> None:
        msg = "of the application"
        raise ValueError(msg)

    with pytest.raises(KeyError, match="of the test"):
        async with EventStreamClient(Probe(work)).stream("/") as stream:
            await stream.ended()
            raise KeyError("of the test")  # noqa: EM101, TRY003


async def test_a_stalled_client_makes_send_wait() -> None:
    """After stall(), the application's next send returns only when the client disconnects."""

    async def work(probe: Probe) -> None:
        await probe.send_event(b"a")
        await anyio.wait_all_tasks_blocked()
        await probe.send_event(b"b")

    probe = Probe(work)
    async with EventStreamClient(probe).stream("/") as stream:
        await stream.next_event()
        stream.stall()
        await anyio.wait_all_tasks_blocked()
        assert probe.sent == 1
        stream.disconnect()
        await stream.ended()
        assert probe.sent == 2
        assert b"data: b" not in stream.content


async def test_send_waits_for_a_reader_that_is_behind() -> None:
    """As with a socket, a send waits while more than UNREAD_LIMIT bytes are unread."""
    large = b"x" * testing.UNREAD_LIMIT

    async def work(probe: Probe) -> None:
        for _ in range(3):
            await probe.send_event(large)

    probe = Probe(work)
    async with EventStreamClient(probe).stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert probe.sent == 1
        for _ in range(3):
            assert len((await stream.next_event()).data) == len(large)
        await anyio.wait_all_tasks_blocked()
        assert probe.sent == 3


# The request


async def seen_by(client_headers: dict[str, str] | None = None, url: str = "/", **request: Any) -> Probe:
    """Make a request, and return the application that recorded it."""
    probe = Probe()
    async with EventStreamClient(probe, headers=client_headers).stream(url, **request):
        await anyio.wait_all_tasks_blocked()
    return probe


def header(probe: Probe, name: bytes) -> list[bytes]:
    return [value for key, value in probe.scope["headers"] if key == name]


async def test_a_request_is_that_of_a_browser() -> None:
    """Without options, the request is a GET of an event stream from testserver."""
    probe = await seen_by()
    assert (probe.scope["type"], probe.scope["method"], probe.scope["path"]) == ("http", "GET", "/")
    assert (header(probe, b"accept"), header(probe, b"host")) == ([b"text/event-stream"], [b"testserver"])
    assert header(probe, b"cache-control") == [b"no-cache"]
    assert header(probe, b"last-event-id") == []
    assert probe.received[0] == {"type": "http.request", "body": b"", "more_body": False}


async def test_method_and_body_are_sent() -> None:
    """The request has the given method and the given bytes."""
    probe = await seen_by(method="POST", body=b"payload")
    assert probe.scope["method"] == "POST"
    assert probe.received[0]["body"] == b"payload"


async def test_headers_of_the_request_win_over_the_clients() -> None:
    """Headers of the client and of the request are sent, each name once."""
    probe = await seen_by({"accept": "a", "x-client": "c"}, headers={"accept": "b", "X-Request": "r"})
    assert (header(probe, b"accept"), header(probe, b"x-client")) == ([b"b"], [b"c"])
    assert header(probe, b"x-request") == [b"r"]


@pytest.mark.parametrize("last_event_id", ["7", "", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_the_last_event_id_is_sent_as_its_header(last_event_id: str) -> None:
    """The header is UTF-8, as browsers send it."""
    probe = await seen_by(last_event_id=last_event_id)
    assert header(probe, b"last-event-id") == [last_event_id.encode()]


@pytest.mark.parametrize(
    ("url", "params", "query"),
    [
        ("/", None, b""),
        ("/?a=1", None, b"a=1"),
        ("/", {"a": "1"}, b"a=1"),
        ("/?a=1", {"b": ["2", "3"], "c": "x y&z"}, b"a=1&b=2&b=3&c=x+y%26z"),
    ],
)
async def test_params_are_added_to_the_query(url: str, params: Any, query: bytes) -> None:
    """The query of the URL comes first."""
    assert (await seen_by(url=url, params=params)).scope["query_string"] == query


async def test_the_path_is_decoded_and_the_raw_path_is_not() -> None:
    """The ASGI specification says so of percent-encoded paths."""
    probe = await seen_by(url="/a%20b/%C3%A9?x=%20")
    assert probe.scope["path"] == "/a b/\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert probe.scope["raw_path"] == b"/a%20b/%C3%A9"


async def test_the_scope_can_be_overridden() -> None:
    """Other keyword arguments replace keys of the scope."""
    probe = await seen_by(root_path="/prefix", scheme="https")
    assert (probe.scope["root_path"], probe.scope["scheme"]) == ("/prefix", "https")


async def test_json_is_sent_as_the_body() -> None:
    """The body is JSON, and the Content-Type says so unless a header has another one."""
    probe = await seen_by(method="POST", json={"a": [1, "é"]})
    assert probe.received[0]["body"] == '{"a":[1,"é"]}'.encode()
    assert header(probe, b"content-type") == [b"application/json"]
    probe = await seen_by(method="POST", json=[], headers={"Content-Type": "application/x-json"})
    assert (probe.received[0]["body"], header(probe, b"content-type")) == (b"[]", [b"application/x-json"])


async def test_a_request_has_one_body() -> None:
    """body= and json= together are a TypeError."""
    with pytest.raises(TypeError, match="a request has body= or json=, not both"):
        await seen_by(body=b"x", json={})


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("path_parms", r"did you mean path_params=\?"),
        ("wait", "known: app, .*body, .*json, .*"),
        ("data", r"did you mean body=\?"),
        ("content", r"did you mean body=\?"),
        ("cookies", r"did you mean headers=\?"),
        ("root_pth", r"did you mean root_path=\?"),
        ("jsn", r"did you mean json=\?"),
        ("timeout", r"give it to next_event\(\), read\(\) or received\(\)"),
    ],
)
async def test_unknown_options_are_refused(option: str, advice: str) -> None:
    """A TypeError names the option, and then the option that may be meant, or all options."""
    options: dict[str, Any] = {option: "x"}
    with pytest.raises(TypeError, match=f"EventStreamClient.stream has no option {option}=: {advice}"):
        await seen_by(**options)


async def test_a_body_must_be_bytes() -> None:
    """A str is a TypeError that says what to do."""
    with pytest.raises(TypeError, match=r"^body must be bytes \(got str\): encode it, or give json= instead"):
        await seen_by(body="text")


async def test_an_application_must_be_callable() -> None:
    """A hub instead of an application is a TypeError that says what to give."""
    with pytest.raises(TypeError, match=r"^app must be an ASGI application \(got Hub\): give EventSourceApp\(hub\)"):
        EventStreamClient(Hub())  # type: ignore[arg-type]


# The lifespan


class Living:
    """An application that records its startup, requests and shutdown, and may fail in any of them."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.notes: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan or one request."""
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await self._phase(what, scope, receive, send)
        else:
            self.notes.append(f"request with {scope['state']}")
            scope["state"]["of the request"] = True
            await streaming(b"data: a\n\n")(scope, receive, send)

    async def _phase(self, what: str, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        assert message["type"] == f"lifespan.{what}"
        self.notes.append(what)
        if self.fail == f"raise in {what}":
            raise ValueError(self.fail)
        if self.fail == f"refuse {what}":
            await send({"type": f"lifespan.{what}.failed", "message": f"no {what} today"})
            return
        if self.fail == f"refuse {what} silently":
            await send({"type": f"lifespan.{what}.failed"})
            return
        scope["state"]["lived"] = True
        await send({"type": f"lifespan.{what}.complete"})
        if self.fail == f"raise after {what}":
            raise ValueError(self.fail)


async def test_a_client_as_a_context_runs_the_lifespan() -> None:
    """Startup ends before the first request; shutdown runs at the end of the block."""
    app = Living()
    async with EventStreamClient(app) as client:
        assert app.notes == ["startup"]
        async with client.stream("/") as stream:
            await stream.read()
    assert app.notes == ["startup", "request with {'lived': True}", "shutdown"]


async def test_each_request_has_a_copy_of_the_state() -> None:
    """Every request has the state of the lifespan, without changes by other requests."""
    app = Living()
    async with EventStreamClient(app) as client:
        for _ in range(2):
            async with client.stream("/") as stream:
                await stream.read()
    assert app.notes[1] == app.notes[2] == "request with {'lived': True}"


async def test_without_a_context_there_is_no_lifespan() -> None:
    """Without `async with`, a request does not run the lifespan, and its state is empty."""
    app = Living()
    async with EventStreamClient(app).stream("/") as stream:
        await stream.read()
    assert app.notes == ["request with {}"]


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_is_raised_with_its_message(what: str) -> None:
    """The failure message of the application is the text of a RuntimeError."""
    with pytest.raises(RuntimeError, match=f"no {what} today"):
        async with EventStreamClient(Living(f"refuse {what}")):
            pass


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_without_a_message_is_raised_too(what: str) -> None:
    """Without a text, the RuntimeError has the type of the ASGI message."""
    with pytest.raises(RuntimeError, match=rf"^lifespan\.{what}\.failed$"):
        async with EventStreamClient(Living(f"refuse {what} silently")):
            pass


@pytest.mark.parametrize(
    ("fail", "before"),
    [("raise in startup", "startup"), ("raise after startup", "shutdown"), ("raise in shutdown", "shutdown")],
)
async def test_an_exception_in_the_lifespan_is_the_cause(fail: str, before: str) -> None:
    """A lifespan that raises is a RuntimeError that says when, and whose cause is the application's exception."""
    with pytest.raises(RuntimeError, match=f"ended its lifespan before its {before}") as caught:
        async with EventStreamClient(Living(fail)):
            await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_application_without_a_lifespan_says_so() -> None:
    """An application that returns from the lifespan at once is a RuntimeError too."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="ended its lifespan before its startup"):
        async with EventStreamClient(app):
            pytest.fail("there was no startup")


async def test_the_application_is_stopped_when_the_test_fails() -> None:
    """An exception of the block is raised after the shutdown."""
    app = Living()
    with pytest.raises(KeyError):
        async with EventStreamClient(app):
            raise KeyError
    assert app.notes == ["startup", "shutdown"]


async def test_a_client_can_be_a_context_again() -> None:
    """Each `async with` block runs the lifespan once."""
    app = Living()
    client = EventStreamClient(app)
    for _ in range(2):
        async with client:
            pass
    assert app.notes == ["startup", "shutdown"] * 2
