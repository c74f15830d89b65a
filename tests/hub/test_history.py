"""hub.history: which events it returns, and how much it reads for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.backends import Elsewhere
from sse_asgi import BackendError, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._log.event import History
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


async def test_history_returns_the_newest_in_order() -> None:
    """The events are those that readers see, over any number of pages."""
    async with Hub() as hub:
        assert await hub.history("a") == []
        for number in range(600):
            await hub.publish(["a", "b"][number % 2], str(number))
        await hub.publish("a", lambda _: "rendered events have no data of their own")
        events = await hub.history("a", "b", limit=3)
        assert len(await hub.history("a", "b", limit=1000)) == 600
    assert [(event.data, event.channels) for event in events] == [("597", ("b",)), ("598", ("a",)), ("599", ("b",))]
    assert all(event.id for event in events)


async def test_history_reads_what_it_returns() -> None:
    """For ten events of a long history, no earlier events are read."""

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


async def test_history_takes_a_number_of_events() -> None:
    """0 returns no events, and a negative number is refused."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        assert await hub.history("a", limit=0) == []
        with pytest.raises(ValueError, match=r"limit must be a number of events, at least 0 \(got -1\)"):
            await hub.history("a", limit=-1)


async def test_history_counts_no_joins() -> None:
    """`sse.join` and `sse.leave` are returned, and do not count towards the limit."""
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
    """There are never more events than the limit."""

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
    """No event of the old epoch is returned."""

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


async def test_history_of_a_backend_that_was_never_there_is_an_error() -> None:
    """The hub cannot know whether there is a history."""

    class Away(Elsewhere):
        @asynccontextmanager
        async def connect(self, sink: Any) -> AsyncIterator[None]:
            sink.state(up=False)
            yield

    async with Hub(Away()) as hub:
        with pytest.raises(BackendError, match="has not been there yet"):
            await hub.history("a")


async def test_history_is_empty_without_history() -> None:
    """With history_size=0 there is nothing to return."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        await hub.publish("a", "x")
        assert await hub.history("a") == []
        assert not hub.keeps_history
