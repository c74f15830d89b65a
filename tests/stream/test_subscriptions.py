"""Subscriptions as the content of a stream: when the head is sent, and how such a stream ends."""

from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.exceptions import HTTPException

from sse_asgi import Hub, HubClosedError, MemoryBackend
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
