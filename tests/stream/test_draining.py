"""Iterables that go on to their own end after the server was told to stop."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient
from stream.foreigners import application
from stream.helpers import Job, serve, shut_down

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("notice")]


async def slowly() -> AsyncIterator[str]:
    for number in range(5):
        yield str(number)
        await anyio.sleep(0.05)


def foreign(count: int) -> Any:
    def endpoint(_: Request) -> StreamingResponse:
        async def frames() -> AsyncIterator[str]:
            for number in range(count):
                yield f"data: {number}\n\n"
                await anyio.sleep(0.05)

        return StreamingResponse(frames(), media_type="text/event-stream")

    return endpoint


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", ["response", "middleware", "foreign"])
async def test_an_answer_goes_on_to_its_end(where: str, method: str) -> None:
    """The option is the response's, or the middleware's, which is the default of its application."""
    app: Any
    if where == "response":
        app = EventSourceResponse(slowly(), drain_timeout=30)
    elif where == "middleware":
        app = EventSourceMiddleware(EventSourceResponse(slowly()), drain_timeout=30)
    else:
        app = application(None, foreign(5), drain_timeout=30)
    async with EventStreamClient(app).stream("/", method=method) as stream:
        await stream.next_event()
        await shut_down()
        await stream.read()
        assert stream.complete
    assert b"data: 4" in stream.content
    assert b"retry: " not in stream.content


@pytest.mark.parametrize("again", ["timeout", "signal"])
@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
async def test_it_is_cut_off_in_the_end(ours: bool, again: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001 - a table
    """At the timeout, or when a signal comes again. Then it looks as if there was no `drain_timeout`."""
    seconds = 0.3 if again == "timeout" else 30
    app: Any = EventSourceMiddleware(EventSourceResponse(Job().run()), drain_timeout=seconds)
    if not ours:
        app = application(None, foreign(1000), drain_timeout=seconds)
    async with EventStreamClient(app).stream("/", method="POST") as stream:
        await stream.next_event()
        await shut_down()
        await anyio.sleep(0.1)
        assert b"retry: " not in stream.content
        if again == "signal":
            monkeypatch.setattr("sse_asgi._servers.shutdown.SAME_SECONDS", 0.0)
            current_notice().hear_signal()
        await stream.ended(2)
    assert b"retry: " in stream.content
    assert not stream.complete


async def test_zero_of_a_response_wins() -> None:
    """The response is cut off at once, whatever the middleware's default is."""
    app = EventSourceMiddleware(EventSourceResponse(Job().run(), drain_timeout=0), drain_timeout=30)
    async with EventStreamClient(app).stream("/") as stream:
        await stream.next_event()
        await shut_down()
        await stream.ended(2)
        assert b"retry: " in stream.content


async def test_a_subscription_ends_at_once() -> None:
    """Its reader loses nothing when it reconnects."""
    async with Hub() as hub:
        async with serve(lambda: hub.subscribe("a"), drain_timeout=30).stream("/") as stream:
            await stream.received(b"\n\n")
            await shut_down()
            await stream.ended(2)
            assert b"retry: " in stream.content


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "foreign"])
async def test_a_stream_that_begins_then_is_refused(ours: bool) -> None:  # noqa: FBT001 - a table
    """An EventSource gets an empty stream with a `retry:`, any other client a 503."""
    job = Job()
    app: Any = EventSourceMiddleware(EventSourceResponse(job.run()), drain_timeout=30)
    if not ours:
        app = application(None, foreign(1000), drain_timeout=30)
    current_notice().watch()
    await shut_down()
    client = EventStreamClient(app)
    async with client.stream("/") as stream:
        await stream.ended(2)
        assert (stream.status_code, stream.complete) == (200, True)
        assert b"retry: " in stream.content
    async with client.stream("/", method="POST") as stream:
        await stream.ended(2)
        assert (stream.status_code, stream.content, stream.complete) == (503, b"", True)
    assert job.log == []
    current_notice().unwatch()


async def test_a_stream_that_has_ended_is_not_drained() -> None:
    """An application may go on after its stream. Its alarm is not set again."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        await send(head)
        await send({"type": "http.response.body", "body": b"data: x\n\n"})
        await shut_down()
        await anyio.sleep(0.1)
        done.append(1)

    done: list[int] = []
    async with EventStreamClient(EventSourceMiddleware(app, drain_timeout=0.05)).stream("/") as stream:
        await stream.ended(2)
        assert stream.content == b"data: x\n\n"
    assert done == [1]


@pytest.mark.parametrize("value", [-1, float("inf"), "5"])
async def test_a_drain_timeout_is_a_number_of_seconds(value: Any) -> None:
    """The message names the option and the value."""
    with pytest.raises(ValueError, match=r"drain_timeout must be a finite number of seconds"):
        EventSourceResponse((), drain_timeout=value)
    with pytest.raises(ValueError, match=r"drain_timeout must be a finite number of seconds"):
        EventSourceMiddleware(EventSourceResponse(()), drain_timeout=value)
