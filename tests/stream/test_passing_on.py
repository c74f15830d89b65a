"""Streams that are passed on with `encoded=True`: byte for byte, and the library's own words between frames only."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import datastar_py
import pytest
from ag_ui.core import RunStartedEvent
from ag_ui.encoder import EventEncoder
from starlette.types import Receive, Scope, Send

from sse_asgi import EventSourceResponse, Hub, ServerSentEvent
from sse_asgi.dialects import OPENAI
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio

BODY = b": hello\r\nid: 7\r\nevent: e\r\ndata: \xe2\x82\xac\r\n\r\ndata: a\rdata: b\r\r:\n\ndata: [DONE]\n\n"
FINAL = b'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'
ERROR = b"event: sse.error\ndata: {}\n\n"


def serve(content: Callable[[], Any], **options: Any) -> EventStreamClient:
    """Make a client of an app that passes this content on."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(content(), encoded=True, **options)(scope, receive, send)

    return EventStreamClient(app)


async def read(chunks: list[Any], method: str = "POST", **options: Any) -> bytes:
    """Return the whole stream."""
    async with serve(lambda: chunks, **options).stream("/", method=method) as stream:
        return await stream.read()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_a_body_is_passed_on_byte_for_byte(size: int) -> None:
    """Comments, ids, all line ends, and letters that are cut."""
    chunks = [BODY[start : start + size] for start in range(0, len(BODY), size)]
    assert await read(chunks) == BODY
    assert await read(chunks, dialect=OPENAI) == BODY


async def test_the_end_comes_after_it() -> None:
    """For an EventSource, as of any iterable; a dialect has its end in the body."""
    assert await read([BODY], "GET") == BODY + FINAL
    assert await read([BODY], "GET", dialect=OPENAI) == BODY


async def test_frames_of_other_libraries_are_passed_on() -> None:
    """ag-ui-protocol gives text, Datastar a str of its own class."""
    event = EventEncoder().encode(RunStartedEvent(thread_id="1", run_id="2"))
    datastar = datastar_py.ServerSentEventGenerator.merge_fragments("<p>é</p>")
    assert await read([event, datastar]) == (event + datastar).encode()


async def test_pings_are_between_frames() -> None:
    """While a frame is incomplete as well."""

    async def slowly() -> AsyncIterator[bytes]:
        for chunk in (b"data: a\n\nda", b"ta: b\n", b"\ndata: c\r\n\r", b"\n"):
            yield chunk
            await anyio.sleep(0.03)

    async with serve(slowly, ping_interval=0.01).stream("/", method="POST") as stream:
        content = await stream.read()
    assert content.replace(b":\n", b"") == b"data: a\n\ndata: b\n\ndata: c\r\n\r\n".replace(b":\n", b"")
    assert b"data: a\n\n:\n" in content
    assert b"data: b\n\n:\n" in content


@pytest.mark.parametrize("item", [5, ServerSentEvent("x"), {"data": "x"}])
async def test_a_first_chunk_of_another_type_is_an_error_response(item: Any) -> None:
    """Nothing has been sent."""
    with pytest.raises(TypeError, match="a chunk must be bytes or str"):
        await read([item])


async def failing(last: Any) -> AsyncIterator[Any]:
    yield b"data: a\n\n"
    await anyio.sleep(0.01)
    yield b"data: b"
    if isinstance(last, Exception):
        raise last
    yield last


@pytest.mark.parametrize("last", [5, b"\n", ValueError("the upstream broke off")])
async def test_a_later_failure_is_an_error_after_the_last_frame(last: Any) -> None:
    """A chunk of another type, an unfinished frame, and an upstream that fails."""
    for options, words in (({}, ERROR), ({"dialect": OPENAI}, OPENAI.failed(ValueError()) + OPENAI.end())):
        async with serve(lambda: failing(last), **options).stream("/", method="POST") as stream:
            await stream.ended()
            with pytest.raises((TypeError, ValueError), match=r"must be bytes or str|must end after|broke off"):
                stream.check()
        content, _, retry = stream.content.partition(b"retry: ")
        assert content == b"data: a\n\n" + words
        assert bool(retry) == (not options)


async def test_an_interruption_is_said_after_the_last_frame() -> None:
    """In the middle of another one; the dialect's end follows."""

    async def endless() -> AsyncIterator[bytes]:
        yield b"data: a\n\ndata: b"
        await anyio.sleep_forever()

    async with serve(endless, max_lifetime=0.05, dialect=OPENAI).stream("/", method="POST") as stream:
        assert await stream.read() == b"data: a\n\n" + OPENAI.interrupted("lifetime") + OPENAI.end()
    async with serve(endless, max_lifetime=0.05).stream("/", method="POST") as stream:
        assert (await stream.read()).startswith(b"data: a\n\nretry: ")


async def test_a_client_that_goes_closes_the_upstream() -> None:
    """By its `aclose()`, in the task that read it."""
    closed: list[int] = []

    class Upstream:
        def __aiter__(self) -> "Upstream":
            return self

        async def __anext__(self) -> bytes:
            if closed:
                raise StopAsyncIteration
            await anyio.sleep(0.01)
            return b"data: a\n\n"

        async def aclose(self) -> None:
            closed.append(1)

    async with serve(Upstream).stream("/", method="POST") as stream:
        await stream.received(b"data: a")
        stream.disconnect()
        await stream.ended()
    assert closed == [1]


async def test_a_subscription_has_no_chunks() -> None:
    """It is refused when the response is made."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="encoded=True is for chunks of a stream"):
            EventSourceResponse(hub.subscribe("a"), encoded=True)
