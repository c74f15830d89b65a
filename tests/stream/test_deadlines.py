"""Deadlines: pings, send timeouts and lifetimes, also after the event loop was blocked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.exceptions import HTTPException

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._hub.orders import disconnect_order
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream.connection import Connection
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStreamClient
from stream.helpers import SCOPE, Job, Server, block, directly, numbers, serve, shut_down

pytestmark = pytest.mark.anyio


# Pings


async def test_pings_come_only_in_silence() -> None:
    """A ping is a bare comment line, without a blank line."""
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
    """Each event restarts the interval."""

    async def busy() -> AsyncIterator[str]:
        for number in range(30):
            await anyio.sleep(0.005)
            yield str(number)

    async with serve(busy, ping_interval=0.1).stream("/") as stream:
        assert b":\n:" not in await stream.read()
        assert b"\n:\n" not in stream.content


async def test_ping_interval_none_sends_none() -> None:
    """Nothing is sent into a silence."""
    async with serve(Job().run, ping_interval=None, send_timeout=None, start_timeout=0.02).stream("/") as stream:
        await stream.next_event()
        await anyio.sleep(0.05)
        assert stream.content == b"data: 0\n\n"


async def test_a_subscriptions_ping_interval_is_its_hubs() -> None:
    """The default is the hub's interval, and a ping tells a position that moved."""
    async with Hub(ping_interval=0.02) as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        moved = await hub.publish("b", "elsewhere")
        await stream.received(f"id: {moved}\nevent: sse.position\ndata: {{}}\n\n".encode())
        assert stream.last_event_id == moved


async def test_a_ping_during_a_replay_moves_no_id() -> None:
    """Pings keep the stream alive while history is slow, and carry no id ahead of the pending events."""
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


@directly
async def test_a_ping_is_sent_without_waking_the_connection() -> None:
    """The timer sends pings of subscriptions and iterables, without a task."""

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
    """End the stream as an app does whose authorization was refused later."""
    hub.subscriptions()[0].end("revoked")


async def close(hub: Hub, _: Connection) -> None:
    assert hub._registry is not None
    await hub._registry.close()


async def hear_shutdown(_: Hub, __: Connection) -> None:
    notice = current_notice()
    notice.hear()
    notice.heard = False


async def expire(_: Hub, connection: Connection) -> None:
    connection.end("lifetime")


@directly
@pytest.mark.parametrize("end", [disconnect, revoke, drain, close, hear_shutdown, expire])
async def test_a_reader_that_was_ended_is_not_pinged_past_an_event(
    end: Callable[[Hub, Connection], Coroutine[Any, Any, None]],
) -> None:
    """If an event and a ping come in the turn in which a reader is ended, the reader misses nothing."""
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


@directly
async def test_a_ping_that_fails_ends_its_stream() -> None:
    """The connection's own task raises the exception of the send."""

    def fail() -> None:
        raise OSError

    async with Hub() as hub, Server().serve(EventSourceApp(hub, ping_interval=0.01)) as server:
        server.waits = fail
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []


# Timeouts


async def test_send_timeout_none_waits() -> None:
    """A client that does not read is not cut off."""

    async def flood() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    async with serve(flood, send_timeout=None, ping_interval=0.01).stream("/") as stream:
        stream.stall()
        await anyio.sleep(0.05)
        assert not stream._ended.is_set()


@directly
async def test_a_stalled_client_is_cut_off() -> None:
    """`send_timeout` counts from the time at which the publisher began the send."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub, send_timeout=0.05)) as server:
        server.waits = asyncio.Event().wait
        await hub.publish("default", "x")
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []


@directly
async def test_a_client_that_read_while_the_event_loop_was_blocked_is_not_cut_off() -> None:
    """The alarm is late too, so data that arrived meanwhile is handled first."""
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


@directly
async def test_content_that_failed_while_the_event_loop_was_blocked_is_an_error_response() -> None:
    """`start_timeout` does not end before callbacks that are due have run."""
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


# Lifetimes


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
    """They differ by up to a fifth, so that clients do not come back together."""
    asked = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 1

    monkeypatch.setattr("random.uniform", uniform)
    async with serve(numbers, max_lifetime=10).stream("/") as stream:
        await stream.read()
    assert asked == [(0.8, 1.2)]


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize("count", [1, 1000])
async def test_a_drain_ends_with_the_stream_or_at_its_timeout(count: int) -> None:
    """Its alarm is cancelled with the stream."""

    async def content() -> AsyncIterator[str]:
        for _ in range(count):
            yield "x"
            await anyio.sleep(0.05)

    response = EventSourceResponse(content(), drain_timeout=0.3)
    async with EventStreamClient(response).stream("/") as stream:
        await stream.next_event()
        await shut_down()
        await stream.ended(2)
    assert response.reason == ("finished" if count == 1 else "shutdown")
