"""Recovery: readers that come back or lose events get everything once and in order, or a gap in its place."""

import random
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.readers import OTHER_EPOCH, Steps, data, read, reason, take_all
from sse_asgi import Hub, MemoryBackend
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.event import History
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


async def test_a_burst_while_the_backend_subscribes_is_read_from_history() -> None:
    """More events than the buffer holds between registering and the backend's answer: none is missing."""

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            position = await super().subscribe(channels)
            for number in range(1, 9):
                await hub.publish("a", str(number))
            return position

    async with Hub(Slow(), buffer_size=2) as hub:
        first = await hub.publish("a", "0")
        async with hub.subscribe("a", last_event_id=first) as subscription:
            assert data(await take_all(subscription)) == [str(number) for number in range(1, 9)]
        async with hub.subscribe("a") as fresh:
            assert data(await take_all(fresh)) == [str(number) for number in range(1, 9)]


async def test_events_during_a_replay_come_once_and_in_order() -> None:
    """Live events that were read from history already are skipped. Later ones follow."""
    backend = Steps()
    async with Hub(backend) as hub:
        first = await hub.publish("a", "0")
        await hub.publish("a", "1")

        async def publish_meanwhile() -> None:
            backend.before = None
            await hub.publish("a", "2")

        backend.before = publish_meanwhile
        async with hub.subscribe("a", last_event_id=first) as subscription:
            await hub.publish("a", "3")
            assert data(await take_all(subscription)) == ["1", "2", "3"]


async def test_a_long_replay_is_read_in_pages() -> None:
    """Its events do not count as buffered. A page is read when the one before was taken."""
    backend = Steps(history_size=4 * PAGE)
    last = 2 * PAGE + PAGE // 2
    async with Hub(backend, buffer_size=2) as hub:
        first = await hub.publish("a", "0")
        for number in range(1, last):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", last_event_id=first) as subscription:
            assert backend.calls == 1
            assert data(await read(subscription, PAGE + 40)) == [str(number) for number in range(1, PAGE + 41)]
            assert backend.calls == 2
            assert data(await take_all(subscription)) == [str(number) for number in range(PAGE + 41, last)]
            assert subscription.recovery == ("resumed", last - 1, None)


async def test_held_events_may_be_dropped_and_read_again() -> None:
    """During a replay come more live events than the buffer holds: none is missing, and none comes twice."""
    backend = Steps()
    async with Hub(backend, buffer_size=2) as hub:
        first = await hub.publish("a", "0")

        async def burst() -> None:
            backend.after = None
            for number in range(1, 8):
                await hub.publish("a", str(number))

        backend.after = burst
        async with hub.subscribe("a", last_event_id=first) as subscription:
            await hub.publish("a", "8")
            assert data(await take_all(subscription)) == [str(number) for number in range(1, 9)]


async def test_trimming_between_two_pages_is_announced() -> None:
    """Events that fall out of history in the middle of a replay are a gap in their place."""
    size = 2 * PAGE + 88
    backend = MemoryBackend(history_size=size)
    async with Hub(backend) as hub:
        first = await hub.publish("a", "0")
        for number in range(1, size):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", last_event_id=first) as subscription:
            await read(subscription, PAGE)
            for number in range(size, 2 * size):
                await hub.publish("a", str(number))
            rest = await take_all(subscription)
    assert reason(rest[0]) == "trimmed"
    assert data(rest[1:]) == [str(number) for number in range(size, 2 * size)]


@pytest.mark.parametrize("bad", ["x", "5", "é", "0" * 4096, "\U0001f600", "00000000-", "sse.end"])
async def test_an_unreadable_id_is_a_gap(bad: str) -> None:
    """The stream begins with sse.gap. The events that are kept follow, then the live ones. It is never an error."""
    async with Hub() as hub:
        await hub.publish("a", "kept")
        async with hub.subscribe("a", last_event_id=bad) as subscription:
            assert subscription.recovery == ("gap", 1, "malformed")
            await hub.publish("a", "live")
            events = await take_all(subscription)
    assert reason(events[0]) == "malformed"
    assert data(events[1:]) == ["kept", "live"]


async def test_another_epoch_is_a_gap() -> None:
    """The id is from another life of the log."""
    async with Hub() as hub, hub.subscribe("a", last_event_id=OTHER_EPOCH) as subscription:
        assert subscription.recovery == ("gap", 0, "epoch")
        assert reason(await anext(subscription)) == "epoch"


async def test_an_id_from_the_future_is_a_fork() -> None:
    """This log never gave out the position."""
    async with Hub() as hub:
        epoch = str(await hub.publish("a", "x")).partition("-")[0]
        async with hub.subscribe("a", last_event_id=f"{epoch}-99") as subscription:
            assert reason(await anext(subscription)) == "fork"


async def test_a_gap_is_announced_first_and_once() -> None:
    """Its id is just before the event that follows, so a reader that resumes from it has no gap again."""
    async with Hub(MemoryBackend(history_size=3)) as hub:
        first = await hub.publish("a", "0")
        for number in range(1, 9):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", last_event_id=first) as subscription:
            events = await take_all(subscription)
        assert [reason(events[0]), *data(events[1:])] == ["trimmed", "6", "7", "8"]
        async with hub.subscribe("a", last_event_id=events[0].id) as again:
            assert again.recovery.outcome == "resumed"
            assert data(await take_all(again)) == ["6", "7", "8"]


async def test_a_loss_that_reaches_over_pages_is_announced_once() -> None:
    """The long history of a quiet channel comes before the events that the busy channel lost."""
    async with Hub(MemoryBackend(history_size=600)) as hub:
        first = await hub.publish("a", "0")
        for number in range(600):
            await hub.publish("b", str(number))
        for number in range(900):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", "b", last_event_id=first) as subscription:
            events = await take_all(subscription)
    assert [event.event for event in events].count("sse.gap") == 1
    assert len(events) == 1 + 600 + 600


async def test_a_gap_without_history_carries_the_current_position() -> None:
    """History is empty, and a reader that resumes from the gap's id misses no later event."""
    async with Hub() as hub:
        await hub.publish("b", "other")
        async with hub.subscribe("a", last_event_id=OTHER_EPOCH) as subscription:
            gap = await anext(subscription)
        await hub.publish("a", "later")
        async with hub.subscribe("a", last_event_id=gap.id) as again:
            assert again.recovery == ("resumed", 1, None)


async def test_lost_live_events_are_announced_in_their_place() -> None:
    """Every reader of the channel gets one gap for a loss that the backend reports, then the later events."""
    async with Hub() as hub, hub.subscribe("a") as subscription, hub.subscribe("b") as other:
        await hub.publish("a", "1")
        assert data(await read(subscription, 1)) == ["1"]
        assert hub._registry is not None
        hub._registry.gap("epoch", ("a",))
        await hub.publish("a", "2")
        events = await take_all(subscription)
        assert [reason(events[0]), *data(events[1:])] == ["epoch", "2"]
        assert await take_all(other) == []
        hub._registry.gap("epoch", None)
        assert [reason(event) for event in await take_all(other)] == ["epoch"]


async def test_lost_live_events_are_announced_without_history_too() -> None:
    """The gap comes although no event can be read again."""
    async with Hub(MemoryBackend(history_size=0)) as hub, hub.subscribe("a") as subscription:
        assert hub._registry is not None
        hub._registry.gap("fork", ("a",))
        assert reason(await anext(subscription)) == "fork"
        await hub.publish("a", "later")
        assert data(await take_all(subscription)) == ["later"]


class Unhurried(MemoryBackend):
    """A memory backend that lets other tasks run before and after each answer, as a backend behind a network does."""

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        await anyio.sleep(0)
        position = await super().subscribe(channels)
        for _ in range(3):
            await anyio.sleep(0)
        return position

    async def history(self, channels: Any, after: Any, upto: Position, limit: int) -> History:
        await anyio.sleep(0)
        page = await super().history(channels, after, upto, limit)
        await anyio.sleep(0)
        return page


@given(
    rng=st.randoms(use_true_random=False),
    buffer_size=st.sampled_from([1, 3, 50]),
    total=st.integers(1, 800),
    readers=st.integers(1, 12),
)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
async def test_each_readers_union_is_what_was_published(
    rng: random.Random, buffer_size: int, total: int, readers: int
) -> None:
    """Readers of random channels are cut and resumed at random: each gets all events once, in order."""
    rng = random.Random(rng.random())  # one draw is enough: the rest depends on the event loop's order as well
    names = ["a", "b", "c", "d"]
    published: list[tuple[str, set[str]]] = []
    hub = Hub(Unhurried(history_size=total), buffer_size=buffer_size, buffer_bytes=400)
    done = anyio.Event()
    results: list[tuple[set[str], list[str]]] = []

    async def publish() -> None:
        for number in range(total):
            channels = set(rng.sample(names, rng.choice([1, 1, 1, 2, 4])))
            published.append((str(number), channels))
            await hub.publish(channels, str(number))
        done.set()

    async def reader(channels: set[str], last_event_id: str) -> None:
        seen: list[str] = []
        while True:
            async with hub.subscribe(*channels, last_event_id=last_event_id) as subscription:
                assert subscription.recovery.outcome == "resumed"
                with anyio.move_on_after(rng.choice([0, 0.001, 0.01, 0.05])):
                    for _ in range(rng.randrange(1, 200)):
                        event = await anext(subscription)
                        seen.append(event.data or "")
                        last_event_id = event.id or ""
                        if rng.random() < 0.02:
                            await anyio.sleep(0.001)
            if done.is_set() and seen[-1:] == [number for number, where in published if where & channels][-1:]:
                break
        results.append((channels, seen))

    async with hub, anyio.create_task_group() as tasks:
        start = str(await hub.publish("other", "start"))
        for _ in range(readers):
            tasks.start_soon(reader, set(rng.sample(names, rng.randrange(1, 5))), start)
        tasks.start_soon(publish)
    assert len(results) == readers
    for channels, seen in results:
        assert seen == [number for number, where in published if where & channels]
