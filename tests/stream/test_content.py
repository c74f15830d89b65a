"""Content: the task of a feed, its cancellation and its cleanup."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest

from sse_asgi import EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._loop.wakeup import new_wakeup
from sse_asgi._stream.content import Content
from sse_asgi._stream.feeds import IterableFeed
from stream.helpers import Job, Server, block, directly, serve, three_then_fail

pytestmark = pytest.mark.anyio


async def test_a_source_cancelled_from_within_is_an_error() -> None:
    """It ends the stream with an error instead of leaving it hanging."""

    async def cancelled() -> AsyncIterator[str]:
        yield "1"
        raise anyio.get_cancelled_exc_class()

    if anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        return  # trio's Cancelled cannot be made by hand
    with pytest.raises(RuntimeError, match="cancelled from within"):
        async with serve(cancelled).stream("/") as stream:
            await stream.ended()
            assert b"sse.error" in stream.content


async def test_a_disconnect_cleans_the_source_up_with_its_awaits() -> None:
    """An awaiting iterable is cancelled once, and awaits in its `finally` work."""
    job = Job()
    async with serve(job.run).stream("/") as stream:
        await stream.next_event()
        stream.disconnect()
        await stream.ended()
    assert job.log == ["started", "cleaning", "cleaned"]


async def test_cleanup_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """Content that does not end within `cleanup_timeout` is cancelled again, and that is logged."""
    cut = anyio.Event()

    async def stubborn() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            try:
                with anyio.CancelScope(shield=anyio.get_cancelled_exc_class().__module__.startswith("asyncio")):
                    await anyio.sleep_forever()
            finally:
                cut.set()

    async with serve(stubborn, cleanup_timeout=0.05).stream("/") as stream:
        await stream.next_event()
    with anyio.fail_after(5):
        await cut.wait()
    if not anyio.get_cancelled_exc_class().__module__.startswith("trio"):
        assert "took more than 0.05 s to clean up" in caplog.text


async def test_content_that_outlives_its_cleanup_leaves_the_hub_all_the_same() -> None:
    """A snapshot that resists its cancellation keeps no reader in the hub."""
    gate, began = anyio.Event(), anyio.Event()

    async def stubborn() -> str:
        began.set()
        with anyio.CancelScope(shield=True):
            try:
                await gate.wait()
            except BaseException:  # noqa: BLE001 - that is the point
                await gate.wait()
        return "state"

    async with Hub() as hub:
        async with serve(lambda: hub.subscribe("a", snapshot=stubborn), cleanup_timeout=0.05).stream("/") as stream:
            await began.wait()
            stream.disconnect()
            await stream.ended()
            assert hub._registry is not None
            assert not hub._registry._channels
            gate.set()


async def test_leaving_a_hub_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that does not answer when the last reader leaves delays the end only for a time."""
    monkeypatch.setattr("sse_asgi._hub.registry.UNSUBSCRIBE_SECONDS", 0.05)

    class Stuck(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            await anyio.sleep_forever()

    async with Hub(Stuck()) as hub:
        async with serve(lambda: hub.subscribe("a"), cleanup_timeout=0.01).stream("/") as stream:
            await stream.received(b"\n\n")
        assert stream._ended.is_set()


async def test_an_exception_in_cleanup_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The response has ended by then, so the exception is only logged."""

    async def messy() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            msg = "in cleanup"
            raise LookupError(msg)

    async with serve(messy).stream("/") as stream:
        await stream.next_event()
    assert "in cleanup" in caplog.text


@directly
async def test_content_that_was_cleaned_up_while_the_event_loop_was_blocked_is_not_late(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its cleanup ended in time, so it is not cancelled a second time."""
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


@directly
async def test_a_reader_that_was_ended_reads_no_history() -> None:
    """A reader that is ended after the reading was scheduled and before it begins gets no later event."""
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


async def test_an_exception_of_the_feed_is_kept() -> None:
    """The connection raises it later."""
    news = new_wakeup()
    feed = IterableFeed(three_then_fail(), 1.0)
    content = Content(feed, {}, news)
    feed.attach(news, None)
    content.fetch()
    content.fetch()  # it runs already
    with anyio.fail_after(5):
        while content.error is None:
            await news
            while feed.take():
                pass
    assert isinstance(content.error, LookupError)
