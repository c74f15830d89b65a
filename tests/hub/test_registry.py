"""Registry: entering, leaving, delivering, reading history in turn, draining, counting."""

import itertools
import time
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from hub.readers import Steps, data, read, reason, take_all
from sse_asgi import BackendError, Hub, HubClosedError, MemoryBackend, ServerSentEvent
from sse_asgi._hub.delivery import Delivery
from sse_asgi._hub.registry import CONTROL, READS_AT_ONCE, Registry
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.event import Entry, History
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


async def test_leaving_lets_go_of_the_channel() -> None:
    """When the last reader has left, the hub forgets the channel."""
    async with Hub() as hub:
        registry = hub._registry
        assert registry is not None
        async with hub.subscribe("a"), hub.subscribe("a", "b"):
            assert registry._channels.keys() == {"a", "b"}
        assert not registry._channels


async def test_a_reader_who_gives_up_on_the_backend_leaves_nothing_behind() -> None:
    """The process never was subscribed, so it does not unsubscribe either."""

    class Stuck(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            await anyio.sleep_forever()
            raise AssertionError

        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            raise AssertionError

    async with Hub(Stuck()) as hub:
        with anyio.move_on_after(0.01):
            await hub.subscribe("a").__aenter__()
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_a_hub_that_is_closed_unsubscribes_from_everything_once() -> None:
    """A reader that leaves afterwards does not unsubscribe the hub that has been opened since."""
    calls: list[tuple[str, ...]] = []

    class Told(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            calls.append(channels)

    hub = Hub(Told())
    async with hub:
        subscription = await hub.subscribe("a", "b").__aenter__()
    assert calls == [("a", "b")]
    async with hub:
        await subscription.__aexit__()
        assert calls == [("a", "b")]


async def test_a_hub_that_is_closed_while_a_reader_enters() -> None:
    """A channel that is subscribed too late is unsubscribed at once, and entering raises HubClosedError."""
    calls: list[str] = []
    closed = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            await closed.wait()
            return await super().subscribe(channels)

        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            calls.extend(channels)

    async def visit() -> None:
        with pytest.raises(HubClosedError, match="cannot enter the subscription: the hub was closed"):
            await hub.subscribe("a").__aenter__()

    hub = Hub(Slow())
    async with anyio.create_task_group() as tasks:
        async with hub:
            tasks.start_soon(visit)
            await anyio.wait_all_tasks_blocked()
        assert calls == []
        closed.set()
    assert calls == ["a"]


async def test_first_readers_of_a_channel_wait_for_one_subscribe() -> None:
    """Two first readers make one call to the backend. A reader that enters while the last one leaves makes another."""
    calls: list[str] = []
    gate = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            calls.append("subscribe")
            await gate.wait()
            return await super().subscribe(channels)

        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            calls.append("unsubscribe")
            await anyio.sleep(0)
            await super().unsubscribe(channels)

    async def visit() -> None:
        async with hub.subscribe("a"):
            pass

    async with Hub(Slow()) as hub:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(visit)
            tasks.start_soon(visit)
            await anyio.wait_all_tasks_blocked()
            assert calls == ["subscribe"]
            gate.set()
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(visit)
        assert calls[-1] == "unsubscribe"
        assert calls.count("subscribe") == calls.count("unsubscribe")


async def test_a_reader_who_comes_while_the_last_one_leaves_is_subscribed_again() -> None:
    """It waits for the unsubscribe call, and then makes a subscribe call of its own."""
    calls: list[str] = []
    leaving, go_on = anyio.Event(), anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            calls.append("subscribe")
            return await super().subscribe(channels)

        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            leaving.set()
            await go_on.wait()
            calls.append("unsubscribe")

    async def visit() -> None:
        async with hub.subscribe("a"):
            pass

    async with Hub(Slow()) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await leaving.wait()
        async with anyio.create_task_group() as others:
            others.start_soon(visit)
            others.start_soon(visit)
            await anyio.wait_all_tasks_blocked()
            assert calls == ["subscribe"]
            go_on.set()
    assert calls == ["subscribe", "unsubscribe"] * 2


async def test_a_reader_who_gives_up_does_not_take_the_channel_from_the_next() -> None:
    """One reader leaves, one gives up waiting for that, one stays: the channel is subscribed for the third."""
    leaving, go_on = anyio.Event(), anyio.Event()

    class Slow(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            leaving.set()
            await go_on.wait()

    async def visit() -> None:
        async with hub.subscribe("a"):
            pass

    async def stay() -> None:
        async with hub.subscribe("a") as subscription:
            assert hub._registry is not None
            assert hub._registry._channels["a"].subscribed
            await hub.publish("a", "x")
            assert (await anext(subscription)).data == "x"

    async with Hub(Slow()) as hub, anyio.create_task_group() as tasks:
        tasks.start_soon(visit)
        await leaving.wait()
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(visit)
            await anyio.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
            tasks.start_soon(stay)
            tasks.start_soon(lambda: anyio.sleep(0))
            go_on.set()


class Counted(MemoryBackend):
    """Records the calls, which wait for the gate, and proves that a channel has one call at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, ...]] = []
        self.gate = anyio.Event()
        self._busy: set[str] = set()

    async def _called(self, channels: tuple[str, ...]) -> None:
        assert self._busy.isdisjoint(channels)
        self.calls.append(channels)
        self._busy.update(channels)
        try:
            await self.gate.wait()
        finally:
            self._busy.difference_update(channels)

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        await self._called(channels)
        return await super().subscribe(channels)

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        await self._called(channels)


async def test_many_channels_are_one_call() -> None:
    """A reader subscribes to all of its channels without a reader in one call, and unsubscribes in one call."""
    backend = Counted()
    backend.gate.set()
    names = [f"{number:02}" for number in range(50)]
    async with Hub(backend) as hub, hub.subscribe("07", "x"):
        async with hub.subscribe(*reversed(names)):
            pass
    own = tuple(name for name in names if name != "07")
    assert backend.calls[1:3] == [own, own]


@pytest.mark.parametrize("first", [("a", "b"), ("b", "a")])
async def test_readers_of_the_same_channels_do_not_wait_for_each_other_in_a_circle(first: tuple[str, str]) -> None:
    """The order in which they name the channels does not matter. The calls for one channel take turns."""
    backend = Counted()

    async def visit(*channels: str) -> None:
        async with hub.subscribe(*channels) as subscription:
            assert subscription.joined

    async with Hub(backend) as hub:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for channels in (first, ("b", "c"), ("c", "a"), ("b", "a"), ("c", "b", "a")):
                    tasks.start_soon(visit, *channels)
                await anyio.wait_all_tasks_blocked()
                backend.gate.set()
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_a_channel_of_all_readers_holds_up_none_of_their_own() -> None:
    """A reader that waited for another reader's call does not keep the next one waiting during its own call."""
    backend = Counted()

    async def visit(number: int) -> None:
        async with hub.subscribe("a room", f"user {number}"):
            await anyio.sleep_forever()

    async with Hub(backend) as hub, anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(visit, number)
        await anyio.wait_all_tasks_blocked()
        ((room, first),) = backend.calls
        assert room == "a room"
        backend.gate.set()
        backend.gate = anyio.Event()
        await anyio.wait_all_tasks_blocked()
        assert {(first,), *backend.calls[1:]} == {(f"user {number}",) for number in range(5)}
        backend.gate.set()
        tasks.cancel_scope.cancel()


async def test_who_gives_up_on_several_channels_leaves_those_of_others() -> None:
    """The channel that another reader waits for is passed on to that reader. The other one is forgotten."""
    backend = Counted()

    async def stay() -> None:
        async with hub.subscribe("a"):
            await anyio.sleep_forever()

    async with Hub(backend) as hub, anyio.create_task_group() as tasks:
        async with anyio.create_task_group() as impatient:
            impatient.start_soon(hub.subscribe("a", "b").__aenter__)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(stay)
            await anyio.wait_all_tasks_blocked()
            impatient.cancel_scope.cancel()
        assert hub._registry is not None
        assert set(hub._registry._channels) == {"a"}
        await anyio.wait_all_tasks_blocked()
        assert backend.calls == [("a", "b"), ("a",)]
        backend.gate.set()
        tasks.cancel_scope.cancel()


class Slow(MemoryBackend):
    """A memory backend that counts how many pages are read at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0

    async def history(self, *args: Any) -> History:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        self.now -= 1
        return await super().history(*args)


async def test_so_many_pages_are_read_at_a_time() -> None:
    """Many readers come back at once, and each of them gets the event that it missed."""
    backend = Slow()
    counts = []
    async with Hub(backend) as hub:
        first = await hub.publish("a", "0")
        await hub.publish("a", "1")

        async def resume() -> None:
            async with hub.subscribe("a", last_event_id=first) as subscription:
                counts.append(subscription.recovery.replayed)

        async with anyio.create_task_group() as tasks:
            for _ in range(3 * READS_AT_ONCE):
                tasks.start_soon(resume)
    assert backend.most == READS_AT_ONCE
    assert counts == [1] * 3 * READS_AT_ONCE


async def test_others_have_a_turn_between_two_pages() -> None:
    """A reader reads one page at most before every other task that is ready runs."""
    backend = Steps(history_size=8 * PAGE)
    turns: list[int] = []
    async with Hub(backend) as hub:
        first = await hub.publish("a", "0")
        for number in range(8 * PAGE - 1):
            await hub.publish("a", str(number))

        async def read_all() -> None:
            async with hub.subscribe("a", last_event_id=first) as subscription:
                await read(subscription, 8 * PAGE - 1)

        async def count() -> None:
            while turns[-1:] != [8]:
                turns.append(backend.calls)
                await anyio.lowlevel.checkpoint()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(count)
                tasks.start_soon(read_all)
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(turns))


# Delivering


def registry_of(hub: Hub) -> Registry:
    """Return the registry of an open hub."""
    assert hub._registry is not None
    return hub._registry


async def test_an_event_of_several_channels_is_offered_once_to_each_reader() -> None:
    """A reader of two of them gets it once, too."""
    async with Hub() as hub, hub.subscribe("a", "b") as both, hub.subscribe("b") as one:
        await hub.publish(["a", "b", "c"], "x")
        assert data(await take_all(both)) == data(await take_all(one)) == ["x"]


async def test_the_position_moves_with_each_event_and_without_one() -> None:
    """An event without a position does not move it."""
    async with Hub() as hub:
        registry = registry_of(hub)
        await hub.publish("nobody reads it", "x")
        moved = registry.position()
        assert moved is not None
        registry.deliver(Entry(ServerSentEvent("x"), None, ("a",)))
        assert registry.position() == moved
        registry.advance(later := moved._replace(sequence=moved.sequence + 5))
        assert registry.position() == later


async def test_only_the_first_event_after_a_pause_goes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The events that follow within the pause are joined; so are those of a channel whose delivery took longer."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 0.05)
    offered: list[bool] = []

    class Receiver:
        seconds = 0.0

        def offer(self, delivery: Delivery) -> None:
            offered.append(delivery.at_once)
            time.sleep(self.seconds)

    async with Hub() as hub:
        registry, subscription, receiver = registry_of(hub), hub.subscribe("a"), Receiver()
        await registry.enter(subscription, receiver)
        for seconds, receiver.seconds in ((0.1, 0), (0, 0), (0, 0), (0.1, 0.2), (0.1, 0)):
            await anyio.sleep(seconds)
            registry.deliver(Entry(ServerSentEvent("x"), None, ("a",)))
        await registry.leave(subscription)
    assert offered[:2] == [True, False]
    assert offered[3:] == [True, False]


async def test_a_gap_reaches_the_readers_of_its_channels() -> None:
    """With no channels named it reaches all."""
    async with Hub() as hub, hub.subscribe("a") as one, hub.subscribe("b") as other:
        registry_of(hub).gap("epoch", ("a", "unknown"))
        assert [reason(event) for event in await take_all(one)] == ["epoch"]
        assert await take_all(other) == []
        registry_of(hub).gap("fork", None)
        assert [reason(event) for event in await take_all(other)] == ["fork"]


# Ending, and looking inside


async def test_draining_ends_readers_and_waits_for_them_up_to_its_patience() -> None:
    """The hub's own reader stays, and two can drain at once."""
    async with Hub() as hub, anyio.create_task_group() as tasks:
        registry = registry_of(hub)
        async with hub.subscribe("a") as stays:
            with anyio.fail_after(5):
                await registry.drain(0.01)
            assert stays.ended == "shutdown"

        async def read_to_the_end() -> None:
            async with hub.subscribe("a") as subscription:
                assert [event async for event in subscription] == []

        tasks.start_soon(read_to_the_end)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            async with anyio.create_task_group() as drains:
                drains.start_soon(registry.drain, 4.0)
                drains.start_soon(registry.drain, 4.0)
        assert registry.subscriptions() == []


async def test_a_registry_that_was_closed_takes_no_reader() -> None:
    """A subscription that was made before cannot be entered after."""
    async with Hub() as hub:
        late = hub.subscribe("a")
    with pytest.raises(HubClosedError, match="cannot enter the subscription: the hub was closed"):
        await late.__aenter__()


async def test_the_hubs_own_reader_is_not_counted() -> None:
    """Its channel is not counted either. The counters include every other reader."""
    async with Hub(buffer_size=2, overflow="drop_oldest") as hub, hub.subscribe("a", identity="ada") as one:
        registry = registry_of(hub)
        await anyio.wait_all_tasks_blocked()
        assert CONTROL in registry._channels
        for number in range(4):
            await hub.publish("a", str(number))
        await take_all(one)
        await hub.publish("a", "waits")
        assert registry.subscriptions() == registry.subscriptions("a") == [one]
        assert registry.subscriptions("c") == []
        found = registry.stats()
    assert (found.connections, found.channels) == (1, {"a": 1})
    assert (found.drops, found.gaps, found.published) == (2, 1, 5)
    assert (found.buffered_events, found.buffered_bytes) == (
        1,
        sum(len(entry.frame) for entry in one.gate.buffer.entries),
    )
    assert found.buffered_bytes > 0


async def test_a_reader_is_listed_while_it_is_entered() -> None:
    """It is listed on the channels that it asked for, and on no others."""
    async with Hub(presence_grace=0) as hub:
        async with hub.subscribe("a", "b", identity="ada", presence="a"):
            assert await registry_of(hub).presence.present("a") == ["ada"]
            assert await registry_of(hub).presence.present("b") == []


async def test_the_backend_is_asked_for_everything_else() -> None:
    """It passes on: reading a page, finding the newest events, waiting for deliveries, the backend's state."""
    async with Hub() as hub:
        registry = registry_of(hub)
        ids = [await hub.publish("a", str(number)) for number in range(3)]
        upto = registry.position()
        assert upto is not None
        await registry.reach()
        assert str(await registry.rewind(("a",), 2, upto)) == ids[0]
        page = await registry.page(("a",), None, upto, 10)
        assert [str(entry.position) for entry in page.entries] == ids
        assert hub.state == "up"
        registry.state(up=False)
        assert hub.state == "down"


async def test_deliveries_are_counted() -> None:
    """An event once for each reader that was given it, with its bytes, and what was read from history."""
    async with Hub() as hub:
        registry = registry_of(hub)
        async with hub.subscribe("a") as one, hub.subscribe("a", "b", transform=lambda *_: None) as filtered:
            ids = [await hub.publish("a", "x"), await hub.publish("b", "y")]
            await take_all(one)
            await take_all(filtered)
            found = registry.stats()
            assert (found.delivered, found.delivered_bytes) == (1, len(f"id: {ids[0]}\ndata: x\n\n"))
        async with hub.subscribe("a", "b", last_event_id=ids[0]) as again:
            await take_all(again)
        assert (registry.stats().delivered, registry.stats().replayed) == (2, 1)
        assert registry.stats().gaps_by_reason == {}


async def test_the_librarys_own_channels_are_not_counted() -> None:
    """An order of `hub.disconnect` is an event for the hub only."""
    async with Hub() as hub, hub.subscribe("a", identity="ada"):
        await anyio.wait_all_tasks_blocked()
        await hub.disconnect(identity="bob")
        await anyio.wait_all_tasks_blocked()
        assert registry_of(hub).stats().delivered == 0


async def test_the_end_of_an_outage_is_counted() -> None:
    """The first connection is not the end of an outage, and a backend that stays up has none."""

    class Away(MemoryBackend):
        def connect(self, sink: Any) -> Any:
            sink.state(up=False)
            sink.state(up=True)
            return super().connect(sink)

    async with Hub(Away()) as hub:
        registry = registry_of(hub)
        assert registry.tally.reconnects == 0
        for up in (True, False, False, True, True):
            registry.state(up=up)
        assert registry.stats().reconnects == 1


async def test_a_delivery_tells_when_it_was_sent() -> None:
    """To readers of their own, that is when it was offered to the last one; None skips an event."""
    told: list[float] = []
    async with Hub() as hub, hub.subscribe("a"):
        registry = registry_of(hub)
        registry.when_sent = lambda delivery: None if "skip" in str(delivery.entry.event) else told.append
        began = time.monotonic()
        await hub.publish("a", "x")
        await hub.publish("a", "skip")
        assert began <= told[0] <= time.monotonic()
        assert len(told) == 1


async def test_failures_to_publish_are_counted() -> None:
    """By the type of the exception, wherever the event comes from."""

    class Refusing(MemoryBackend):
        async def publish(self, *_: Any, **__: Any) -> Position | None:
            msg = "away"
            raise BackendError(msg)

    async with Hub(Refusing()) as hub:
        with pytest.raises(BackendError):
            await hub.publish("a", "x")
        hub.publish_soon("a", "x")
        await anyio.wait_all_tasks_blocked()
        assert registry_of(hub).tally.errors == {"BackendError": 2}
