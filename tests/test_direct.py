"""Sending in the publisher's turn: when it is done, and that nothing is lost or reordered when a send has to wait."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, ServerSentEvent
from sse_asgi._hub.orders import disconnect_order
from sse_asgi._log.event import Entry, History
from sse_asgi._log.position import Position
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream.connection import Connection
from sse_asgi._stream.sender import may_be_direct
from sse_asgi._stream.feeds import JOIN_SECONDS
from sse_asgi._stream.joining import PAUSE_SECONDS, current_joiner
from sse_asgi.backends.base import Sink
from sse_asgi.backends.memory import MemoryBackend
from sse_asgi.decoder import EventDecoder

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "root_path": ""}


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """On trio nothing is sent directly: there is no uvicorn."""
    return request.param


@pytest.fixture(autouse=True)
def known_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server below be one that is known to take messages in any task."""
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {__name__})


class Server:
    """One connection of a server, which writes what it is sent, or waits first, or fails.

    Attributes:
        tasks: In which task each body was taken.
        waits: Returns what a send is to await, or None.
    """

    def __init__(self, waits: Callable[[], Awaitable[Any] | None] = lambda: None) -> None:
        self.tasks: list[Any] = []
        self.bodies: list[bytes] = []
        self.waits = waits
        self.gone = asyncio.Event()
        self.busy = 0
        self.overlapped = False
        self.started = False
        self.serving: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.overlapped |= self.busy > 0
        assert not self.busy, "a send began before the last one had ended"
        assert (message["type"] == "http.response.start") == (not self.started), "the head is first, and once"
        self.started = True
        self.busy += 1
        try:
            waits = self.waits()
            if waits is not None:
                await waits
            if message["type"] == "http.response.body":
                self.tasks.append(asyncio.current_task())
                self.bodies.append(message["body"])
        finally:
            self.busy -= 1

    @contextlib.asynccontextmanager
    async def serve(self, app: Any, path: str = "/") -> AsyncIterator["Server"]:
        self.serving = asyncio.create_task(app({**SCOPE, "path": path}, self.receive, self.send))
        while not self.bodies:
            await asyncio.sleep(0)
        await anyio.wait_all_tasks_blocked()
        try:
            yield self
        finally:
            self.gone.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self.serving
        assert not self.overlapped

    def data(self) -> list[str | None]:
        events = EventDecoder().feed(b"".join(self.bodies))
        return [event.data for event in events if event.event != "sse.position"]

    async def has(self, *data: str) -> None:
        with anyio.fail_after(5):
            while self.data() != list(data):
                await anyio.sleep(0.001)

    def last(self, count: int) -> list[bool]:
        """Tell for each of the last bodies whether it was sent in the task of this test."""
        return [task is asyncio.current_task() for task in self.tasks[-count:]]


async def pause() -> None:
    """Let a burst end."""
    await asyncio.sleep(2 * PAUSE_SECONDS)


async def test_an_event_is_sent_before_publish_returns() -> None:
    """In the publisher's own task, where the server takes it without waiting."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        for number in range(3):
            await hub.publish("default", number)
            assert server.data() == [str(one) for one in range(number + 1)]
            await pause()
        assert server.last(3) == [True, True, True]


async def at_once(hub: Hub, count: int) -> None:
    await asyncio.gather(*(hub.publish("default", number) for number in range(count)))


async def one_after_another(hub: Hub, count: int) -> None:
    for number in range(count):
        await hub.publish("default", number)


@pytest.mark.parametrize("publish", [at_once, one_after_another])
async def test_events_that_follow_without_a_pause_are_joined(
    publish: Callable[[Hub, int], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first goes out at once, and the others are one body, in which no task but the event loop has a part."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 1.0)
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        before = len(server.bodies)
        await publish(hub, 10)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2
        assert server.tasks[-1] is None


async def test_events_of_many_readers_are_joined_over_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """As between the answers of Redis; sending them one by one would take longer than to wait for them."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    current_joiner().seconds_each = 1.0
    monkeypatch.setattr("sse_asgi._stream.joining.PAUSE_SECONDS", 0.1)
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        before = len(server.bodies)
        for number in range(10):
            await hub.publish("default", number)
            await asyncio.sleep(0.002)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2


async def test_events_are_not_held_for_longer_than_it_takes_to_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """However steadily they come."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    current_joiner().seconds_each = 0.02
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        number = 0
        with anyio.fail_after(5):
            while len(server.bodies) < 5:
                await hub.publish("default", number)
                number += 1
                await asyncio.sleep(0)


async def test_events_are_not_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever publishes without end is read meanwhile."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 0.0)
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        for number in range(10):
            await hub.publish("default", number)
            assert int(str(server.data()[-1])) >= number - 2


async def test_the_first_event_of_another_channel_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is there to be joined with it."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub, channels="a")) as one,
        Server().serve(EventSourceApp(hub, channels="b")) as two,
    ):
        await hub.publish("a", "1")
        await hub.publish("b", "1")
        assert (one.last(1), two.last(1)) == ([True], [True])
        await hub.publish(["a", "b"], "2")
        assert (one.data(), two.data()) == (["1"], ["1"])
        await one.has("1", "2")
        await two.has("1", "2")


async def test_whoever_waits_is_not_sent_a_later_event_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has what waits sent with it, and takes no task either."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    async with Hub() as hub, Server().serve(EventSourceApp(hub, channels=["a", "b"])) as server:
        before = len(server.bodies)
        await hub.publish("a", "1")
        await hub.publish("a", "2")
        await hub.publish("b", "3")
        assert server.data() == ["1", "2", "3"]
        assert server.tasks[before:] == [asyncio.current_task()] * 2


@pytest.mark.parametrize("bound", [{"buffer_size": 1}, {"buffer_bytes": 20}])
@pytest.mark.parametrize("overflow", ["drop_oldest", "close"])
@pytest.mark.parametrize("reads", ["plainly", "with a transform", "through another server"])
async def test_nothing_overflows_because_it_is_held(
    reads: str, overflow: Any, bound: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no room beside what is to be joined has it sent; what others cannot send is not held."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    if reads == "through another server":
        monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", set())
    options: dict[str, Any] = {"overflow": overflow, **bound}
    if reads == "with a transform":
        options["transform"] = lambda event, _: event
    async with Hub() as hub, Server().serve(EventSourceApp(hub, **options)) as server:
        for number in range(10):
            await hub.publish("default", number)
            await asyncio.sleep(0)
        await server.has(*map(str, range(10)))
        assert hub.stats().drops == 0


async def test_a_reader_that_is_full_has_no_other_sent_single_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what it was made to wait with goes out."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 1.0)
    stalled = Server()
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        stalled.serve(EventSourceApp(hub, overflow="drop_oldest", buffer_size=2)),
    ):
        stalled.waits = asyncio.Event().wait
        before = len(server.bodies)
        for number in range(10):
            await hub.publish("default", number)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2
        assert hub.stats().buffered_events == 2


async def test_an_event_may_be_sent_at_once_again() -> None:
    """Also to another reader, and after a burst."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as one, Server().serve(EventSourceApp(hub)) as two:
        await asyncio.gather(*(hub.publish("default", number) for number in range(3)))
        await one.has("0", "1", "2")
        await two.has("0", "1", "2")
        await pause()
        await hub.publish("default", "3")
        assert one.last(1) == two.last(1) == [True]


async def test_a_send_that_waits_is_gone_on_with_by_the_connection() -> None:
    """What is published meanwhile follows it, in order; nobody waits for the reader."""
    free = asyncio.Event()
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        Server().serve(EventSourceApp(hub)) as other,
    ):
        server.waits = free.wait
        for number in range(4):
            await hub.publish("default", number)
        assert server.data() == []
        await other.has("0", "1", "2", "3")
        free.set()
        await server.has("0", "1", "2", "3")
        assert server.last(2) == [False, False]
        server.waits = lambda: None
        await pause()
        await hub.publish("default", "4")
        assert server.last(1) == [True]


class Cut(MemoryBackend):
    """Delivers nothing while the line is cut; history takes until it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.free = asyncio.Event()

    def connect(self, sink: Sink) -> contextlib.AbstractAsyncContextManager[None]:
        self.sink = sink
        return super().connect(self)  # type: ignore[arg-type]

    def advance(self, position: Position) -> None:
        self.sink.advance(position)

    def deliver(self, entry: Entry) -> None:
        if not self.cut:
            self.sink.deliver(entry)

    async def mend(self) -> None:
        self.cut = False
        position = await self.subscribe(("default",))
        assert position is not None
        self.sink.advance(position)
        self.sink.gap(None, None)
        await anyio.wait_all_tasks_blocked()

    async def history(self, *arguments: Any) -> History:
        await self.free.wait()
        return await super().history(*arguments)


@pytest.mark.parametrize("when", ["before history was read", "before the connection has heard of it"])
async def test_what_was_missed_comes_first(when: str) -> None:
    """Though the connection rests."""
    backend = Cut()
    async with Hub(backend) as hub, Server().serve(EventSourceApp(hub)) as server:
        await hub.publish("default", "0")
        await pause()
        backend.cut = True
        await hub.publish("default", "missed")
        await backend.mend()
        if when == "before history was read":
            await hub.publish("default", "1")
        backend.free.set()
        if when == "before the connection has heard of it":
            await hub.publish("default", "1")
        await server.has("0", "missed", "1")


async def test_a_send_that_fails_ends_its_connection_alone() -> None:
    """As it would have in a task of its own; the publisher and others do not see it."""

    def fail() -> None:
        raise OSError

    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        Server().serve(EventSourceApp(hub)) as other,
    ):
        server.waits = fail
        await hub.publish("default", "x")
        await hub.publish("default", "y")
        await other.has("x", "y")
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert len(hub.subscriptions()) == 1


async def test_a_client_that_goes_while_a_send_waits_is_cleaned_up_after() -> None:
    """The send is stopped if it does not return by itself."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = asyncio.Event().wait
        await hub.publish("default", "x")
        server.gone.set()
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []
        assert server.busy == 0


async def test_a_send_that_has_returned_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its client has gone there is nothing left to stop."""
    monkeypatch.setattr("sse_asgi._stream.connection.RETURN_SECONDS", 0.01)
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        await hub.publish("default", "x")
        server.gone.set()
        await asyncio.sleep(0)
        free.set()
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        await asyncio.sleep(0.05)
    assert server.data() == ["x"]


async def test_a_stalled_client_is_cut_off() -> None:
    """`send_timeout` counts from when the publisher began the send."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub, send_timeout=0.05)) as server:
        server.waits = asyncio.Event().wait
        await hub.publish("default", "x")
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []


def block(seconds: float, *then: Callable[[], object]) -> None:
    """Block the event loop; another thread does something meanwhile, of which the loop hears when it goes on."""
    loop = asyncio.get_running_loop()

    def meanwhile() -> None:
        for one in then:
            loop.call_soon_threadsafe(one)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    thread.join()
    time.sleep(seconds)


async def test_a_client_that_read_while_the_event_loop_was_blocked_is_not_cut_off() -> None:
    """The alarm is late as well: what came in has its turn first."""
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub, send_timeout=0.2)) as server:
        server.waits = free.wait
        await hub.publish("default", "x")
        await asyncio.sleep(0.01)
        block(0.5, free.set)
        await server.has("x")
        await asyncio.sleep(0.2)
        assert len(hub.subscriptions()) == 1
        free.clear()
        await hub.publish("default", "y")
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == ["x"]


async def test_content_that_failed_while_the_event_loop_was_blocked_is_an_error_response() -> None:
    """Its time to start is not over before what it waits for has had its turn."""
    gone = asyncio.Event()

    async def missing() -> AsyncIterator[str]:
        await gone.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        raise HTTPException(404)
        yield ""

    server = Server()
    response = EventSourceResponse(missing(), start_timeout=0.2)
    serving = asyncio.create_task(response({**SCOPE}, server.receive, server.send))
    await asyncio.sleep(0.01)
    block(0.5, gone.set)
    with pytest.raises(HTTPException), anyio.fail_after(5):
        await serving
    assert not server.started


async def test_content_that_was_cleaned_up_while_the_event_loop_was_blocked_is_not_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is not cancelled a second time."""
    committed, log = asyncio.Event(), []

    async def job() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.sleep(3600)
        finally:
            log.append("cleaning")
            await committed.wait()
            for _ in range(5):
                await asyncio.sleep(0)
            log.append("cleaned")

    async with Server().serve(EventSourceResponse(job(), cleanup_timeout=0.2)) as server:
        server.gone.set()
        while not log:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        block(0.5, committed.set)
    assert log == ["cleaning", "cleaned"]
    assert caplog.text == ""


async def test_a_shutdown_gives_a_blocked_client_its_turn() -> None:
    """It has read before the stream is ended, of which it is told."""
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        await hub.publish("default", "x")
        await asyncio.sleep(0.01)
        current_notice().hear()
        current_notice().heard = False
        block(0.8, free.set)
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == ["x"]
    assert server.bodies[-1] == b""
    assert b"retry: " in server.bodies[-2]


async def test_work_for_a_reader_is_done_in_its_own_task() -> None:
    """A transform, or data that is a function, may be slow: the publisher does not run it."""
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub, transform=lambda event, _: event)) as transformed,
        Server().serve(EventSourceApp(hub)) as plain,
    ):
        await hub.publish("default", "x")
        assert plain.data() == ["x"]
        await transformed.has("x")
        await hub.publish("default", lambda _: "y")
        await transformed.has("x", "y")
        await plain.has("x", "y")
        assert transformed.last(2) == [False, False]
        assert plain.last(2) == [True, False]


async def test_a_ping_is_sent_without_waking_the_connection() -> None:
    """By the clock, to a subscription and to an iterable alike."""

    async def nothing() -> AsyncIterator[str]:
        yield "first"
        await asyncio.Event().wait()

    async with Hub() as hub:
        for app in (EventSourceApp(hub, ping_interval=0.01), EventSourceResponse(nothing(), ping_interval=0.01)):
            async with Server().serve(app) as server:
                before = len(server.bodies)
                with anyio.fail_after(5):
                    while len(server.bodies) < before + 3:
                        await anyio.sleep(0.001)
                assert server.tasks[before:] == [None] * (len(server.tasks) - before)


async def disconnect(hub: Hub, _: Connection) -> None:
    hub._orders._obey(disconnect_order(None, "ada", None))


async def drain(hub: Hub, _: Connection) -> None:
    await hub.drain()


async def revoke(hub: Hub, _: Connection) -> None:
    """As an app does when it has authorised a stream again, and the answer was no."""
    hub.subscriptions()[0].end("revoked")


async def close(hub: Hub, _: Connection) -> None:
    assert hub._registry is not None
    await hub._registry.close()


async def shut_down(_: Hub, __: Connection) -> None:
    notice = current_notice()
    notice.hear()
    notice.heard = False


async def expire(_: Hub, connection: Connection) -> None:
    connection.end("lifetime")


@pytest.mark.parametrize("end", [disconnect, revoke, drain, close, shut_down, expire])
async def test_a_reader_that_was_ended_is_not_pinged_past_an_event(
    end: Callable[[Hub, Connection], Coroutine[Any, Any, None]],
) -> None:
    """An event is published, and a ping is due, in the turn in which a reader is ended: it misses nothing."""
    async with Hub() as hub:
        response = EventSourceResponse(hub.subscribe("default", identity="ada", last_event_id=""))
        async with Server().serve(response) as server:
            await hub.publish("default", "seen")
            connection = response._connection
            assert connection is not None

            async def publish_and_ping() -> None:
                await hub.backend.publish(("default",), ServerSentEvent("next"), key=None, idempotency_key=None)
                connection._deadlines.ring(time.monotonic() + 20)

            async with asyncio.TaskGroup() as tasks:  # which take their first steps one after the other
                tasks.create_task(end(hub, connection))
                tasks.create_task(publish_and_ping())
            assert server.serving is not None
            with anyio.fail_after(5):
                await server.serving
        decoder = EventDecoder()
        seen = [event.data for event in decoder.feed(b"".join(server.bodies)) if event.event == "message"]
        missed = [event.data for event in await hub.history("default") if (event.id or "") > decoder.last_event_id]
        assert [*seen, *missed] == ["seen", "next"]


async def test_a_reader_that_was_ended_reads_no_history() -> None:
    """It is ended after the reading was decided on, and before it begins: it gets nothing that is published later."""
    async with Hub() as hub:
        response = EventSourceResponse(hub.subscribe("default"))
        async with Server().serve(response) as server:
            assert hub._registry is not None
            hub._registry.gap(None, None)
            await asyncio.sleep(0)
            assert response._connection is not None
            assert response._connection._content._child is not None
            hub.subscriptions()[0].end("revoked")
            await hub.backend.publish(("default",), ServerSentEvent("later"), key=None, idempotency_key=None)
            assert server.serving is not None
            with anyio.fail_after(5):
                await server.serving
        assert "later" not in server.data()


async def test_a_ping_that_fails_ends_its_stream() -> None:
    """In the connection's own task."""

    def fail() -> None:
        raise OSError

    async with Hub() as hub, Server().serve(EventSourceApp(hub, ping_interval=0.01)) as server:
        server.waits = fail
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []


# Through what it goes


async def through(*middleware: Middleware) -> list[bool]:
    """Tell whether an event is sent directly by an application with this middleware."""
    hub = Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub))], middleware=middleware)
    async with hub, Server().serve(app, "/events/") as server:
        await hub.publish("default", "x")
        await server.has("x")
        return server.last(1)


class Counting:
    """A middleware with a `send` of its own."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            await send(message)

        await self.app(scope, receive, counted)


async def plainly(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


async def test_starlette_and_our_own_middleware_are_in_nobodys_way() -> None:
    """They only look at the head."""
    assert await through() == [True]
    assert await through(Middleware(EventSourceMiddleware)) == [True]
    assert await through(Middleware(EventSourceMiddleware), Middleware(EventSourceMiddleware)) == [True]


@pytest.mark.parametrize(
    "other", [Middleware(Counting), Middleware(GZipMiddleware), Middleware(BaseHTTPMiddleware, dispatch=plainly)]
)
async def test_through_anything_else_the_connections_task_sends(other: Middleware) -> None:
    """Nobody knows what it does."""
    assert await through(other) == [False]
    assert await through(Middleware(EventSourceMiddleware), other) == [False]


async def test_a_foreign_stream_is_not_taken_for_ours() -> None:
    """The middleware does more with it than to pass it on."""
    found = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(may_be_direct(send))
        await Response("x")(scope, receive, send)

    async with Server().serve(EventSourceMiddleware(Starlette(routes=[Mount("/", app)]))):
        assert found == [False]


async def test_other_servers_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under granian events were lost."""
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {"uvicorn.protocols.http.h11_impl"})
    assert await through() == [False]


# Stress


@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_whatever_waits(seed: int) -> None:
    """Bursts and single events, readers that stall for some turns of the loop, or do not: each gets all, in order."""
    chance = random.Random(seed)

    async def turns() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    def waits() -> Awaitable[None] | None:
        return turns() if chance.random() < 0.5 else None

    async with Hub(buffer_size=4) as hub, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(Server().serve(EventSourceApp(hub))) for _ in range(4)]
        for reader in readers[1:]:
            reader.waits = waits
        sent = 0
        while sent < 100:
            burst = chance.choice((1, 1, 1, 2, 7))
            await asyncio.gather(*(hub.publish("default", sent + number) for number in range(burst)))
            sent += burst
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        for reader in readers:
            await reader.has(*map(str, range(sent)))


@pytest.mark.parametrize("turns", range(12))
async def test_a_connection_can_be_cancelled_at_any_turn(turns: int) -> None:
    """In the middle of a send that the publisher began, too: its reader leaves, and no other is disturbed."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as other:
        server = Server()
        async with server.serve(EventSourceApp(hub)):
            server.waits = lambda: asyncio.sleep(0) if turns % 2 else asyncio.sleep(0.001)
            await hub.publish("default", "x")
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            assert server.serving is not None
            server.serving.cancel()
            await hub.publish("default", "y")
        with anyio.fail_after(5):
            while len(hub.subscriptions()) != 1:
                await anyio.sleep(0.001)
        await other.has("x", "y")
        assert server.busy == 0


async def test_nothing_is_sent_directly_to_a_stream_that_ends() -> None:
    """Its last bytes may have to wait, and no send begins before the last one has ended."""
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        assert server.serving is not None
        server.serving.cancel()
        await asyncio.sleep(0)
        assert server.busy == 1
        await hub.publish("default", "x")
        await anyio.wait_all_tasks_blocked()
        free.set()


# Receiving


async def test_a_client_is_watched_without_a_task() -> None:
    """Where the server is known; its messages are taken until the last."""
    async with Hub() as hub:
        before = len(asyncio.all_tasks())
        async with Server().serve(EventSourceApp(hub)) as server:
            assert len(asyncio.all_tasks()) == before + 1
            server.gone.set()
            assert server.serving is not None
            with anyio.fail_after(5):
                await server.serving


class Talking(Server):
    """Has some messages before the client goes, the last of which may fail."""

    def __init__(self, *messages: Any) -> None:
        super().__init__()
        self.messages = list(messages)

    async def receive(self) -> Message:
        if not self.messages:
            return await super().receive()
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return {"type": "http.request", "body": message}


async def test_a_body_that_nobody_reads_is_taken() -> None:
    """One message after another, without recursion."""
    async with Hub() as hub, Talking(*[b"x"] * 2000).serve(EventSourceApp(hub)) as server:
        await hub.publish("default", "x")
        assert server.data() == ["x"]
        assert server.messages == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(("error", "logged"), [(OSError(), False), (ValueError("odd"), True)])
async def test_a_receive_that_fails_means_that_the_client_has_gone(
    error: Exception, caplog: pytest.LogCaptureFixture, *, logged: bool
) -> None:
    """It is said once, unless it is the way of a server to say just that."""
    async with Hub() as hub:
        server = Talking(error)
        await EventSourceApp(hub)({**SCOPE}, server.receive, server.send)
        assert hub.subscriptions() == []
    assert ("receive() failed" in caplog.text) == logged


# Iterables


async def numbers(count: int, pause: Callable[[int], Awaitable[Any] | None]) -> AsyncIterator[str]:
    for number in range(count):
        waits = pause(number)
        if waits is not None:
            await waits
        yield str(number)


async def streamed(server: Server, count: int, pause: Callable[[int], Awaitable[Any] | None]) -> None:
    """Stream so many numbers; each must arrive, in order."""
    response = EventSourceResponse(numbers(count, pause), reconnect_after_end=True)
    async with server.serve(response):
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == [str(number) for number in range(count)]


async def test_a_generator_that_waits_sends_its_events_itself() -> None:
    """Each without a switch to the task of the connection, but the first, which comes with the head."""
    server = Server()
    await streamed(server, 10, lambda _: asyncio.sleep(0.001))
    assert sum(task is server.serving for task in server.tasks) <= 2
    assert sum(body.startswith(b"data") for body in server.bodies) == 10


async def test_generators_of_the_same_turn_are_in_nobodys_way() -> None:
    """What one sends does not count as what another has sent: each sends each of its events itself."""
    servers = [Server() for _ in range(3)]
    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(streamed, server, 10, lambda _: asyncio.sleep(0))
    for server in servers:
        assert sum(task is server.serving for task in server.tasks) <= 2
        assert sum(body.startswith(b"data") for body in server.bodies) >= 9


async def test_a_generator_that_does_not_wait_is_joined() -> None:
    """A few bodies, not one for each event."""
    server = Server()
    await streamed(server, 500, lambda _: None)
    assert len(server.bodies) < 100


async def test_a_generator_is_not_pulled_while_a_send_waits() -> None:
    """Also where the generator's own task began it."""
    pulled: list[int] = []
    free = asyncio.Event()

    def pause(number: int) -> Awaitable[None]:
        pulled.append(number)
        return asyncio.sleep(0)

    server = Server()
    response = EventSourceResponse(numbers(5, pause), reconnect_after_end=True)
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


@pytest.mark.parametrize("seed", range(12))
async def test_generators_and_servers_that_wait_now_and_then(seed: int) -> None:
    """Whatever waits, all is sent, in order."""
    chance = random.Random(seed)

    def sometimes(_: int = 0) -> Awaitable[None] | None:
        return asyncio.sleep(chance.choice((0, 0, 0.001))) if chance.random() < 0.5 else None

    await streamed(Server(sometimes), 200, sometimes)


# Ending


async def yields_in_finally(log: list[str]) -> AsyncIterator[str]:
    try:
        while True:
            await asyncio.sleep(0.001)
            yield "x"
    finally:
        try:
            for _ in range(3):
                yield "goodbye"
        finally:
            log.append("closed")


async def yields_when_cancelled(log: list[str]) -> AsyncIterator[str]:
    try:
        while True:
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                for _ in range(3):
                    yield "goodbye"
            yield "x"
    finally:
        log.append("closed")


def yields_in_a_thread(log: list[str]) -> Iterator[str]:
    try:
        while True:
            time.sleep(0.001)
            yield "x"
    finally:
        try:
            yield "goodbye"
        finally:
            log.append("closed")


class Stubborn:
    """An async iterator that is not a generator, and takes no notice of a cancellation."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def __aiter__(self) -> "Stubborn":
        return self

    async def __anext__(self) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
        return "x"

    async def aclose(self) -> None:
        self.log.append("closed")


@pytest.mark.parametrize("content", [yields_in_finally, yields_when_cancelled, yields_in_a_thread, Stubborn])
@pytest.mark.parametrize("how", ["the client has gone", "the server stops"])
async def test_what_yields_after_the_end_is_broken_off(
    content: Callable[[list[str]], Any], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At its next yield, not after `cleanup_timeout`; its own `finally` is run."""
    log: list[str] = []
    async with Server().serve(EventSourceResponse(content(log))) as server:
        await asyncio.sleep(2 * JOIN_SECONDS)
        if how == "the client has gone":
            server.gone.set()
        else:
            current_notice().hear()
            current_notice().heard = False
    assert log == ["closed"]
    assert caplog.text == ""


@pytest.mark.parametrize("goodbyes", [1, 2])
async def test_what_yields_while_it_is_closed_is_broken_off(goodbyes: int, caplog: pytest.LogCaptureFixture) -> None:
    """Where it was suspended at a yield, because its client did not read: once, and what goes on then is logged."""
    log: list[str] = []

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 70_000
        finally:
            try:
                yield "goodbye"
            finally:
                if goodbyes == 2:
                    yield "goodbye again"
                await asyncio.sleep(0.001)
                log.append("closed")

    async def until_it_has_gone() -> None:
        await server.gone.wait()

    server = Server(lambda: until_it_has_gone() if server.bodies else None)
    async with server.serve(EventSourceResponse(endless())):
        pass
    assert log == ["closed"] * (goodbyes == 1)
    assert ("async generator ignored GeneratorExit" in caplog.text) == (goodbyes == 2)
    assert "clean up" not in caplog.text
