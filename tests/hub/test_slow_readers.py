"""Readers that do not keep up: the four overflow rules, with and without history."""

from typing import Any

import pytest

from hub.readers import data, framed, read, reason, take_all
from sse_asgi import Hub, MemoryBackend, SlowReaderError
from sse_asgi._hub.feed import SubscriptionFeed

pytestmark = pytest.mark.anyio


async def test_replay_catches_a_slow_reader_up() -> None:
    """With overflow="replay" no event is lost when the buffer is full."""
    async with Hub(buffer_size=4) as hub, hub.subscribe("a") as subscription:
        for number in range(50):
            await hub.publish("a", str(number))
        assert len(subscription.gate.buffer.entries) <= 4
        assert data(await take_all(subscription)) == [str(number) for number in range(50)]
        await hub.publish("a", "live again")
        assert data(await take_all(subscription)) == ["live again"]


async def test_replay_announces_what_history_no_longer_holds() -> None:
    """Events that history still holds are replayed. Only the others become a gap."""
    async with Hub(MemoryBackend(history_size=5), buffer_size=2) as hub, hub.subscribe("a") as subscription:
        for number in range(20):
            await hub.publish("a", str(number))
        events = await take_all(subscription)
    assert [reason(events[0]), *data(events[1:])] == ["trimmed", "15", "16", "17", "18", "19"]


async def test_replay_after_a_partly_read_buffer_begins_where_the_reader_is() -> None:
    """Events that were taken before the overflow do not come again."""
    async with Hub(buffer_size=4) as hub, hub.subscribe("a") as subscription:
        for number in range(4):
            await hub.publish("a", str(number))
        seen = data(await read(subscription, 2))
        for number in range(4, 20):
            await hub.publish("a", str(number))
        assert seen + data(await take_all(subscription)) == [str(number) for number in range(20)]


async def test_bytes_are_bounded_too() -> None:
    """A few large events fill a buffer as many small ones do."""
    async with Hub(buffer_bytes=1000) as hub, hub.subscribe("a") as subscription:
        for number in range(10):
            await hub.publish("a", str(number) * 300)
            assert sum(len(entry.frame) for entry in subscription.gate.buffer.entries) <= 1000
        assert data(await take_all(subscription)) == [str(number) * 300 for number in range(10)]


async def test_an_event_larger_than_the_buffer_is_admitted_when_it_is_empty() -> None:
    """It is held as any other event is."""
    async with Hub(buffer_bytes=10) as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "x" * 100)
        assert len(subscription.gate.buffer.entries) == 1
        assert data(await take_all(subscription)) == ["x" * 100]


async def test_close_ends_a_slow_reader_with_an_error() -> None:
    """With overflow="close" a direct reader gets SlowReaderError, never a silent end."""
    async with Hub(buffer_size=2, overflow="close") as hub, hub.subscribe("a") as subscription:
        for number in range(3):
            await hub.publish("a", str(number))
        with pytest.raises(SlowReaderError, match=r"more than \d+ events or 1048576 bytes were waiting: read faster"):
            await anext(subscription)


@pytest.mark.parametrize("iterated", [True, False])
async def test_a_reader_that_was_ended_gets_nothing_newer(*, iterated: bool) -> None:
    """It gets the events that waited when it was ended, even if it reads slowly. It comes back for the rest."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        async with subscription if iterated else framed(subscription) as reader:
            await hub.publish("a", "before")
            subscription.end("revoked")
            await hub.publish("a", "after")
            if isinstance(reader, SubscriptionFeed):
                assert b"data: before" in reader.take()
                await hub.publish("a", "later")
                assert reader.take() == b""
            else:
                assert data([event async for event in reader]) == ["before"]


async def test_drop_oldest_announces_what_it_drops() -> None:
    """The newest events stay, behind an sse.gap with the id just before them."""
    async with Hub(buffer_size=3, overflow="drop_oldest") as hub, hub.subscribe("a") as subscription:
        for number in range(10):
            await hub.publish("a", str(number))
        events = await take_all(subscription)
        assert [reason(events[0]), *data(events[1:])] == ["overflow", "7", "8", "9"]
        async with hub.subscribe("a", last_event_id=events[0].id) as again:
            assert data(await take_all(again)) == ["7", "8", "9"]


async def test_latest_keeps_the_newest_of_each_key() -> None:
    """When the buffer is full, older values of a key make room. Events without a key stay."""
    async with Hub(buffer_size=3, overflow="latest") as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "plain")
        for number in range(10):
            await hub.publish("a", f"x{number}", key="x")
            await hub.publish("a", f"y{number}", key="y")
        assert data(await take_all(subscription)) == ["plain", "x9", "y9"]


async def test_latest_replays_when_keys_are_not_enough() -> None:
    """The buffer cannot hold all keys, so the reader is caught up from history."""
    async with Hub(buffer_size=3, overflow="latest") as hub, hub.subscribe("a") as subscription:
        for number in range(10):
            await hub.publish("a", str(number), key=str(number))
        assert data(await take_all(subscription)) == [str(number) for number in range(10)]


@pytest.mark.parametrize("overflow", ["replay", "close", "drop_oldest", "latest"])
async def test_without_history_every_rule_drops_the_oldest(overflow: Any) -> None:
    """There is no history to replay, so the newest events stay behind an sse.gap, and no reader is closed."""
    hub = Hub(MemoryBackend(history_size=0), buffer_size=2, overflow=overflow)
    async with hub, hub.subscribe("a") as subscription:
        for number in range(5):
            await hub.publish("a", str(number))
        events = await take_all(subscription)
    assert [reason(events[0]), *data(events[1:])] == ["overflow", "3", "4"]
    assert [event.id for event in events] == [None] * 3


async def test_a_loss_after_dropping_is_one_recovery() -> None:
    """When the backend loses events while some were dropped, the reader is caught up once."""
    async with Hub(buffer_size=2, overflow="drop_oldest") as hub, hub.subscribe("a") as subscription:
        for number in range(5):
            await hub.publish("a", str(number))
        assert hub._registry is not None
        hub._registry.gap("fork", None)
        events = await take_all(subscription)
    assert [reason(events[0]), *data(events[1:])] == ["fork", "0", "1", "2", "3", "4"]
