"""Connection: the start of a stream, its ends, and clients that are lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend
from sse_asgi._servers.known import _running
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream import connection as connection_module
from sse_asgi._stream.connection import State
from sse_asgi.testing import EventStreamClient
from stream.helpers import AsyncRows, Job, Kept, serve, shut_down, three_then_fail

pytestmark = pytest.mark.anyio


# The start


async def test_a_subscription_starts_at_once() -> None:
    """The head and the first bytes come before any event, and events after the head are not missed."""
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await hub.publish("a", "x")
        assert (await stream.next_event()).data == "x"


async def test_a_stream_that_is_revoked_before_it_starts_is_answered() -> None:
    """The client gets an empty stream with a farewell, not a broken connection."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        subscription.end("revoked")

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await EventSourceResponse(subscription)(scope, receive, send)

        async with EventStreamClient(app).stream("/") as stream:
            assert b"retry:" in await stream.read()


async def test_an_iterable_starts_at_its_first_event() -> None:
    """The head waits for it, so that an exception can still become an error response."""
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
    """The head of a slow iterable is sent after that time."""
    async with serve(Job(before=0).run, start_timeout=0.01).stream("/") as stream:
        await stream.received(b":\n")


@pytest.mark.parametrize("error", [HTTPException(403, "no"), ValueError("no")])
async def test_an_exception_before_the_first_event_is_raised(error: Exception) -> None:
    """Nothing was sent before, so it becomes a real error response."""

    async def fail() -> AsyncIterator[str]:
        raise error
        yield ""

    with pytest.raises(type(error)):
        async with serve(fail).stream("/"):
            pass


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio runs tasks in random order
async def test_what_comes_at_once_needs_no_start_timeout() -> None:
    """The iterable has one turn before the head is sent."""
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


async def test_a_stream_that_ends_before_it_begins_is_closed() -> None:
    """A stream that begins while the server stops never starts its content, but closes it."""
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


# The end


async def test_the_application_may_revoke_a_subscription() -> None:
    """Its stream ends with a retry, and its reason is `revoked`."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        app = Kept(subscription)
        async with EventStreamClient(app).stream("/") as stream:
            await stream.received(b"id: ")
            subscription.end("revoked")
            assert b"retry: " in (await stream.read()).splitlines()[-1]
            await stream.ended()
    assert app.noted[-1] == ("revoked", False)


async def test_a_subscription_goes_on_in_the_middleware() -> None:
    """Its stream is handed over when it waits for the first time, once; see test_handing_over.py."""
    async with Hub() as hub:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await EventSourceResponse(hub.subscribe("a"))(scope, receive, send)
            returned.append(hub.subscriptions())

        returned: list[Any] = []
        # The router awaits the response itself.
        router = Router([Mount("/mine", app), Mount("/", EventSourceResponse(hub.subscribe("a")))])
        for path, waits in (("/mine/", True), ("/", False)):
            async with EventStreamClient(EventSourceMiddleware(router)).stream(path) as stream:
                await anyio.wait_all_tasks_blocked()
                assert waits == any(one.cr_code.co_qualname == "Router.app" for one in _running())
                await hub.publish("a", "x")
                assert (await stream.next_event()).data == "x"
                stream.disconnect()
                await stream.ended()
            assert returned == [[]]  # the stranger's own end follows that of its stream


async def test_leaving_a_subscription_stream_leaves_the_hub() -> None:
    """The hub has no channel and the notice no listener left."""
    async with Hub() as hub:
        async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
            await stream.received(b"\n\n")
            assert hub._registry is not None
            assert hub._registry._channels
        assert not hub._registry._channels
        assert current_notice().listeners == 0


@pytest.mark.usefixtures("notice")
async def test_shutdown_cuts_off_nobody_who_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection may serve another request by then."""
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


# Lost clients


@pytest.mark.parametrize("guards", [0, 1, 2])
async def test_a_client_that_does_not_read_is_cut_off(guards: int) -> None:
    """Its transport is aborted after `send_timeout`, and no event is sent to it again."""
    aborted = anyio.Event()
    log = []

    class Cycle:
        """The object that has uvicorn's `receive`."""

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


@pytest.mark.parametrize("error", [RuntimeError("send failed"), ConnectionResetError()])
async def test_a_send_that_fails_leaves_nothing_behind(error: Exception) -> None:
    """The reader has left, the notice has no listener, and an exception that is not an OSError is raised."""
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


async def test_a_receive_that_fails_is_a_disconnect(caplog: pytest.LogCaptureFixture) -> None:
    """Any exception of `receive` is logged and ends the stream."""
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


async def test_an_oserror_from_send_is_a_disconnect() -> None:
    """Some servers raise it for a client that has disconnected."""
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
    """Some servers raise it from `receive` too."""
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


@pytest.mark.usefixtures("notice")
async def test_a_shutdown_during_the_clean_up_changes_nothing() -> None:
    """The reason stays, and the connection is not aborted, because it may serve another request."""
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


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_cancellation_that_no_shield_keeps_out_leaves_nothing_behind() -> None:
    """If asyncio cancels a stream whose end is stuck in send, another task finishes the cleanup."""
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


async def test_content_that_fails_after_the_head_is_logged_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    """The response has started, so the exception cannot become an error response."""
    with pytest.raises(LookupError, match="secret"):
        async with serve(three_then_fail).stream("/") as stream:
            await stream.ended()
    assert [record.name for record in caplog.records] == ["sse_asgi.stream"]
    assert "the content of the stream GET / failed" in caplog.text


async def test_a_client_that_the_content_finds_gone_has_gone() -> None:
    """Content that reads the body gets the disconnect before the watcher."""

    async def reading() -> AsyncIterator[str]:
        yield "x"
        raise ClientDisconnect

    app = Kept(reading())
    async with EventStreamClient(app).stream("/") as stream:
        await stream.ended()
    assert app.noted[-1] == ("client", True)


@pytest.mark.usefixtures("notice")
async def test_the_first_reason_of_an_end_stays() -> None:
    """A subscription whose server stops before it begins is not entered, and later reasons change nothing."""
    async with Hub() as hub:
        app = Kept(hub.subscribe("a"))
        await shut_down()
        async with EventStreamClient(app).stream("/") as stream:
            await stream.read()
            await stream.ended()
        connection = app.response._connection
        assert connection is not None
        connection.end("lifetime")
        assert (connection.reason, connection.state) == ("shutdown", State.CLOSING)


async def test_a_lost_connection_is_aborted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words cannot be sent either, but its address may be another connection's by then."""
    aborted: list[int] = []
    monkeypatch.setattr(connection_module, "cut_off", lambda *_: aborted.append(1))
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def send(_: Message) -> None:
        await anyio.sleep_forever()

    response = EventSourceResponse(["x"], send_timeout=0.01)
    with anyio.fail_after(5):
        await response(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert (response.reason, aborted) == ("slow", [1])


class Distant(MemoryBackend):
    """A backend that subscribes when the test allows it."""

    def __init__(self) -> None:
        super().__init__()
        self.there = anyio.Event()

    async def subscribe(self, channels: tuple[str, ...]) -> Any:
        await self.there.wait()
        return await super().subscribe(channels)


async def test_who_has_seen_the_head_misses_nothing() -> None:
    """The head waits until the backend has joined the channels, even if that takes long."""
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
    """The head is sent after `start_timeout`, with a ping."""
    async with Hub(Distant()) as hub, serve(lambda: hub.subscribe("a"), start_timeout=0.05).stream("/") as stream:
        await stream.received(b":\n")
        assert stream.status_code == 200


@pytest.mark.usefixtures("notice")
async def test_a_drain_delays_the_end_once() -> None:
    """The stream goes on after the first news of a shutdown. After the second it ends as without a drain."""
    response = EventSourceResponse(Job().run(), drain_timeout=0.1)
    async with EventStreamClient(response).stream("/") as stream:
        await stream.next_event()
        await shut_down()
        assert response.reason is None
        await stream.ended(2)
    assert response.reason == "shutdown"
