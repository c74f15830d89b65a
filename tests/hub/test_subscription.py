"""Subscription: entering, resuming, rewinding, snapshots, iterating, ending."""

import math
from typing import Any
from unittest.mock import AsyncMock

import anyio
import anyio.to_thread
import pytest

from hub.readers import OTHER_EPOCH, Steps, data, read, reason, take_all
from sse_asgi import Hub, MemoryBackend, ServerSentEvent, SlowReaderError
from sse_asgi._hub.subscription import PAGE

pytestmark = pytest.mark.anyio


async def test_a_fresh_reader_gets_what_comes_later() -> None:
    """Without an id a reader begins now."""
    async with Hub() as hub:
        await hub.publish("a", "before")
        async with hub.subscribe("a") as subscription:
            assert subscription.recovery == ("fresh", 0, None)
            await hub.publish("a", "after")
            assert data(await take_all(subscription)) == ["after"]


async def test_an_empty_id_is_fresh_on_purpose() -> None:
    """`last_event_id=""` does not cause a gap."""
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
    """A subscription serves one reader, once."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        async with subscription:
            with pytest.raises(RuntimeError, match="entered once"):
                await subscription.__aenter__()
        with pytest.raises(RuntimeError, match="entered once"):
            await subscription.__aenter__()


async def test_iterating_outside_is_refused() -> None:
    """The error says to enter first."""
    async with Hub() as hub:
        with pytest.raises(RuntimeError, match="async with subscription"):
            await anext(hub.subscribe("a"))


async def test_a_failing_entry_leaves_nothing_behind() -> None:
    """An exception while entering removes the reader again."""

    async def fail() -> None:
        msg = "snapshot"
        raise LookupError(msg)

    async with Hub() as hub:
        with pytest.raises(LookupError):
            await hub.subscribe("a", snapshot=fail).__aenter__()
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_a_cancelled_entry_leaves_nothing_behind() -> None:
    """A cancellation while entering removes the reader again."""
    backend = Steps()
    backend.before = anyio.sleep_forever
    async with Hub(backend) as hub:
        first = await hub.publish("a", "x")
        with anyio.move_on_after(0.01):
            await hub.subscribe("a", last_event_id=first).__aenter__()
        assert hub._registry is not None
        assert not hub._registry._channels


@pytest.mark.parametrize(("count", "expected"), [(1, ["9"]), (3, ["7", "8", "9"]), (10, list("0123456789"))])
async def test_a_fresh_reader_can_begin_with_the_newest_events(count: int, expected: list[str]) -> None:
    """It gets as many as it asks for, in order, with their ids; then later events, once."""
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
    """They come over several pages, and without a gap, although older events of one channel were trimmed."""
    size = PAGE + PAGE // 2
    async with Hub(MemoryBackend(history_size=size)) as hub:
        await hub.publish("quiet", "the oldest")
        for number in range(2 * size):
            await hub.publish("busy", str(number))
        async with hub.subscribe("quiet", "busy", rewind=count) as subscription:
            events = await read(subscription, size + 1)
    assert data(events) == ["the oldest", *map(str, range(size, 2 * size))]


async def test_what_falls_out_while_a_reader_rewinds_is_announced() -> None:
    """Events that are trimmed in the middle of them are a gap like any other."""
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
    """It resumes after its id."""
    async with Hub() as hub:
        await hub.publish("a", "0")
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        async with hub.subscribe("a", rewind=math.inf, last_event_id=first) as subscription:
            assert data(await take_all(subscription)) == ["2"]


async def test_initial_events_come_before_the_newest() -> None:
    """The newest kept events follow, then the live ones."""
    async with Hub() as hub:
        await hub.publish("a", "kept")
        async with hub.subscribe("a", initial=["initial"], rewind=5) as subscription:
            await hub.publish("a", "live")
            assert data(await take_all(subscription)) == ["initial", "kept", "live"]


async def test_without_history_there_is_nothing_to_rewind() -> None:
    """The stream begins with live events."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        await hub.publish("a", "before")
        async with hub.subscribe("a", rewind=math.inf) as subscription:
            await hub.publish("a", "live")
            assert data(await take_all(subscription)) == ["live"]


async def test_initial_events_come_first_on_a_fresh_stream_only() -> None:
    """A stream that resumes or has a gap does not get them."""
    async with Hub() as hub:
        first = await hub.publish("a", "x")
        async with hub.subscribe("a", initial=["hello", ServerSentEvent("!", event="e")]) as fresh:
            await hub.publish("a", "live")
            assert data(await take_all(fresh)) == ["hello", "!", "live"]
        for last_event_id in (first, OTHER_EPOCH):
            async with hub.subscribe("a", initial=["hello"], last_event_id=last_event_id) as later:
                assert "hello" not in data(await take_all(later))


async def test_a_snapshot_comes_before_every_later_event() -> None:
    """Its id is the position before the call. Events that are published meanwhile follow."""
    async with Hub() as hub:
        before = await hub.publish("a", "before")

        async def state() -> dict[str, int]:
            await hub.publish("a", "meanwhile")
            return {"n": 1}

        async with hub.subscribe("a", snapshot=state, initial=["hi"]) as subscription:
            events = await take_all(subscription)
    assert data(events) == ["hi", '{"n":1}', "meanwhile"]
    assert (events[1].event, events[1].id) == ("snapshot", before)


async def test_a_resumed_reader_needs_no_snapshot() -> None:
    """The snapshot is not taken when history has all missed events."""

    async def state() -> str:
        raise AssertionError

    async with Hub() as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        async with hub.subscribe("a", snapshot=state, last_event_id=first) as subscription:
            assert data(await take_all(subscription)) == ["2"]


async def test_after_a_gap_a_snapshot_replaces_history() -> None:
    """The gap comes first, then the snapshot, then later events. The gap has no id, because the snapshot follows."""

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
    """No event is lost when more are published during a slow snapshot than the buffer holds."""

    async def state() -> str:
        for number in range(20):
            await hub.publish("a", str(number))
        return "state"

    async with Hub(buffer_size=3) as hub, hub.subscribe("a", snapshot=state) as subscription:
        assert data(await take_all(subscription)) == ["state", *(str(number) for number in range(20))]


async def test_a_snapshot_without_history_has_no_id() -> None:
    """There are no positions then. Events that are published meanwhile still follow."""

    async def state() -> str:
        await hub.publish("a", "meanwhile")
        return "state"

    async with Hub(MemoryBackend(history_size=0)) as hub, hub.subscribe("a", snapshot=state) as subscription:
        events = await take_all(subscription)
    assert [(event.data, event.id) for event in events] == [("state", None), ("meanwhile", None)]


async def test_without_history_every_connection_is_fresh() -> None:
    """Events carry no id. An id that a client sends anyway does not cause a gap."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        async with hub.subscribe("a", last_event_id="bad", initial=["hi"]) as subscription:
            assert subscription.recovery.outcome == "fresh"
            await hub.publish("a", "x")
            events = await take_all(subscription)
    assert [(event.data, event.id) for event in events] == [("hi", None), ("x", None)]


async def test_it_may_be_ended_before_anybody_serves_it() -> None:
    """The iteration then ends at once."""
    async with Hub() as hub:
        subscription = hub.subscribe("a")
        subscription.end("revoked")
        async with subscription:
            assert [event async for event in subscription] == []


async def test_lost_events_are_read_again() -> None:
    """A reader that may have lost live events is caught up, without a gap if nothing is missing."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "1")
        assert subscription.waiting == (
            2,
            sum(len(one.frame) for one in (*subscription.gate.ready, *subscription.gate.buffer.entries)),
        )
        subscription.lose(None)
        assert data(await take_all(subscription)) == ["1"]


async def test_a_slow_reader_is_told_in_an_error() -> None:
    """With `overflow="close"`; its stream has ended as slow."""
    async with Hub(buffer_size=1, overflow="close") as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "1")
        await hub.publish("a", "2")
        assert subscription.ended == "slow"
        with pytest.raises(SlowReaderError, match="more than 1 events"):
            await anext(subscription)


async def test_a_reader_that_is_ended_gets_the_events_that_wait() -> None:
    """The iteration ends behind them."""
    async with Hub() as hub, hub.subscribe("a", transform=lambda event, _: None if event.data == "2" else event) as one:
        for text in "123":
            await hub.publish("a", text)
        one.end("revoked")
        one.end("shutdown")
        assert data([event async for event in one]) == ["1", "3"]
        assert one.ended == "revoked"


async def test_another_thread_ends_a_subscription_soon() -> None:
    """The hub's event loop ends it."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        await anyio.to_thread.run_sync(subscription.end, "revoked")
        with anyio.fail_after(5):
            assert [event async for event in subscription] == []


@pytest.mark.parametrize("position_frames", [True, False])
async def test_a_reader_begins_where_nothing_is_kept_of_its_channel(*, position_frames: bool) -> None:
    """It begins with the position, unless position_frames=False."""
    async with Hub() as hub:
        last = await hub.publish("elsewhere", "x")
        async with hub.subscribe("a", rewind=1, position_frames=position_frames) as subscription:
            shown = [str(entry.position) for entry in subscription.gate.ready]
            assert shown == ([last] if position_frames else [])


async def test_an_unreadable_id_is_a_gap_at_the_beginning() -> None:
    """`recovery` says why."""
    async with Hub() as hub, hub.subscribe("a", last_event_id="x") as subscription:
        assert subscription.recovery == ("gap", 0, "malformed")
        assert reason(await anext(subscription)) == "malformed"


async def test_a_loss_without_history_is_announced() -> None:
    """No page is read."""
    async with Hub(MemoryBackend(history_size=0)) as hub, hub.subscribe("a") as subscription:
        subscription.lose("fork")
        assert [reason(event) for event in await take_all(subscription)] == ["fork"]


# Options that are refused


async def test_an_id_of_a_wrong_type_is_refused() -> None:
    """last_event_id is a str."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="last_event_id"):
            hub.subscribe("a", last_event_id=5)  # type: ignore[arg-type]


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
    """A snapshot stands for all events before it."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="rewind and snapshot exclude each other"):
            hub.subscribe("a", rewind=1, snapshot=AsyncMock())


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


@pytest.mark.parametrize("option", ["transform", "snapshot"])
async def test_functions_are_passed_uncalled(option: str) -> None:
    """The result of calling them is a TypeError."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=option):
            hub.subscribe("a", **{option: "result"})  # type: ignore[arg-type]


# Up to an event


async def test_it_ends_after_an_event_of_a_type() -> None:
    """The event is the last one, live as from history; what follows it is not read."""
    async with Hub() as hub:
        async with hub.subscribe("a", until="done") as subscription:
            for kind in (None, "other", "done", None):
                await hub.publish("a", str(kind), event=kind)
            assert [event.data async for event in subscription] == ["None", "other", "done"]
            assert subscription.ended == "finished"
            assert [event async for event in subscription] == []
        async with hub.subscribe("a", until="done", rewind=math.inf) as later:
            assert data([event async for event in later]) == ["None", "other", "done"]


async def test_it_may_end_in_the_middle_of_history() -> None:
    """No further page is read."""
    backend = Steps()
    async with Hub(backend) as hub:
        await hub.publish("a", "0", event="done")
        for number in range(PAGE):
            await hub.publish("a", str(number))
        async with hub.subscribe("a", until="done", rewind=math.inf) as subscription:
            assert data([event async for event in subscription]) == ["0"]
    assert backend.calls == 1


async def test_a_snapshot_or_an_initial_event_may_be_the_last_one() -> None:
    """A reader that comes when all is over gets the state, and its stream ends."""

    async def state() -> ServerSentEvent:
        return ServerSentEvent("over", event="done")

    async with Hub() as hub:
        for options in ({"snapshot": state}, {"initial": [await state(), "x"]}):
            async with hub.subscribe("a", until="done", **options) as subscription:
                assert data([event async for event in subscription]) == ["over"]


async def test_the_event_counts_as_the_reader_sees_it() -> None:
    """A transform may skip the last event of others, and make one for this reader."""

    def mine(event: ServerSentEvent, name: str) -> ServerSentEvent | None:
        if event.event == "done":
            return event if event.data == name else None
        return ServerSentEvent("made", event="done") if event.data == "stop" else event

    async with Hub() as hub:
        for last in ("ada", "stop"):
            async with hub.subscribe("a", until="done", transform=mine, properties="ada") as subscription:
                await hub.publish("a", "bob", event="done")
                await hub.publish("a", "x")
                await hub.publish("a", last, event="done" if last == "ada" else None)
                got = data([event async for event in subscription])
                assert got == ["x", "ada" if last == "ada" else "made"]


@pytest.mark.parametrize("transform", [None, lambda event, _: event])
async def test_a_reader_that_has_the_last_event_is_not_made_to_wait(transform: Any) -> None:
    """Its connection broke between the event and the end: it comes back with the event's id, or that of the end."""
    async with Hub() as hub:
        await hub.publish("b", "elsewhere")
        before = await hub.publish("a", "x")
        last = await hub.publish("a", "y", event="done")
        await hub.publish("a", "next")
        for seen, expected in ((last, []), ("sse.end", []), (before, ["y"])):
            options: dict[str, Any] = {"until": "done", "transform": transform, "last_event_id": seen}
            async with hub.subscribe("a", **options) as subscription:
                assert subscription.recovery.outcome == "resumed"
                with anyio.fail_after(5):
                    assert data([event async for event in subscription]) == expected


@pytest.mark.parametrize("seen", ["x", "0000-1", "{epoch}-0", "{epoch}-1", "{epoch}-2", "{epoch}-4", OTHER_EPOCH])
async def test_any_other_id_goes_on(seen: str) -> None:
    """One that cannot be read, of the beginning, of another event or channel, of the future, or of another log."""
    async with Hub() as hub:
        await hub.publish("a", "1")
        await hub.publish("b", "2", event="done")
        epoch = str(await hub.publish("a", "3")).partition("-")[0]
        async with hub.subscribe("a", until="done", last_event_id=seen.format(epoch=epoch)) as subscription:
            await hub.publish("a", "end", event="done")
            assert [event.data async for event in subscription][-1] == "end"


async def test_the_end_is_known_without_history() -> None:
    """A reader that comes back with the id of the end gets nothing."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        async with hub.subscribe("a", until="done", last_event_id="sse.end") as subscription:
            assert [event async for event in subscription] == []
        async with hub.subscribe("a", until="done", last_event_id="0000000a-1") as subscription:
            await hub.publish("a", "x", event="done")
            assert data([event async for event in subscription]) == ["x"]
