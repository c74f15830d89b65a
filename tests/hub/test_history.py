"""hub.history: which events it returns, and how much it reads for them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hub.backends import Elsewhere
from sse_asgi import BackendError, Hub, MemoryBackend

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


async def test_history_takes_a_number_of_events() -> None:
    """0 returns no events, and a negative number is refused."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        assert await hub.history("a", limit=0) == []
        with pytest.raises(ValueError, match=r"limit must be a number of events, at least 0 \(got -1\)"):
            await hub.history("a", limit=-1)


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
