"""EventStream: the head, the events and the end of a response; test_slow_clients.py has slow clients."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Receive, Scope, Send

from sse_asgi.testing import EventStream, EventStreamClient
from sse_asgi.testing._stream import UNREAD_LIMIT
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
    large = b"x" * UNREAD_LIMIT

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


async def test_a_body_can_be_read_as_text_and_as_json() -> None:
    """`text` is what was received so far, and json() its value; a stream of events has none."""
    async with EventStreamClient(streaming('{"a":"é"}'.encode())).stream("/") as stream:
        await stream.read()
        assert (stream.text, stream.json()) == ('{"a":"é"}', {"a": "é"})
    async with EventStreamClient(streaming(b"data: \xff\n\n")).stream("/") as stream:
        await stream.read()
        assert stream.text == "data: \N{REPLACEMENT CHARACTER}\n\n"
        with pytest.raises(ValueError, match="invalid start byte"):
            stream.json()
