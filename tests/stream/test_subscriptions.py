"""Subscriptions as the content of a stream: when the head is sent, and how such a stream ends."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.exceptions import HTTPException

from sse_asgi import Hub, HubClosedError, MemoryBackend, ServerSentEvent
from sse_asgi._stream.ending import FINAL
from stream.helpers import serve

pytestmark = pytest.mark.anyio


async def test_the_first_bytes_do_not_wait_for_the_backend() -> None:
    """A comment is sent while entering takes long; the position follows when it is known."""
    gate = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Any:
            await gate.wait()
            return await super().subscribe(channels)

    async with Hub(Slow()) as hub, serve(lambda: hub.subscribe("a")).stream("/") as stream:
        await stream.received(b":\n")
        assert stream.content == b":\n"
        gate.set()
        await stream.received(b"\n\n")
        assert stream.content.startswith(b":\nid: ")


async def test_a_snapshot_that_fails_at_once_is_raised() -> None:
    """An exception of a subscription is raised too, as long as nothing was sent."""

    async def fail() -> None:
        raise HTTPException(404)

    async with Hub() as hub:
        with pytest.raises(HTTPException):
            async with serve(lambda: hub.subscribe("a", snapshot=fail)).stream("/"):
                pass


async def test_a_subscription_that_was_entered_is_refused() -> None:
    """A subscription is entered by hand or by the response, not by both."""
    async with Hub() as hub:
        async with hub.subscribe("a") as subscription:
            pass
        with pytest.raises(RuntimeError, match="entered once"):
            async with serve(lambda: subscription).stream("/"):
                pass


async def test_initial_events_do_not_wait_for_the_snapshot() -> None:
    """Initial events are sent while the snapshot is made."""
    gate = anyio.Event()

    async def snapshot() -> str:
        await gate.wait()
        return "state"

    async with Hub() as hub:
        content = lambda: hub.subscribe("a", initial=["hello"], snapshot=snapshot)  # noqa: E731
        async with serve(content).stream("/") as stream:
            assert (await stream.next_event()).data == "hello"
            gate.set()
            assert (await stream.next_event()).data == "state"


async def test_a_closed_hub_is_an_error_response() -> None:
    """Entering a closed hub raises before anything is sent."""
    hub = Hub()
    async with hub:
        subscription = hub.subscribe("a")
    with pytest.raises(HubClosedError):
        async with serve(lambda: subscription).stream("/"):
            pass


async def test_a_subscription_never_ends_for_good() -> None:
    """A drained hub sends the pending events and a retry, not the final id. It cannot resume from the id `sse.end`."""
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a"))
        async with client.stream("/", last_event_id="sse.end") as stream:
            assert (await stream.next_event()).event == "sse.gap"
            await hub.publish("a", "last")
            await hub.drain()
            content = await stream.read()
        assert b"data: last\n\nretry: " in content
        assert b"sse.end" not in content
        assert stream.complete


async def test_overflow_close_ends_the_stream_with_a_retry() -> None:
    """The retry lets the browser come back with its Last-Event-ID."""
    async with Hub(buffer_size=1, overflow="close") as hub:
        async with serve(lambda: hub.subscribe("a")).stream("/") as stream:
            stream.stall()
            for number in range(10):
                await hub.publish("a", str(number))
            stream._reading = True
            stream._notify()
            assert b"retry:" in await stream.read()
        assert stream.complete


# Up to an event


async def test_a_stream_ends_with_the_event_that_it_reads_up_to() -> None:
    """The final event follows it; with its id, or with that of the event, the client gets nothing twice."""
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a", until="done"))
        async with client.stream("/") as stream:
            await hub.publish("a", "1")
            last = await hub.publish("a", "2", event="done")
            await hub.publish("a", "3")
            content = await stream.read()
            assert content.endswith(f"id: {last}\nevent: done\ndata: 2\n\n".encode() + FINAL)
            assert (content.count(b"data: 1\n"), stream.complete, stream.last_event_id) == (1, True, "sse.end")
        async with client.stream("/", last_event_id="sse.end") as again:
            assert (again.status_code, await again.read()) == (204, b"")
        async with client.stream("/", last_event_id=last) as again:
            assert await again.read() == b":\n" + FINAL
        assert hub.subscriptions() == []


async def test_a_post_ends_without_the_final_event() -> None:
    """Its body is complete, and a client that comes back with the id of the event gets an empty one."""
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a", until="done"))
        async with client.stream("/", method="POST") as stream:
            last = await hub.publish("a", "2", event="done")
            assert (await stream.read()).endswith(b"data: 2\n\n")
            assert stream.complete
        async with client.stream("/", method="POST", last_event_id=last) as again:
            assert (await again.read(), again.complete) == (b":\n", True)


async def test_initial_events_may_end_a_stream() -> None:
    """No snapshot is taken then."""

    async def snapshot() -> str:
        raise AssertionError

    initial = ["hello", ServerSentEvent("x", event="done"), "more"]
    async with Hub() as hub:
        client = serve(lambda: hub.subscribe("a", until="done", initial=initial, snapshot=snapshot))
        async with client.stream("/") as stream:
            assert await stream.read() == b"data: hello\n\nevent: done\ndata: x\n\n" + FINAL
