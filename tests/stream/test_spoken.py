"""Streams in a dialect: iterables and subscriptions, and every way in which a stream can end."""

from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from mount.helpers import mounted
from sse_asgi import ConnectionLimit, EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._stream.spoken import PassedOn, check_dialect, last_words
from sse_asgi.dialects import AI_SDK, ANTHROPIC, OPENAI
from sse_asgi.testing import EventStreamClient
from stream.foreigners import SCOPE

pytestmark = pytest.mark.anyio

DONE = b"data: [DONE]\n\n"
PART = {"type": "part"}
FRAME = b'data: {"type":"part"}\n\n'


def serve(content: Callable[[], Any], **options: Any) -> EventStreamClient:
    """Make a client of an app that answers every request with this content in the AI SDK's dialect."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(content(), **{"dialect": AI_SDK, **options})(scope, receive, send)

    return EventStreamClient(app)


async def read(content: Callable[[], Any], **options: Any) -> bytes:
    """Return the whole stream."""
    async with serve(content, **options).stream("/") as stream:
        return await stream.read()


async def published(hub: Hub, channel: str, data: Any) -> str:
    return await hub.publish(channel, data) or ""


def said(text: str) -> bytes:
    return b'data: {"type":"error","errorText":"%b"}\n\n' % text.encode() + DONE


FAILED = said("The server failed while it wrote this answer.")
STOPPED = said("The server stopped before this answer was complete. Try again.")


async def parts(*more: Any, error: Exception | None = None, last: bool = True) -> AsyncIterator[Any]:
    """Yield a part, wait until it is sent, and go on."""
    yield PART
    await anyio.sleep(0.01)
    for item in more:
        yield item
    if error is not None:
        raise error
    if not last:
        await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("finished", DONE),
        ("failed", FAILED),
        ("cancelled", said("This answer was stopped.")),
        ("lost", said("The server that wrote this answer has failed. Try again.")),
    ],
)
async def test_a_run_ends_in_the_words_of_the_dialect(state: Any, words: bytes) -> None:
    """Each follower gets them, live or later."""
    async with Hub() as hub:
        run = await hub.start_run("a", lambda: parts(last=False))
        await anyio.sleep(0.05)

        async def end() -> None:
            await anyio.sleep(0.02)
            await hub.backend.end_run("a", state)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            live = await read(lambda: run)
        for body in (live, await read(lambda: run)):
            lines = [line for line in body.split(b"\n") if not line.startswith((b"id: ", b":"))]
            assert b"\n".join(lines) == FRAME + words


# Iterables


async def test_items_and_the_end_are_the_dialects() -> None:
    """None is skipped; an EventSource's GET gets no `sse.end`."""
    async with serve(lambda: parts(None, PART)).stream("/") as stream:
        assert await stream.read() == FRAME * 2 + DONE
    assert stream.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert stream.headers["content-type"] == "text/event-stream"


async def test_the_callers_headers_win_over_the_dialects() -> None:
    """Whatever their case."""
    async with serve(list, headers={"X-Vercel-AI-UI-Message-Stream": "v2"}).stream("/") as stream:
        assert await stream.read() == DONE
    assert stream.headers.getlist("x-vercel-ai-ui-message-stream") == ["v2"]


async def test_an_empty_stream_is_the_end() -> None:
    """Which may be nothing at all, so that a comment starts the body."""
    assert await read(list) == DONE
    assert await read(list, dialect=ANTHROPIC) == b":\n"


async def test_an_error_is_said_and_raised() -> None:
    """After everything that was yielded."""
    async with serve(lambda: parts(PART, error=LookupError("secret"))).stream("/") as stream:
        await stream.ended()
        with pytest.raises(LookupError, match="secret"):
            stream.check()
    assert stream.content == FRAME * 2 + FAILED


async def test_an_item_that_is_refused_later_is_an_error() -> None:
    """The same, with the advice for the log."""
    async with serve(lambda: parts("text of a model")).stream("/") as stream:
        await stream.ended()
        with pytest.raises(ValueError, match="an item of AI_SDK must be a JSON object"):
            stream.check()
    assert stream.content == FRAME + FAILED


@pytest.mark.parametrize(("item", "error"), [("[DONE]", ValueError), (5, TypeError)])
async def test_a_first_item_that_is_refused_is_an_error_response(item: Any, error: type[Exception]) -> None:
    """Nothing has been sent."""
    with pytest.raises(error, match="must be a JSON object"):
        async with serve(lambda: [item, PART]).stream("/"):
            pass


async def test_an_exception_before_the_first_item_keeps_its_status() -> None:
    """As without a dialect."""

    async def refused() -> AsyncIterator[Any]:
        raise HTTPException(402)
        yield

    with pytest.raises(HTTPException) as caught:
        async with serve(refused).stream("/"):
            pass
    assert caught.value.status_code == 402


async def test_the_end_of_a_lifetime_is_an_interruption() -> None:
    """Said by the dialect, without `retry:`."""
    content = await read(lambda: parts(last=False), max_lifetime=0.05)
    assert content == FRAME + said("This answer took longer than the server allows.")


async def test_a_stream_that_a_limit_refuses_is_an_interruption() -> None:
    """An empty one would be taken for an answer."""
    limit = ConnectionLimit(1)
    app = EventSourceMiddleware(serve(lambda: parts(last=False))._app, max_connections=limit)
    client = EventStreamClient(app)
    async with client.stream("/") as first:
        await first.received(FRAME)
        async with client.stream("/") as second:
            assert await second.read() == said("The server has too many open streams. Try again later.")


# Last words


class Mute:
    """A dialect that finds no words."""

    headers: Mapping[str, str] = {}

    def item(self, value: Any) -> bytes:
        return b"" if value == PART else b"data: x\n\n"

    def failed(self, error: Exception) -> bytes:
        raise NotImplementedError

    interrupted = failed

    def end(self) -> bytes:
        raise NotImplementedError


async def test_a_dialect_that_fails_to_end_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The body ends all the same; an item without bytes is skipped."""
    assert await read(lambda: [PART, 1], dialect=Mute()) == b"data: x\n\n"
    assert "the dialect of the stream GET / failed to end it" in caplog.text


def test_a_client_that_has_gone_is_told_nothing() -> None:
    """There are words for reasons that a client can hear of."""
    assert last_words(OPENAI, "client", None, SCOPE) == b""
    assert last_words(OPENAI, "error", None, SCOPE) == b""


def test_a_stream_that_is_passed_on_has_its_own_end() -> None:
    """The dialect's follows an error or an interruption."""
    dialect = PassedOn(OPENAI)
    assert dialect.end() == b""
    assert dialect.failed(ValueError()) == OPENAI.failed(ValueError()) + DONE
    assert dialect.interrupted("gap") == OPENAI.interrupted("gap") + DONE
    assert dialect.item(PART) == OPENAI.item(PART)
    assert PassedOn(AI_SDK).headers == AI_SDK.headers


# Options


@pytest.mark.parametrize(
    ("dialect", "lacks"),
    [("ai", "no headers, item, failed"), (SimpleNamespace(item=1, end=1), "no headers, failed"), (Mute, "a class")],
)
async def test_another_dialect_is_refused(dialect: Any, lacks: str) -> None:
    """With the members that it lacks."""
    with pytest.raises(TypeError, match=f"dialect must be one of sse_asgi.dialects or .*{lacks}"):
        EventSourceResponse([], dialect=dialect)


def test_no_dialect_is_accepted() -> None:
    """It is the default."""
    check_dialect(None)


async def test_on_error_and_a_dialect_exclude_each_other() -> None:
    """There are two answers to one question."""
    with pytest.raises(ValueError, match="on_error and dialect exclude each other"):
        EventSourceResponse([], dialect=AI_SDK, on_error=lambda _: None)


# Subscriptions


async def test_a_subscription_gives_its_events_with_their_ids() -> None:
    """No position, no join or leave; the head goes out at once, and only `end("finished")` finishes it."""
    async with Hub() as hub:
        subscription = hub.subscribe("a", identity="me", presence=True, initial=[PART])
        async with serve(lambda: subscription).stream("/") as stream:
            await stream.received(FRAME)
            position = await published(hub, "a", ServerSentEvent(PART, event="named"))
            await stream.received(b"id: %b\n" % position.encode() + FRAME)
            async with hub.subscribe("a", identity="you", presence=True):
                pass
            last = await published(hub, "a", PART)
            await stream.received(last.encode())
            subscription.end("finished")
            await stream.read()
    ids = b"".join(b"id: %b\n" % one.encode() + FRAME for one in (position, last))
    assert stream.content.removeprefix(b":\n") == FRAME + ids + DONE


async def test_a_subscription_in_a_dialect_resumes() -> None:
    """After the request's Last-Event-ID."""
    async with Hub() as hub:
        first = await published(hub, "a", PART)
        second = await published(hub, "a", PART)
        subscription = hub.subscribe("a")
        async with serve(lambda: subscription).stream("/", last_event_id=first) as stream:
            await stream.received(FRAME)
            subscription.end("revoked")
            content = await stream.read()
    assert content.removeprefix(b":\n") == b"id: %b\n" % second.encode() + FRAME + said(
        "The permission to read this answer has ended."
    )


async def test_a_drained_hub_interrupts() -> None:
    """A subscription that ends with its hub is not finished."""
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await stream.received(b":\n")
        await hub.drain()
        assert await stream.read() == b":\n" + STOPPED


async def test_a_gap_interrupts() -> None:
    """A protocol of its own cannot say that a part is missing."""
    async with Hub(MemoryBackend(history_size=1)) as hub:
        first = await hub.publish("a", PART)
        for _ in range(3):
            await hub.publish("a", PART)
        response = EventSourceResponse(hub.subscribe("a", last_event_id=first), dialect=AI_SDK)
        async with EventStreamClient(response).stream("/") as stream:
            content = await stream.read()
        assert content.removeprefix(b":\n") == said("A part of this answer was lost. Try again.")
        assert response.reason == "gap"


async def test_a_slow_reader_is_interrupted() -> None:
    """Where the rule is to close."""
    async with Hub() as hub:
        subscription = hub.subscribe("a", buffer_size=1, overflow="close")
        async with serve(lambda: subscription).stream("/") as stream:
            await stream.received(b":\n")
            stream.stall()
            for _ in range(5):
                await hub.publish("a", {"type": "x" * 70_000})
            stream._reading = True
            stream._notify()
            content = await stream.read()
    assert content.endswith(said("This answer was read too slowly."))


async def test_a_published_event_that_is_no_item_is_an_error() -> None:
    """The text of a publisher is refused as any other."""
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await stream.received(b":\n")
        await hub.publish("a", "[DONE]")
        await stream.ended()
        with pytest.raises(ValueError, match="must be a JSON object"):
            stream.check()
        assert stream.content == b":\n" + FAILED


async def test_a_client_that_goes_leaves_its_channels() -> None:
    """The subscription is left as by an application's own `async with`."""
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await stream.received(b":\n")
        assert hub.stats().connections == 1
        stream.disconnect()
        await stream.ended()
        assert hub.stats().connections == 0


async def test_a_mounted_app_speaks_a_dialect() -> None:
    """As an option of its responses; `encoded` is not one."""
    async with mounted(dialect=OPENAI, channels="*") as (hub, client), client.stream("/events/?channel=a") as stream:
        await stream.received(b":\n")
        identity = await published(hub, "a", {"a": 1})
        await stream.received(b'id: %b\ndata: {"a":1}\n\n' % identity.encode())
    with pytest.raises(TypeError, match="has no option encoded="):
        async with mounted(encoded=True):
            pass


async def test_an_event_may_end_a_subscription_in_a_dialect() -> None:
    """The dialect's own end follows it, and no word of the library's."""
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a", until="done"))
        async with client.stream("/") as stream:
            await published(hub, "a", PART)
            last = await hub.publish("a", PART, event="done")
            await published(hub, "a", PART)
            content = await stream.read()
        assert content.count(FRAME[6:]) == 2
        assert content.endswith(DONE)
        assert b"sse." not in content
        async with client.stream("/", last_event_id=last) as again:
            assert (await again.read()).removeprefix(b":\n") == DONE
