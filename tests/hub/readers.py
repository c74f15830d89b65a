"""Helpers for tests of subscriptions: reading until nothing is left, frames without a connection, slow backends."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sse_asgi import MemoryBackend, ServerSentEvent, Subscription
from sse_asgi._hub.feed import SubscriptionFeed
from sse_asgi._log.event import History
from sse_asgi._log.position import Position
from sse_asgi._loop.wakeup import new_wakeup

OTHER_EPOCH = "00000000-5"


async def take_all(subscription: Subscription) -> list[ServerSentEvent]:
    """Read until nothing more is there."""
    events = []
    while True:
        with anyio.move_on_after(0.02) as limit:
            events.append(await anext(subscription))
        if limit.cancelled_caught and not subscription.gate.behind:
            return events


async def read(subscription: Subscription, count: int) -> list[ServerSentEvent]:
    """Read so many events."""
    with anyio.fail_after(5):
        return [await anext(subscription) for _ in range(count)]


def data(events: list[ServerSentEvent]) -> list[str | None]:
    """Return the data of each event."""
    return [event.data for event in events]


def position_frame(position: object) -> bytes:
    """Return the frame that shows a position."""
    return f"id: {position}\nevent: sse.position\ndata: {{}}\n\n".encode()


def reason(event: ServerSentEvent) -> str:
    """Return why a gap was announced."""
    assert event.event == "sse.gap"
    assert event.data is not None
    return str(json.loads(event.data)["reason"])


@asynccontextmanager
async def framed(subscription: Subscription) -> AsyncIterator[SubscriptionFeed]:
    """Enter a subscription as a connection does whose own task sends."""
    feed = SubscriptionFeed(subscription)
    feed.attach(new_wakeup(), None)
    try:
        await feed.run()
        yield feed
    finally:
        await feed.close()


class Steps(MemoryBackend):
    """A memory backend whose history can be held up at each call, and that counts the calls."""

    def __init__(self, **options: Any) -> None:
        """Hold up nothing yet."""
        super().__init__(**options)
        self.calls = 0
        self.before: Any = None
        self.after: Any = None

    async def history(self, channels: Any, after: Any, upto: Position, limit: int) -> History:
        """Read a page between `before` and `after`."""
        self.calls += 1
        if self.before is not None:
            await self.before()
        page = await super().history(channels, after, upto, limit)
        if self.after is not None:
            await self.after()
        return page
