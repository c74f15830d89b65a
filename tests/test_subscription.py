"""Subscription: the replay gate, recovery, gaps, overflow, and what each reader gets."""

import itertools
import json
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import anyio
import anyio.lowlevel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sse_asgi import Hub, HubClosedError, MemoryBackend, ServerSentEvent, SlowReaderError, Subscription
from sse_asgi._hub.registry import READS_AT_ONCE
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.event import History
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio

OTHER_EPOCH = "00000000-5"


async def take_all(subscription: Subscription) -> list[ServerSentEvent]:
    """Read until nothing more is there."""
    events = []
    while True:
        with anyio.move_on_after(0.02) as limit:
            events.append(await anext(subscription))
        if limit.cancelled_caught and not subscription.behind:
            return events


async def read(subscription: Subscription, count: int) -> list[ServerSentEvent]:
    with anyio.fail_after(5):
        return [await anext(subscription) for _ in range(count)]


def data(events: list[ServerSentEvent]) -> list[str | None]:
    return [event.data for event in events]


def position_frame(position: object) -> bytes:
    return f"id: {position}\nevent: sse.position\ndata: {{}}\n\n".encode()


def reason(event: ServerSentEvent) -> str:
    assert event.event == "sse.gap"
    assert event.data is not None
    return str(json.loads(event.data)["reason"])


class Steps(MemoryBackend):
    """A memory backend whose history can be held up at each call, and counts them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls = 0
        self.before: Any = None
        self.after: Any = None

    async def history(self, channels: Any, after: Any, upto: Position, limit: int) -> History:
        self.calls += 1
        if self.before is not None:
            await self.before()
        page = await super().history(channels, after, upto, limit)
        if self.after is not None:
            await self.after()
        return page


# Entering


async def test_a_fresh_reader_gets_what_comes_later() -> None:
    """Without an id a reader begins now."""
    async with Hub() as hub:
        await hub.publish("a", "before")
        async with hub.subscribe("a") as subscription:
            assert subscription.recovery == ("fresh", 0, None)
            await hub.publish("a", "after")
            assert data(await take_all(subscription)) == ["after"]


async def test_an_empty_id_is_fresh_on_purpose() -> None:
    """`last_event_id=""` is no gap."""
    async with Hub() as hub, hub.subscribe("a", last_event_id="") as subscription:
        assert subscription.recovery.outcome == "fresh"


async def test_a_resumed_reader_misses_nothing() -> None:
    """Everything after the id comes from history, then live."""
    async with Hub() as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        await hub.publish("b", "3")
        async with hub.subscribe("a", "b", last_event_id=first) as subscription:
            assert subscription.recovery == ("resumed", 2, None)
            await hub.publish("a", "4")
            assert data(await take_all(subscription)) == ["2", "3", "4"]


async def test_entering_twice_is_refused() -> None:
    """A subscription is one reader's, once."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        async with subscription:
            with pytest.raises(RuntimeError, match="entered once"):
                await subscription.__aenter__()
        with pytest.raises(RuntimeError, match="entered once"):
            await subscription.__aenter__()


async def test_iterating_outside_is_refused() -> None:
    """It says to enter first."""
    async with Hub() as hub:
        with pytest.raises(RuntimeError, match="async with subscription"):
            await anext(hub.subscribe("a"))


async def test_an_id_of_a_wrong_type_is_refused() -> None:
    """last_event_id is a str."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="last_event_id"):
            hub.subscribe("a", last_event_id=5)  # type: ignore[arg-type]


async def test_leaving_lets_go_of_the_channel() -> None:
    """After the last reader nothing of a channel is left in the hub."""
    async with Hub() as hub:
        registry = hub._registry
        assert registry is not None
        async with hub.subscribe("a"), hub.subscribe("a", "b"):
            assert registry._channels.keys() == {"a", "b"}
        assert not registry._channels


async def test_a_failing_entry_leaves_nothing_behind() -> None:
    """An exception while entering takes the reader out again."""

    async def fail() -> None:
        msg = "snapshot"
        raise LookupError(msg)

    async with Hub() as hub:
        with pytest.raises(LookupError):
            await hub.subscribe("a", snapshot=fail).__aenter__()
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_a_cancelled_entry_leaves_nothing_behind() -> None:
    """Nor does a cancellation, at any level."""
    backend = Steps()
    backend.before = anyio.sleep_forever
    async with Hub(backend) as hub:
        first = await hub.publish("a", "x")
        with anyio.move_on_after(0.01):
            await hub.subscribe("a", last_event_id=first).__aenter__()
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_a_reader_who_gives_up_on_the_backend_leaves_nothing_behind() -> None:
    """The backend was not told of a reader, so it is not told of the end either."""

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
    """Whoever leaves it afterwards does not take a channel from the hub that has been opened since."""
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
    """What is subscribed too late is unsubscribed at once, and the reader hears that the hub was closed."""
    calls: list[str] = []
    closed = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
            await closed.wait()
            return await super().subscribe(channels)

        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            calls.extend(channels)

    async def visit() -> None:
        with pytest.raises(HubClosedError, match="cannot enter the subscription"):
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
    """Two first readers make one call to the backend, and a reader who comes while the last leaves one more."""
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
    """It waits for the unsubscribe, and then makes a subscribe of its own."""
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
    """One leaves, one gives up waiting for that, one stays: the channel is subscribed for the last."""
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
    """Writes down the calls, which do not return before the gate is open, and proves that each channel has one."""

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
    """A reader subscribes to all of its channels that nobody reads yet at once, and leaves them at once."""
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
    """In whatever order they name them, while the calls for one channel take turns."""
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
    """Who waited for a call of another does not keep the next one waiting during its own."""
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
    """A channel that another waits for goes on to it, and the rest is forgotten."""
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


# The gate


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
    """Live events that history already held are skipped, later ones follow."""
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
    """It does not count as buffered, and each page is read when the one before was taken."""
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
    """More live events during a replay than the buffer holds: none is missing, none twice."""
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
    """What falls out of history in the middle of a replay is a gap in its place."""
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


# Rewinding


@pytest.mark.parametrize(("count", "expected"), [(1, ["9"]), (3, ["7", "8", "9"]), (10, list("0123456789"))])
async def test_a_fresh_reader_can_begin_with_the_newest_events(count: int, expected: list[str]) -> None:
    """As many as it asks for, in order, with their ids, then what is published later, once."""
    async with Hub() as hub:
        for number in range(10):
            await hub.publish("ab"[number % 2], str(number))
        async with hub.subscribe("a", "b", rewind=count) as subscription:
            live = await hub.publish("a", "live")
            events = await take_all(subscription)
            assert subscription.recovery == ("fresh", count, None)
    assert data(events) == [*expected, "live"]
    assert events[-1].id == live


@pytest.mark.parametrize("count", [math.inf, 10**20, 2 * PAGE])
async def test_a_fresh_reader_can_begin_with_all_that_is_kept(count: float) -> None:
    """Over several pages, and without a gap, although older events were trimmed from one of its channels."""
    size = PAGE + PAGE // 2
    async with Hub(MemoryBackend(history_size=size)) as hub:
        await hub.publish("quiet", "the oldest")
        for number in range(2 * size):
            await hub.publish("busy", str(number))
        async with hub.subscribe("quiet", "busy", rewind=count) as subscription:
            events = await read(subscription, size + 1)
    assert data(events) == ["the oldest", *map(str, range(size, 2 * size))]


async def test_what_falls_out_while_a_reader_rewinds_is_announced() -> None:
    """A hole in the middle of what it was to get is a gap like any other."""
    async with Hub(MemoryBackend(history_size=2 * PAGE)) as hub:
        for number in range(2 * PAGE):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", rewind=math.inf) as subscription:
            await read(subscription, PAGE)
            for number in range(2 * PAGE, 4 * PAGE):
                await hub.publish("a", str(number))
            rest = await read(subscription, 2 * PAGE + 1)
    assert reason(rest[0]) == "trimmed"
    assert data(rest[1:]) == [str(number) for number in range(2 * PAGE, 4 * PAGE)]


async def test_a_resumed_reader_does_not_rewind() -> None:
    """It goes on after its id."""
    async with Hub() as hub:
        await hub.publish("a", "0")
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        async with hub.subscribe("a", rewind=math.inf, last_event_id=first) as subscription:
            assert data(await take_all(subscription)) == ["2"]


async def test_initial_events_come_before_the_newest() -> None:
    """Then what was published, then what is published."""
    async with Hub() as hub:
        await hub.publish("a", "kept")
        async with hub.subscribe("a", initial=["initial"], rewind=5) as subscription:
            await hub.publish("a", "live")
            assert data(await take_all(subscription)) == ["initial", "kept", "live"]


async def test_no_position_is_written_before_the_newest_events() -> None:
    """A reader that is cut off before the first of them begins afresh, and gets them."""
    async with Hub() as hub:
        last = await hub.publish("a", "kept")
        async with framed(hub, rewind=1) as subscription:
            assert subscription.take() == f"id: {last}\ndata: kept\n\n".encode()


async def test_a_reader_for_which_nothing_is_kept_begins_with_a_position() -> None:
    """As any fresh reader does."""
    async with Hub() as hub:
        last = await hub.publish("b", "elsewhere")
        async with framed(hub, rewind=1) as subscription:
            assert f"id: {last}\n".encode() in subscription.take()
        async with framed(hub, rewind=1, position_frames=False) as subscription:
            assert subscription.take() == b""


async def test_without_history_there_is_nothing_to_rewind() -> None:
    """The stream begins now."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        await hub.publish("a", "before")
        async with hub.subscribe("a", rewind=math.inf) as subscription:
            await hub.publish("a", "live")
            assert data(await take_all(subscription)) == ["live"]


@pytest.mark.parametrize("rewind", [-1, 1.5, math.nan, -math.inf])
async def test_a_rewind_that_is_not_a_number_of_events_is_refused(rewind: float) -> None:
    """The error says what it must be."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match=r"rewind must be a whole number of events, at least 0, or math\.inf"):
            hub.subscribe("a", rewind=rewind)


@pytest.mark.parametrize("rewind", ["all", None, True])
async def test_a_rewind_that_is_not_a_number_is_refused(rewind: Any) -> None:
    """The error says how to ask for all."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=r"math\.inf for all"):
            hub.subscribe("a", rewind=rewind)


async def test_a_snapshot_excludes_rewinding() -> None:
    """It stands for all events before it."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="rewind and snapshot exclude each other"):
            hub.subscribe("a", rewind=1, snapshot=AsyncMock())


# Fairness


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
    """However many readers come back at once, all of them get what they missed."""
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
    """A reader reads at most one page before everything else that is ready runs."""
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


# Gaps


@pytest.mark.parametrize("bad", ["x", "5", "é", "0" * 4096, "\U0001f600", "00000000-", "sse.end"])
async def test_an_unreadable_id_is_a_gap(bad: str) -> None:
    """The stream begins with sse.gap, then what is kept, then live; never an error."""
    async with Hub() as hub:
        await hub.publish("a", "kept")
        async with hub.subscribe("a", last_event_id=bad) as subscription:
            assert subscription.recovery == ("gap", 1, "malformed")
            await hub.publish("a", "live")
            events = await take_all(subscription)
    assert reason(events[0]) == "malformed"
    assert data(events[1:]) == ["kept", "live"]


async def test_another_epoch_is_a_gap() -> None:
    """An id from another life of the log."""
    async with Hub() as hub, hub.subscribe("a", last_event_id=OTHER_EPOCH) as subscription:
        assert subscription.recovery == ("gap", 0, "epoch")
        assert reason(await anext(subscription)) == "epoch"


async def test_an_id_from_the_future_is_a_fork() -> None:
    """A position that this log never gave out."""
    async with Hub() as hub:
        epoch = str(await hub.publish("a", "x")).partition("-")[0]
        async with hub.subscribe("a", last_event_id=f"{epoch}-99") as subscription:
            assert reason(await anext(subscription)) == "fork"


async def test_a_gap_is_announced_first_and_once() -> None:
    """Its id is just before the first event that follows, so that resuming from it is no gap again."""
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
    """A quiet channel's long history comes before what the busy one lost."""
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
    """Nothing is left: resuming from the gap's id misses nothing later."""
    async with Hub() as hub:
        await hub.publish("b", "other")
        async with hub.subscribe("a", last_event_id=OTHER_EPOCH) as subscription:
            gap = await anext(subscription)
        await hub.publish("a", "later")
        async with hub.subscribe("a", last_event_id=gap.id) as again:
            assert again.recovery == ("resumed", 1, None)


async def test_lost_live_events_are_announced_in_their_place() -> None:
    """What the backend reports as lost reaches every reader of the channel once, then it goes on."""
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
    """Also where nothing can be read again."""
    async with Hub(MemoryBackend(history_size=0)) as hub, hub.subscribe("a") as subscription:
        assert hub._registry is not None
        hub._registry.gap("fork", ("a",))
        assert reason(await anext(subscription)) == "fork"
        await hub.publish("a", "later")
        assert data(await take_all(subscription)) == ["later"]


# Overflow


async def test_replay_catches_a_slow_reader_up() -> None:
    """With overflow="replay" a full buffer loses nothing."""
    async with Hub(buffer_size=4) as hub, hub.subscribe("a") as subscription:
        for number in range(50):
            await hub.publish("a", str(number))
        assert len(subscription._buffer.entries) <= 4
        assert data(await take_all(subscription)) == [str(number) for number in range(50)]
        await hub.publish("a", "live again")
        assert data(await take_all(subscription)) == ["live again"]


async def test_replay_announces_what_history_no_longer_holds() -> None:
    """Only that becomes a gap."""
    async with Hub(MemoryBackend(history_size=5), buffer_size=2) as hub, hub.subscribe("a") as subscription:
        for number in range(20):
            await hub.publish("a", str(number))
        events = await take_all(subscription)
    assert [reason(events[0]), *data(events[1:])] == ["trimmed", "15", "16", "17", "18", "19"]


async def test_replay_after_a_partly_read_buffer_begins_where_the_reader_is() -> None:
    """What was taken before the overflow does not come again."""
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
            assert sum(len(entry.frame) for entry in subscription._buffer.entries) <= 1000
        assert data(await take_all(subscription)) == [str(number) * 300 for number in range(10)]


async def test_an_event_larger_than_the_buffer_is_admitted_when_it_is_empty() -> None:
    """It is delivered without a detour."""
    async with Hub(buffer_bytes=10) as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "x" * 100)
        assert len(subscription._buffer.entries) == 1
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
    """However slowly it reads: what was pending is all that it gets, and it comes back for the rest."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "before")
        subscription.end("revoked")
        await hub.publish("a", "after")
        if iterated:
            assert data([event async for event in subscription]) == ["before"]
        else:
            assert b"data: before" in subscription.take()
            await hub.publish("a", "later")
            assert subscription.take() == b""


async def test_drop_oldest_announces_what_it_drops() -> None:
    """The newest stay, behind an sse.gap whose id is just before them."""
    async with Hub(buffer_size=3, overflow="drop_oldest") as hub, hub.subscribe("a") as subscription:
        for number in range(10):
            await hub.publish("a", str(number))
        events = await take_all(subscription)
        assert [reason(events[0]), *data(events[1:])] == ["overflow", "7", "8", "9"]
        async with hub.subscribe("a", last_event_id=events[0].id) as again:
            assert data(await take_all(again)) == ["7", "8", "9"]


async def test_latest_keeps_the_newest_of_each_key() -> None:
    """When the buffer is full, older values of a key make room; events without a key stay."""
    async with Hub(buffer_size=3, overflow="latest") as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "plain")
        for number in range(10):
            await hub.publish("a", f"x{number}", key="x")
            await hub.publish("a", f"y{number}", key="y")
        assert data(await take_all(subscription)) == ["plain", "x9", "y9"]


async def test_latest_replays_when_keys_are_not_enough() -> None:
    """Too many keys for the buffer: caught up from history."""
    async with Hub(buffer_size=3, overflow="latest") as hub, hub.subscribe("a") as subscription:
        for number in range(10):
            await hub.publish("a", str(number), key=str(number))
        assert data(await take_all(subscription)) == [str(number) for number in range(10)]


@pytest.mark.parametrize("overflow", ["replay", "close", "drop_oldest", "latest"])
async def test_without_history_every_rule_drops_the_oldest(overflow: Any) -> None:
    """There is nothing to replay: the newest stay behind an sse.gap, and nobody is cut."""
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


# What a reader gets


async def test_initial_events_come_first_on_a_fresh_stream_only() -> None:
    """Not when it resumes, nor after a gap."""
    async with Hub() as hub:
        first = await hub.publish("a", "x")
        async with hub.subscribe("a", initial=["hello", ServerSentEvent("!", event="e")]) as fresh:
            await hub.publish("a", "live")
            assert data(await take_all(fresh)) == ["hello", "!", "live"]
        for last_event_id in (first, OTHER_EPOCH):
            async with hub.subscribe("a", initial=["hello"], last_event_id=last_event_id) as later:
                assert "hello" not in data(await take_all(later))


@pytest.mark.parametrize("initial", ["text", b"bytes", {"a": 1}, ServerSentEvent("x"), 5, lambda: ["x"]])
async def test_initial_must_be_a_collection_of_events(initial: Any) -> None:
    """A single event, or a function, is a TypeError that shows the form."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=r"initial=\[\.\.\.\]"):
            hub.subscribe("a", initial=initial)


async def test_initial_events_have_no_id() -> None:
    """The ids of a stream are positions."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="id"):
            hub.subscribe("a", initial=[ServerSentEvent("x", id="1")])


async def test_a_snapshot_comes_before_every_later_event() -> None:
    """Its id is the position before the call, and what is published meanwhile follows."""
    async with Hub() as hub:
        before = await hub.publish("a", "before")

        async def state() -> dict[str, int]:
            await hub.publish("a", "meanwhile")
            return {"n": 1}

        async with hub.subscribe("a", snapshot=state, initial=["hi"]) as subscription:
            events = await take_all(subscription)
    assert data(events) == ["hi", '{"n":1}', "meanwhile"]
    assert (events[1].event, events[1].id) == ("snapshot", before)


async def test_a_snapshot_is_an_async_function() -> None:
    """A plain one is a TypeError that says so."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="async function"):
            await hub.subscribe("a", snapshot=lambda: 5).__aenter__()  # type: ignore[arg-type, return-value]


async def test_a_snapshot_may_be_an_event_of_its_own() -> None:
    """Its type is kept, its id is not."""

    async def state() -> ServerSentEvent:
        return ServerSentEvent("s", event="init", id="mine")

    async with Hub() as hub, hub.subscribe("a", snapshot=state) as subscription:
        event = await anext(subscription)
    assert event.event == "init"
    assert Position.parse(event.id or "")


async def test_a_resumed_reader_needs_no_snapshot() -> None:
    """It is skipped when history has everything."""

    async def state() -> str:
        raise AssertionError

    async with Hub() as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        async with hub.subscribe("a", snapshot=state, last_event_id=first) as subscription:
            assert data(await take_all(subscription)) == ["2"]


async def test_after_a_gap_a_snapshot_replaces_history() -> None:
    """Gap, snapshot, then only later events; the gap has no id, because the snapshot is still to come."""

    async def state() -> str:
        await hub.publish("a", "meanwhile")
        return "state"

    async with Hub() as hub:
        await hub.publish("a", "kept")
        async with hub.subscribe("a", snapshot=state, last_event_id="bad") as subscription:
            events = await take_all(subscription)
    assert [reason(events[0]), *data(events[1:])] == ["malformed", "state", "meanwhile"]
    assert events[0].id is None


async def test_events_held_during_a_snapshot_may_be_dropped_and_read_again() -> None:
    """A slow snapshot under a burst larger than the buffer loses nothing."""

    async def state() -> str:
        for number in range(20):
            await hub.publish("a", str(number))
        return "state"

    async with Hub(buffer_size=3) as hub, hub.subscribe("a", snapshot=state) as subscription:
        assert data(await take_all(subscription)) == ["state", *(str(number) for number in range(20))]


async def test_a_snapshot_without_history_has_no_id() -> None:
    """There are no positions then; what is published meanwhile follows all the same."""

    async def state() -> str:
        await hub.publish("a", "meanwhile")
        return "state"

    async with Hub(MemoryBackend(history_size=0)) as hub, hub.subscribe("a", snapshot=state) as subscription:
        events = await take_all(subscription)
    assert [(event.data, event.id) for event in events] == [("state", None), ("meanwhile", None)]


async def test_transform_personalises_and_filters() -> None:
    """It gets the event with id and channels, and the properties; the position stays the hub's."""
    seen: list[tuple[str | None, tuple[str, ...]]] = []

    def transform(event: ServerSentEvent, name: str) -> Any:
        seen.append((event.id, event.channels))
        if event.data == "skip":
            return None
        return ServerSentEvent(f"{event.data} for {name}", id="mine") if event.data == "1" else {"n": event.data}

    async with Hub() as hub, hub.subscribe("a", properties="ann", transform=transform) as subscription:
        first = await hub.publish(["a", "b"], "1")
        await hub.publish("a", "skip")
        last = await hub.publish("a", "3")
        events = await take_all(subscription)
    assert [(event.data, event.id) for event in events] == [("1 for ann", first), ('{"n":"3"}', last)]
    assert seen[0] == (first, ("a",))


async def test_a_failing_transform_is_a_gap_for_that_reader_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and neither the event nor the error's details reach the reader."""

    def transform(event: ServerSentEvent, _: Any) -> ServerSentEvent:
        if event.data == "2":
            msg = "secret"
            raise LookupError(msg)
        return event

    async with Hub() as hub, hub.subscribe("a", transform=transform) as broken, hub.subscribe("a") as well:
        ids = [await hub.publish("a", str(number)) for number in (1, 2, 3)]
        events = await take_all(broken)
        assert data(await take_all(well)) == ["1", "2", "3"]
    assert [events[0].data, reason(events[1]), events[2].data] == ["1", "error", "3"]
    assert [event.id for event in events] == ids
    assert "secret" not in (events[1].data or "")
    assert "secret" in caplog.text


@pytest.mark.parametrize("option", ["transform", "snapshot"])
async def test_functions_are_passed_uncalled(option: str) -> None:
    """Anything else is a TypeError."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=option):
            hub.subscribe("a", **{option: "result"})  # type: ignore[arg-type]


async def test_without_history_every_connection_is_fresh() -> None:
    """Events carry no id, an id that is sent all the same is no gap."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        async with hub.subscribe("a", last_event_id="bad", initial=["hi"]) as subscription:
            assert subscription.recovery.outcome == "fresh"
            await hub.publish("a", "x")
            events = await take_all(subscription)
    assert [(event.data, event.id) for event in events] == [("hi", None), ("x", None)]


# The frames that a response takes


@asynccontextmanager
async def framed(hub: Hub, **options: Any) -> AsyncIterator[Subscription]:
    async with hub.subscribe("a", **options) as subscription:
        yield subscription


async def test_a_fresh_stream_begins_with_the_position() -> None:
    """So that a reader who got no event yet resumes from the right place."""
    async with Hub() as hub:
        position = await hub.publish("a", "before")
        async with framed(hub) as subscription:
            assert subscription.take() == position_frame(position)
            assert subscription.take() == b""


async def test_the_position_comes_after_the_initial_events() -> None:
    """Whoever is cut off among them gets them again: no id is ahead of an unsent event."""
    async with Hub() as hub, framed(hub, initial=["1", "2"]) as subscription:
        frames = subscription.take()
    assert frames.index(b"id:") > frames.index(b"data: 2")


async def test_a_snapshot_brings_the_position_itself() -> None:
    """No id is written before it."""

    async def state() -> str:
        return "s"

    async with Hub() as hub, framed(hub, snapshot=state) as subscription:
        frames = subscription.take()
    assert frames.startswith(b"id: ")
    assert frames.count(b"id:") == 1


async def test_a_resumed_stream_writes_no_id_of_its_own() -> None:
    """The first id is the first event's."""
    async with Hub() as hub:
        first = await hub.publish("a", "1")
        second = await hub.publish("a", "2")
        async with framed(hub, last_event_id=first) as subscription:
            assert subscription.take() == f"id: {second}\ndata: 2\n\n".encode()


async def test_what_is_pending_goes_out_in_one_body() -> None:
    """Joined, up to 64 KiB; a larger event goes alone."""
    async with Hub(buffer_size=1000) as hub, framed(hub) as subscription:
        subscription.take()
        for number in range(100):
            await hub.publish("a", str(number))
        assert subscription.take().count(b"data:") == 100
        for _ in range(10):
            await hub.publish("a", "x" * 20_000)
        await hub.publish("a", "y" * 100_000)
        sizes = []
        while body := subscription.take():
            sizes.append(len(body))
    assert max(sizes[:-1]) <= 64 * 1024
    assert sizes[-1] > 100_000
    assert len(sizes) == 5


async def test_what_a_transform_makes_is_bounded_too() -> None:
    """A body is counted in the bytes that the reader gets, and each event is transformed once."""
    calls: list[str | None] = []

    def blow_up(event: ServerSentEvent, _: Any) -> str:
        calls.append(event.data)
        return "y" * 40_000

    async with Hub() as hub, framed(hub, transform=blow_up) as subscription:
        subscription.take()
        ids = [await hub.publish("a", str(number)) for number in range(3)]
        bodies = [subscription.take() for _ in range(4)]
    assert [body.partition(b"\n")[0] for body in bodies] == [*(f"id: {one}".encode() for one in ids), b""]
    assert calls == ["0", "1", "2"]


async def test_a_ping_shows_a_position_that_moved() -> None:
    """Other channels were busy: the reader's id is kept from falling out of history; otherwise it is a bare comment."""
    async with Hub() as hub, framed(hub) as subscription:
        subscription.take()
        assert subscription.ping() == b":\n"
        moved = await hub.publish("b", "elsewhere")
        assert subscription.ping() == position_frame(moved)
        assert subscription.ping() == b":\n"
        await hub.publish("a", "pending")
        assert subscription.ping() == b":\n"


async def test_a_rendered_event_is_taken_once() -> None:
    """Callable data goes out with its id, and moves the reader behind it."""
    async with Hub(buffer_size=1) as hub, framed(hub) as subscription:
        subscription.take()
        published = await hub.publish("a", lambda _: "mine")
        assert subscription.take() == f"id: {published}\ndata: mine\n\n".encode()
        for number in range(3):
            await hub.publish("a", str(number))
        assert data(await take_all(subscription)) == ["0", "1", "2"]


async def test_a_filtered_event_moves_the_position_at_the_next_ping() -> None:
    """Skipped by transform: nothing is written until there is silence."""
    async with Hub() as hub, framed(hub, transform=lambda *_: None) as subscription:
        subscription.take()
        moved = await hub.publish("a", "filtered")
        assert subscription.take() == b""
        assert subscription.ping() == position_frame(moved)


async def test_a_ping_during_a_replay_shows_no_position() -> None:
    """Nothing may be ahead of what is still to be replayed."""
    async with Hub() as hub:
        first = await hub.publish("a", "0")
        for number in range(2 * PAGE - 40):
            await hub.publish("a", str(number))
        async with framed(hub, last_event_id=first) as subscription:
            assert subscription.ping() == b":\n"
            while subscription.take():
                pass
            assert subscription.behind
            assert subscription.ping() == b":\n"


async def test_position_frames_can_be_turned_off() -> None:
    """No `sse.position`, neither at the start nor as a ping."""
    async with Hub() as hub, framed(hub, position_frames=False) as subscription:
        assert subscription.take() == b""
        await hub.publish("b", "elsewhere")
        assert subscription.ping() == b":\n"


async def test_a_connection_cut_anywhere_resumes_without_loss() -> None:
    """Whatever prefix of its frames a reader got, its last id brings exactly the rest."""
    async with Hub(MemoryBackend(history_size=5)) as hub:
        first = await hub.publish("a", "0")
        for number in range(1, 9):
            await hub.publish("a", str(number))
        for start in (first, "bad"):
            async with framed(hub, last_event_id=start) as subscription:
                frames = subscription.take().split(b"\n\n")[:-1]
            for cut in range(1, len(frames) + 1):
                last_id = frames[cut - 1].splitlines()[0].removeprefix(b"id: ").decode()
                async with hub.subscribe("a", last_event_id=last_id) as resumed:
                    got = [frame.splitlines()[-1] for frame in frames[1:cut]]
                    rest = [f"data: {event.data}".encode() for event in await take_all(resumed)]
                    assert got + rest == [f"data: {number}".encode() for number in range(4, 9)]


# Everything at once


class Unhurried(MemoryBackend):
    """A memory backend that lets others run before and after each answer, as one behind a network does."""

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
    """Readers on random channels, cut and resumed at random: in order, nothing lost, nothing twice."""
    rng = random.Random(rng.random())  # one draw is enough: what follows depends on the event loop's order as well
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


async def test_it_may_be_ended_before_anybody_serves_it() -> None:
    """Then it ends as it begins."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        subscription.end("revoked")
        async with subscription:
            assert [event async for event in subscription] == []
