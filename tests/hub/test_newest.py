"""The newest events of channels: as many as were asked for, in order, read without the events before them."""

from typing import Any

import pytest

from sse_asgi import Hub, MemoryBackend, ServerSentEvent
from sse_asgi._hub.newest import newest_events
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.event import History
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


async def newest(hub: Hub, limit: int) -> list[str | None]:
    """Return the data of the newest events of channel a."""
    assert hub._registry is not None
    return [event.data for event in await newest_events(hub._registry, ("a",), limit)]


async def test_the_newest_are_returned_in_order_over_several_pages() -> None:
    """Also where more are asked for than a page holds, or than are kept."""
    async with Hub() as hub:
        for number in range(PAGE + 10):
            await hub.publish("a", str(number))
        expected = [str(number) for number in range(PAGE + 10)]
        assert await newest(hub, 3) == expected[-3:]
        assert await newest(hub, PAGE + 1) == expected[-PAGE - 1 :]
        assert await newest(hub, 2 * PAGE) == expected


async def test_events_that_are_rendered_for_each_reader_are_not_counted() -> None:
    """They have no data without a reader, so older events are returned in their place."""
    async with Hub() as hub:
        for number in range(3):
            await hub.publish("a", str(number))
        for _ in range(3):
            await hub.publish("a", lambda _: "mine")
        assert await newest(hub, 2) == ["1", "2"]


async def test_nothing_is_read_where_nothing_is_asked_for_or_kept() -> None:
    """A limit of 0, and a hub without history."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        assert await newest(hub, 0) == []
    async with Hub(MemoryBackend(history_size=0)) as hub:
        await hub.publish("a", "x")
        assert await newest(hub, 5) == []


async def test_history_reads_what_it_returns() -> None:
    """Ten events of a long history, and not the others before them."""

    class Counting(MemoryBackend):
        read = 0

        async def history(self, *args: Any) -> History:
            page = await super().history(*args)
            self.read += len(page.entries)
            return page

    backend = Counting()
    async with Hub(backend) as hub:
        for number in range(1000):
            await hub.publish("a", str(number))
        assert [event.data for event in await hub.history("a", limit=10)] == [
            str(number) for number in range(990, 1000)
        ]
    assert backend.read == 10


async def test_history_counts_no_joins() -> None:
    """They come along, and leave room for what was said."""
    async with Hub(presence_grace=0) as hub:
        for number in range(3):
            await hub.publish("a", str(number))
        for _ in range(5):
            async with hub.subscribe("a", identity="ada", presence=True), hub.subscribe("a") as other:
                await hub.publish("a", "x")
                await anext(other)
        said = [event.data for event in await hub.history("a", limit=8) if event.event is None]
    assert said == ["0", "1", "2", *"xxxxx"]


async def test_events_that_are_published_while_history_is_read_push_out_the_oldest() -> None:
    """There are never more than were asked for."""

    class Publishing(MemoryBackend):
        async def rewind(self, *args: Any) -> Position | None:
            position = await super().rewind(*args)
            await self.publish(("a",), ServerSentEvent("meanwhile"), key=None, idempotency_key=None)
            return position

    async with Hub(Publishing()) as hub:
        for number in range(3):
            await hub.publish("a", str(number))
        assert [event.data for event in await hub.history("a", limit=2)] == ["2", "meanwhile"]


async def test_history_is_read_again_where_the_log_begins_another_life() -> None:
    """Nothing of the life before is in it."""

    class Restarting(MemoryBackend):
        restarted = False

        async def history(self, *args: Any) -> History:
            page = await super().history(*args)
            if not self.restarted:
                self.restarted = True
                sinks = self._sinks
                self._begin()
                self._sinks = sinks
                await self.publish(("a",), ServerSentEvent("after"), key=None, idempotency_key=None)
            return page

    async with Hub(Restarting()) as hub:
        await hub.publish("a", "before")
        assert [event.data for event in await hub.history("a")] == ["after"]
