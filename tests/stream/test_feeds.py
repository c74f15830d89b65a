"""IterableFeed: items become frames, iterables are closed, and are pulled only while no send is pending."""

import asyncio
import contextlib
import contextvars
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceResponse, ServerSentEvent
from sse_asgi._loop.running import checkpoint
from sse_asgi._loop.wakeup import new_wakeup
from sse_asgi._stream.feeds import IterableFeed
from sse_asgi.testing import EventStreamClient
from stream.helpers import (
    FINAL,
    AsyncRows,
    Rows,
    Server,
    SyncRows,
    answer_without_the_content,
    contents,
    directly,
    numbers,
    serve,
)

pytestmark = pytest.mark.anyio


# Items


async def test_items_follow_the_data_rule() -> None:
    """Text, bytes, JSON and events become frames; None is skipped."""

    async def items() -> AsyncIterator[Any]:
        for item in ("a", b"b", {"c": 1}, None, ServerSentEvent("d", id="1"), [None]):
            yield item

    async with serve(items).stream("/") as stream:
        events = [(event.data, event.id) async for event in stream]
    assert events[:-1] == [("a", ""), ("b", ""), ('{"c":1}', ""), ("d", "1"), ("[null]", "1")]
    assert events[-1] == ('{"state":"finished"}', "sse.end")


class Countdown:
    """An async iterator that is not a generator."""

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
    """Lists, tuples, sync iterators, async generators and async iterators are streamed."""
    async with serve(make).stream("/") as stream:
        assert await contents(stream) == ["0", "1"]


async def test_an_item_that_cannot_be_written_is_the_sources_error() -> None:
    """It is raised, and the generator is closed."""
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


async def test_an_empty_iterable_is_an_empty_stream() -> None:
    """The answer is 200 with the final id."""
    async with serve(list).stream("/") as stream:
        assert await stream.read() == FINAL
        assert stream.status_code == 200


async def test_context_variables_of_the_request_are_visible() -> None:
    """The iterable runs in a copy of the request's context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def content() -> AsyncIterator[str]:
        yield variable.get()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        variable.set("request")
        await EventSourceResponse(content())(scope, receive, send)

    async with EventStreamClient(app).stream("/") as stream:
        assert (await stream.next_event()).data == "request"


# Closing


@pytest.mark.parametrize("kind", [AsyncRows, SyncRows])
async def test_a_failing_close_is_logged_and_hides_nothing(kind: type[Rows], caplog: pytest.LogCaptureFixture) -> None:
    """The answer is complete, and the background task runs."""
    rows = kind(fails=True)
    assert (await answer_without_the_content("HEAD", rows))[1] == ["background"]
    assert f"a {kind.__name__} that was not streamed could not be closed" in caplog.text


async def test_a_close_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """The answer is complete after `cleanup_timeout`, and that is logged."""
    rows = AsyncRows(hangs=True)
    assert (await answer_without_the_content("HEAD", rows, cleanup_timeout=0.01))[1] == ["background"]
    assert "took more than 0.01 s to close" in caplog.text


@pytest.mark.parametrize("end", ["finished", "client", "error"])
async def test_an_async_iterator_is_closed_however_its_stream_ends(end: str) -> None:
    """An iterator with `aclose()` is closed in the task that iterated it."""
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
    """A producer that sends to it gets an exception after the client has disconnected."""
    sending, receiving = anyio.create_memory_object_stream[str](1)
    async with sending, serve(lambda: receiving).stream("/") as stream:
        await sending.send("x")
        await stream.received(b"data: x")
        stream.disconnect()
        await stream.ended()
        with pytest.raises(anyio.BrokenResourceError):
            await sending.send("y")


async def test_a_source_suspended_at_yield_is_closed_in_its_task() -> None:
    """A generator whose send is pending is closed by the task that ran it, in its context."""
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


# Pulling and joining


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
    """Items before a pause do not wait for later items."""
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
    """Joining ends after some milliseconds, and other tasks get a turn."""
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
    """Items without a pause make few bodies, none larger than that, except for a single larger event."""
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


# Sync iterables


async def test_a_sync_generator_runs_in_a_thread_of_its_own() -> None:
    """It runs in one thread from first to last, which is not the event loop's."""
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
    """It is closed in its thread at its next yield."""
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


# Sending from the iterable's own task


async def paused_numbers(count: int, pause: Callable[[int], Awaitable[Any] | None]) -> AsyncIterator[str]:
    for number in range(count):
        waits = pause(number)
        if waits is not None:
            await waits
        yield str(number)


async def streamed(server: Server, count: int, pause: Callable[[int], Awaitable[Any] | None]) -> None:
    """Stream `count` numbers; each must arrive, in order."""
    response = EventSourceResponse(paused_numbers(count, pause), reconnect_after_end=True)
    async with server.serve(response):
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == [str(number) for number in range(count)]


@directly
async def test_a_generator_that_waits_sends_its_events_itself() -> None:
    """Each event is sent without a switch to the connection's task, except the first, which comes with the head."""
    server = Server()
    await streamed(server, 10, lambda _: asyncio.sleep(0.001))
    assert sum(task is server.serving for task in server.tasks) <= 2
    assert sum(body.startswith(b"data") for body in server.bodies) == 10


@directly
async def test_generators_of_the_same_turn_are_in_nobodys_way() -> None:
    """Generators do not share the limit of one event in a turn: each sends its events itself."""
    servers = [Server() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(streamed, server, 10, lambda _: asyncio.sleep(0))
    for server in servers:
        assert sum(task is server.serving for task in server.tasks) <= 2
        assert sum(body.startswith(b"data") for body in server.bodies) >= 9


@directly
async def test_a_generator_that_does_not_wait_is_joined() -> None:
    """Its events make a few bodies, not one body each."""
    server = Server()
    await streamed(server, 500, lambda _: None)
    assert len(server.bodies) < 100


@directly
async def test_a_generator_is_not_pulled_while_a_send_waits() -> None:
    """This holds for a send that the generator's own task began too."""
    pulled: list[int] = []
    free = asyncio.Event()

    def pause(number: int) -> Awaitable[None]:
        pulled.append(number)
        return asyncio.sleep(0)

    server = Server()
    response = EventSourceResponse(paused_numbers(5, pause), reconnect_after_end=True)
    async with server.serve(response):
        server.waits = free.wait
        seen = len(pulled)
        await anyio.wait_all_tasks_blocked()
        assert len(pulled) <= seen + 1
        free.set()
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == ["0", "1", "2", "3", "4"]


@directly
@pytest.mark.parametrize("seed", range(12))
async def test_generators_and_servers_that_wait_now_and_then(seed: int) -> None:
    """All events are sent in order, whichever side waits."""
    chance = random.Random(seed)

    def sometimes(_: int = 0) -> Awaitable[None] | None:
        return asyncio.sleep(chance.choice((0, 0, 0.001))) if chance.random() < 0.5 else None

    await streamed(Server(sometimes), 200, sometimes)


# A feed by itself


async def taken(feed: IterableFeed) -> bytes:
    """Run a feed, and return all its bytes."""
    body = b""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        with anyio.fail_after(5):
            while feed.ended is None:
                body += feed.take()
                await checkpoint()
    return body + feed.take()


async def test_a_feed_gives_the_frames_of_its_iterable() -> None:
    """It says when it has begun and why it has ended, and pings with a comment."""
    feed = IterableFeed(numbers(3), 1.0)
    feed.attach(new_wakeup(), None)
    assert (feed.begun, feed.needs_run, feed.ended) == (False, True, None)
    assert await taken(feed) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    assert (feed.begun, feed.needs_run, feed.ended) == (True, False, "finished")
    assert feed.ping() == b":\n"
    assert feed.joined
    await feed.close()  # nothing is left


async def test_the_rest_of_a_framing_is_sent_last() -> None:
    """Lines after the last frame of a stream that is passed on."""
    async with serve(lambda: [b"data: x\n\nretry: 5\n"], encoded=True).stream("/", method="POST") as stream:
        assert await stream.read() == b"data: x\n\nretry: 5\n"


async def test_pending_frames_are_taken_without_the_task_of_the_connection() -> None:
    """As one body; the iterable goes on when the writer asks again."""
    feed, news = IterableFeed(numbers(1), 1.0), new_wakeup()
    feed.attach(news, None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await news
        assert (feed.take_plain(), feed.take_plain()) == (b"data: 0\n\n", b"")
        assert feed.ended is None
        assert feed.take() == b""
    assert feed.ended == "finished"


async def test_a_stopped_feed_breaks_its_iterable_off() -> None:
    """At its next item, which is not sent."""
    log: list[str] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x"
        finally:
            log.append("closed")

    feed, news = IterableFeed(endless(), 1.0), new_wakeup()
    feed.attach(news, None)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(feed.run)
        await news
        feed.stop()
        assert (feed.take(), feed.take()) == (b"data: x\n\n", b"")
    assert (feed.ended, feed.take(), log) == (None, b"", ["closed"])


async def test_a_disconnect_while_the_content_reads_the_body_ends_the_feed() -> None:
    """It is the client's end, not an error."""

    async def reading() -> AsyncIterator[str]:
        yield "x"
        raise ClientDisconnect

    feed = IterableFeed(reading(), 1.0)
    feed.attach(new_wakeup(), None)
    assert await taken(feed) == b"data: x\n\n"
    assert feed.ended == "client"


@pytest.mark.parametrize("make", [lambda: ["0", "1"], lambda: iter(["0", "1"])])
async def test_an_iterable_without_a_close_is_left_alone(make: Callable[[], Any]) -> None:
    """A list, and an iterator."""
    iterable = make()
    await IterableFeed(iterable, 1.0).close()
    assert list(iterable) == ["0", "1"]


async def test_an_async_iterator_without_a_close_is_left_alone() -> None:
    """It is not iterated."""
    countdown = Countdown()
    await IterableFeed(countdown, 1.0).close()
    assert countdown.rest == ["1", "0"]
