"""EventStreamClient: the client end of streams that the application is still writing."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import testing
from sse_asgi.testing import EventStream, EventStreamClient

pytestmark = pytest.mark.anyio

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
SOON = 0.05
"""For what must not happen: a shorter wait than a test's patience, in which nothing comes."""


def body(content: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def streaming(*chunks: bytes) -> ASGIApp:
    """Make an application that sends these chunks and ends."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send(HEAD)
        for chunk in chunks:
            await send(body(chunk))
        await send(body(b"", more=False))

    return app


class Probe:
    """An application that a test looks into: it sends the head, does what the test says, and notes what it sees."""

    def __init__(self, work: Callable[["Probe"], Awaitable[None]] | None = None) -> None:
        self.scope: Scope = {}
        self.left = anyio.Event()
        self.received: list[Message] = []
        self.sent = 0
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request until the client has gone."""
        self.scope, self.receive, self.send = scope, receive, send
        try:
            await send(HEAD)
            if self._work is not None:
                await self._work(self)
            while not self.received or self.received[-1]["type"] != "http.disconnect":
                self.received.append(await receive())
        finally:
            self.left.set()

    async def send_event(self, data: bytes) -> None:
        await self.send(body(b"data: " + data + b"\n\n"))
        self.sent += 1


# The head


async def test_the_head_is_there_before_the_end() -> None:
    """Status and headers can be read while the application is still streaming."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert not probe.left.is_set()
        assert not stream.complete


async def test_an_exception_before_the_head_is_raised_instead_of_it() -> None:
    """What the application raises before it answers is what making the request raises."""

    async def app(*_: Any) -> None:
        msg = "before the head"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="before the head"):
        async with EventStreamClient(app).stream("/"):
            pytest.fail("there was no head")


async def test_an_application_that_does_not_answer_is_an_error() -> None:
    """Returning without a response is a RuntimeError that says so."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="returned without a response"):
        async with EventStreamClient(app).stream("/"):
            pytest.fail("there was no head")


async def test_a_late_head_is_waited_for() -> None:
    """The request is made when the head comes, however much the application does before."""
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
    """An event is handed over when it is complete, while the stream goes on."""

    async def work(probe: Probe) -> None:
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b"id: 7\nevent: chat\nda"))
        await anyio.wait_all_tasks_blocked()
        await probe.send(body(b"ta: x\n\n"))

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        assert await stream.next_event() == ("chat", "x", "7")


async def test_iterating_gives_every_event_until_the_end() -> None:
    """The iteration ends with the stream."""
    async with EventStreamClient(streaming(b"data: a\n\ndata: b\n\n", b"data: c\n\n")).stream("/") as stream:
        assert [event.data async for event in stream] == ["a", "b", "c"]
        assert stream.complete


async def test_no_next_event_after_the_end() -> None:
    """Asking for an event of a stream that has ended is an EOFError."""
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
async def test_patience_ends(wait: Callable[[EventStream], Awaitable[object]]) -> None:
    """Each wait for what does not come is a TimeoutError."""
    async with EventStreamClient(Probe()).stream("/") as stream:
        with pytest.raises(TimeoutError):
            await wait(stream)


async def test_read_gives_every_byte() -> None:
    """Reading goes to the end, and returns comments and unfinished lines as well."""
    async with EventStreamClient(streaming(b":\n", b"data: a\n\n", b"data: b")).stream("/") as stream:
        assert await stream.read() == b":\ndata: a\n\ndata: b"


async def test_received_waits_for_bytes() -> None:
    """What is no event can be waited for too, and is there at once the second time."""

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
    """While nothing comes, both are at rest, and what comes wakes both."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        async with anyio.create_task_group() as group:
            group.start_soon(stream.received, b"data: a")
            group.start_soon(stream.next_event)
            with anyio.fail_after(1):
                await anyio.wait_all_tasks_blocked()
            await probe.send_event(b"a")


async def test_a_stream_knows_what_a_browser_would_keep() -> None:
    """The last event id and the reconnection time are those received last."""
    async with EventStreamClient(streaming(b"id: 1\ndata: a\n\nretry: 50\n", b"id: 2\n\n")).stream("/") as stream:
        await stream.read()
        assert (stream.last_event_id, stream.retry) == ("2", 50)


async def test_a_position_is_kept_and_not_returned() -> None:
    """No page listens for `sse.position`, so a test is not given one; its id counts, and the content has it."""
    frame = b"id: 7\nevent: sse.position\ndata: {}\n\n"
    async with EventStreamClient(streaming(frame, b"data: a\n\n")).stream("/") as stream:
        assert await stream.next_event() == ("message", "a", "7")
        assert stream.content.startswith(frame)


async def test_every_other_event_is_returned() -> None:
    """The library's own as well: gaps, errors and the end."""
    names = ["sse.gap", "sse.error", "sse.end"]
    frames = [f"event: {name}\ndata: {{}}\n\n".encode() for name in names]
    async with EventStreamClient(streaming(*frames)).stream("/") as stream:
        assert [event.event async for event in stream] == names


async def test_an_exception_after_the_head_is_raised_when_everything_is_read() -> None:
    """The reader gets what was sent before, then what the application raised, once."""

    async def work(probe: Probe) -> None:
        await probe.send_event(b"a")
        msg = "after the head"
        raise ValueError(msg)

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        assert (await stream.next_event()).data == "a"
        with pytest.raises(ValueError, match="after the head"):
            await stream.next_event()
        assert not stream.complete


async def test_an_exception_that_nobody_has_read_is_raised_on_leaving() -> None:
    """What the application raises does not stay unseen."""

    async def work(_: Probe) -> None:
        msg = "unseen"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="unseen"):
        async with EventStreamClient(Probe(work)).stream("/") as stream:
            await stream.ended()


async def test_the_tests_own_exception_wins() -> None:
    """An exception of the block is not hidden by one of the application."""

    async def work(_: Probe) -> None:
        msg = "of the application"
        raise ValueError(msg)

    with pytest.raises(KeyError, match="of the test"):
        async with EventStreamClient(Probe(work)).stream("/") as stream:
            await stream.ended()
            raise KeyError("of the test")  # noqa: EM101, TRY003


# Slow and gone clients


async def test_a_stalled_client_makes_send_wait() -> None:
    """After stall() the application's next send does not return before the client has gone."""

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
    """As in a socket, only so many bytes fit between the application and a client that takes no event."""
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


async def test_a_reader_takes_an_event_that_comes_in_large_parts() -> None:
    """Whoever waits for an event reads, so that send does not wait for ever while the event is incomplete."""
    large = b"x" * 40_000
    async with EventStreamClient(streaming(b"data: ", large, large, large, b"\n\n")).stream("/") as stream:
        assert len((await stream.next_event(timeout=1)).data) == 3 * len(large)


async def test_a_body_that_is_no_event_stream_can_be_read() -> None:
    """Reading to the end takes any number of bytes, events or not."""
    large = b"x" * 40_000
    async with EventStreamClient(streaming(large, large, large)).stream("/") as stream:
        assert len(await stream.read(timeout=1)) == 3 * len(large)


async def test_disconnect_is_delivered() -> None:
    """The application receives its request, and http.disconnect when the client goes."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert [message["type"] for message in probe.received] == ["http.request"]
        stream.disconnect()
        await stream.ended()
    assert [message["type"] for message in probe.received] == ["http.request", "http.disconnect"]


async def test_leaving_disconnects_and_waits() -> None:
    """When the block is left the application has finished."""
    probe = Probe()
    async with EventStreamClient(probe).stream("/"):
        assert not probe.left.is_set()
    assert probe.left.is_set()


async def test_a_disconnect_is_received_when_the_response_has_ended() -> None:
    """As servers do, the client tells an application that goes on receiving that it is over."""

    async def work(probe: Probe) -> None:
        await probe.send(body(b"", more=False))

    async with EventStreamClient(Probe(work)).stream("/") as stream:
        await stream.read()
        await stream.ended()


async def test_an_application_that_does_not_leave_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores the disconnect has a time of grace, and then no more."""
    monkeypatch.setattr(testing, "GRACE_SECONDS", SOON)
    cancelled = anyio.Event()

    async def deaf(_: Scope, __: Receive, send: Send) -> None:
        await send(HEAD)
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with EventStreamClient(deaf).stream("/"):
        pass
    with anyio.fail_after(5):
        await cancelled.wait()


async def test_ended_includes_what_comes_after_the_last_byte() -> None:
    """The application's own end is waited for, not that of the body."""
    go_on = anyio.Event()

    async def work(probe: Probe) -> None:
        await probe.send(body(b"", more=False))
        await go_on.wait()

    probe = Probe(work)
    async with EventStreamClient(probe).stream("/") as stream:
        with pytest.raises(TimeoutError):
            await stream.ended(timeout=SOON)
        assert stream.complete
        go_on.set()
        await stream.ended()
        assert probe.left.is_set()


# The request


async def seen_by(client_headers: dict[str, str] | None = None, url: str = "/", **request: Any) -> Probe:
    """Make a request, and return what the application saw of it."""
    probe = Probe()
    async with EventStreamClient(probe, headers=client_headers).stream(url, **request):
        await anyio.wait_all_tasks_blocked()
    return probe


def header(probe: Probe, name: bytes) -> list[bytes]:
    return [value for key, value in probe.scope["headers"] if key == name]


async def test_a_request_is_that_of_a_browser() -> None:
    """Without options it is a GET of an event stream from testserver."""
    probe = await seen_by()
    assert (probe.scope["type"], probe.scope["method"], probe.scope["path"]) == ("http", "GET", "/")
    assert (header(probe, b"accept"), header(probe, b"host")) == ([b"text/event-stream"], [b"testserver"])
    assert header(probe, b"last-event-id") == []
    assert probe.received[0] == {"type": "http.request", "body": b"", "more_body": False}


async def test_method_and_body_are_sent() -> None:
    """Any method, and any bytes."""
    probe = await seen_by(method="POST", body=b"payload")
    assert probe.scope["method"] == "POST"
    assert probe.received[0]["body"] == b"payload"


async def test_headers_of_the_request_win_over_the_clients() -> None:
    """Both are sent, each name once."""
    probe = await seen_by({"accept": "a", "x-client": "c"}, headers={"accept": "b", "X-Request": "r"})
    assert (header(probe, b"accept"), header(probe, b"x-client")) == ([b"b"], [b"c"])
    assert header(probe, b"x-request") == [b"r"]


@pytest.mark.parametrize("last_event_id", ["7", "", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
async def test_the_last_event_id_is_sent_as_its_header(last_event_id: str) -> None:
    """As UTF-8, which is how browsers send it."""
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
    """The URL's own query stays in front."""
    assert (await seen_by(url=url, params=params)).scope["query_string"] == query


async def test_the_path_is_decoded_and_the_raw_path_is_not() -> None:
    """As the ASGI specification says of percent-encoded paths."""
    probe = await seen_by(url="/a%20b/%C3%A9?x=%20")
    assert probe.scope["path"] == "/a b/\N{LATIN SMALL LETTER E WITH ACUTE}"
    assert probe.scope["raw_path"] == b"/a%20b/%C3%A9"


async def test_the_scope_can_be_overridden() -> None:
    """Further keywords are put over the scope."""
    probe = await seen_by(root_path="/prefix", scheme="https")
    assert (probe.scope["root_path"], probe.scope["scheme"]) == ("/prefix", "https")


async def test_json_is_sent_as_the_body() -> None:
    """With its type, unless a header says another."""
    probe = await seen_by(method="POST", json={"a": [1, "é"]})
    assert probe.received[0]["body"] == '{"a":[1,"é"]}'.encode()
    assert header(probe, b"content-type") == [b"application/json"]
    probe = await seen_by(method="POST", json=[], headers={"Content-Type": "application/x-json"})
    assert (probe.received[0]["body"], header(probe, b"content-type")) == (b"[]", [b"application/x-json"])


async def test_a_request_has_one_body() -> None:
    """Bytes and JSON at once are refused."""
    with pytest.raises(TypeError, match="a body= or json=, not both"):
        await seen_by(body=b"x", json={})


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("data", "known: app, .*body, .*json, .*"),
        ("root_pth", r"did you mean root_path=\?"),
        ("jsn", r"did you mean json=\?"),
        ("timeout", "known:"),
    ],
)
async def test_options_that_there_are_not_are_refused(option: str, advice: str) -> None:
    """They are not put into the scope; the error says which are meant, or which there are."""
    options: dict[str, Any] = {option: "x"}
    with pytest.raises(TypeError, match=f"EventStreamClient.stream has no option {option}=: {advice}"):
        await seen_by(**options)


# The lifespan


class Living:
    """An application that keeps a note of its life, and may fail in it."""

    def __init__(self, fail: str = "") -> None:
        self.fail = fail
        self.notes: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the lifespan or a request."""
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
    """Startup is over before the first request, and shutdown when the context is left."""
    app = Living()
    async with EventStreamClient(app) as client:
        assert app.notes == ["startup"]
        async with client.stream("/") as stream:
            await stream.read()
    assert app.notes == ["startup", "request with {'lived': True}", "shutdown"]


async def test_each_request_has_a_copy_of_the_state() -> None:
    """What the lifespan put into the state is in every request's scope, and what a request puts there is not."""
    app = Living()
    async with EventStreamClient(app) as client:
        for _ in range(2):
            async with client.stream("/") as stream:
                await stream.read()
    assert app.notes[1] == app.notes[2] == "request with {'lived': True}"


async def test_without_a_context_there_is_no_lifespan() -> None:
    """A request alone starts nothing, and its state is empty."""
    app = Living()
    async with EventStreamClient(app).stream("/") as stream:
        await stream.read()
    assert app.notes == ["request with {}"]


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_is_raised_with_its_message(what: str) -> None:
    """What the application says of its failure is a RuntimeError."""
    with pytest.raises(RuntimeError, match=f"no {what} today"):
        async with EventStreamClient(Living(f"refuse {what}")):
            pass


@pytest.mark.parametrize("what", ["startup", "shutdown"])
async def test_a_refusal_without_a_message_is_raised_too(what: str) -> None:
    """Then the RuntimeError has the type of the message."""
    with pytest.raises(RuntimeError, match=rf"^lifespan\.{what}\.failed$"):
        async with EventStreamClient(Living(f"refuse {what} silently")):
            pass


@pytest.mark.parametrize(
    ("fail", "before"),
    [("raise in startup", "startup"), ("raise after startup", "shutdown"), ("raise in shutdown", "shutdown")],
)
async def test_an_exception_in_the_lifespan_is_the_cause(fail: str, before: str) -> None:
    """A lifespan that breaks off is a RuntimeError that says when, with the application's exception as its cause."""
    with pytest.raises(RuntimeError, match=f"ended its lifespan before its {before}") as caught:
        async with EventStreamClient(Living(fail)):
            await anyio.wait_all_tasks_blocked()
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_application_without_a_lifespan_says_so() -> None:
    """Returning from the lifespan at once is a RuntimeError too."""

    async def app(*_: Any) -> None:
        await anyio.lowlevel.checkpoint()

    with pytest.raises(RuntimeError, match="ended its lifespan before its startup"):
        async with EventStreamClient(app):
            pytest.fail("there was no startup")


async def test_the_application_is_stopped_when_the_test_fails() -> None:
    """An exception in the context is raised after a proper shutdown."""
    app = Living()
    with pytest.raises(KeyError):
        async with EventStreamClient(app):
            raise KeyError
    assert app.notes == ["startup", "shutdown"]


async def test_a_client_can_be_a_context_again() -> None:
    """Each context is one life of the application."""
    app = Living()
    client = EventStreamClient(app)
    for _ in range(2):
        async with client:
            pass
    assert app.notes == ["startup", "shutdown"] * 2
