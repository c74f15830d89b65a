"""A reader's view of an entry: rendered, transformed, filtered, or a gap in its place; snapshots."""

import json
import re
from typing import Any
from unittest.mock import AsyncMock

import pytest
import sse_starlette

from hub.readers import data, framed, reason, take_all
from sse_asgi import Hub, ServerSentEvent
from sse_asgi._hub.options import Options
from sse_asgi._hub.view import is_last, seen_event, seen_frame, take_snapshot
from sse_asgi._log.event import Entry, RenderedEvent
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


async def test_a_snapshot_is_an_async_function() -> None:
    """A plain function is a TypeError that says so."""
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


async def test_transform_personalises_and_filters() -> None:
    """The transform gets the event with id and channels, and the properties. The id stays the hub's."""
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
    """The error is logged. Neither the event nor the error's details reach the reader."""

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


AT = Position("0000000a", 5)
ONE = ServerSentEvent("one")
PLAIN = Entry(ServerSentEvent("x"), AT, ("a",))
RENDERED = Entry(RenderedEvent(lambda properties: properties, None, None), AT, ("a",))


def seen(entry: Entry, **options: Any) -> bytes:
    """Return the frame that a reader with these options gets."""
    return seen_frame(entry, ("a",), Options(**options))


def test_most_readers_get_the_frame_of_the_entry() -> None:
    """It is not written again: for a plain event, one that a transform returns, and the gate's own entries."""
    own = Entry(ServerSentEvent("hi"))
    assert seen(PLAIN) is PLAIN.frame
    assert seen(PLAIN, transform=lambda event, _: event) is PLAIN.frame
    assert seen(own, transform=lambda *_: None) is own.frame


@pytest.mark.parametrize(
    ("entry", "options", "expected"),
    [
        (RENDERED, {"properties": "ann"}, b"id: 0000000a-5\ndata: ann\n\n"),
        (RENDERED, {"properties": ""}, b""),
        (
            RENDERED,
            {"properties": "ann", "transform": lambda event, _: event.data * 2},
            b"id: 0000000a-5\ndata: annann\n\n",
        ),
        (PLAIN, {"transform": lambda *_: "y"}, b"id: 0000000a-5\ndata: y\n\n"),
        (PLAIN, {"transform": lambda *_: None}, b""),
        (Entry(ServerSentEvent("x"), None, ("a",)), {"transform": lambda *_: "y"}, b"data: y\n\n"),
    ],
)
def test_a_readers_own_frame_has_the_id_of_the_entry(entry: Entry, options: dict[str, Any], expected: bytes) -> None:
    """A filtered event has no frame."""
    assert seen(entry, **options) == expected


def test_a_position_is_no_event() -> None:
    """A reader that iterates does not get it."""
    assert seen_event(Entry(None, AT), ("a",), Options()) is None


@pytest.mark.parametrize("personal", [True, False])
async def test_a_snapshot_may_ask_for_its_subscription(*, personal: bool) -> None:
    """A function that takes an argument gets the subscription."""

    async def state(*given: Any) -> Any:
        return [*given]

    (entry,) = await take_snapshot(Options(snapshot=state, personal=personal), "the subscription", AT)
    assert isinstance(entry.event, ServerSentEvent)
    assert (entry.event.data, entry.event.event) == ('["the subscription"]' if personal else "[]", "snapshot")
    assert entry.position == AT


async def test_a_snapshot_may_be_several_events() -> None:
    """They are sent as they are, and the last one brings the position; events of other libraries count as well."""

    async def state() -> Any:
        return [
            ServerSentEvent("1", event="row", id="mine"),
            sse_starlette.JSONServerSentEvent({"n": 2}, event="row"),
            ONE,
        ]

    async with Hub() as hub:
        position = await hub.publish("a", "before")
        async with hub.subscribe("a", snapshot=state) as subscription:
            await hub.publish("a", "later")
            events = await take_all(subscription)
    assert [(event.event, event.data) for event in events] == [
        ("row", "1"),
        ("row", '{"n":2}'),
        (None, "one"),
        (None, "later"),
    ]
    assert [event.id for event in events[:3]] == [None, None, position]


async def test_a_reader_that_is_cut_off_in_a_snapshot_gets_it_again() -> None:
    """No id of the stream is ahead of an event of the snapshot, also behind a gap."""

    async def state() -> Any:
        return (ONE, ONE, ONE)

    async with Hub() as hub, framed(hub.subscribe("a", snapshot=state, last_event_id="x")) as feed:
        content = feed.take()
        assert content.count(b"data: one\n") == 3
        assert content.partition(b"id: ")[0].count(b"data: one\n") == 2


@pytest.mark.parametrize("state", [[], [1, 2], ["a"], {"a": 1}, [None]])
async def test_a_snapshot_without_events_is_data(state: Any) -> None:
    """A list too: it is one event of type `snapshot`."""
    (entry,) = await take_snapshot(Options(snapshot=AsyncMock(return_value=state)), None, AT)
    assert isinstance(entry.event, ServerSentEvent)
    assert (entry.event.event, json.loads(entry.event.data or "")) == ("snapshot", state)


@pytest.mark.parametrize("wrong", ["x", None, {"data": "x"}, ServerSentEvent(comment="c"), [ONE]])
async def test_a_snapshot_of_events_and_other_things_is_refused(wrong: Any) -> None:
    """The error has the item and its number, and says what to return."""
    snapshot = AsyncMock(return_value=[ONE, wrong])
    expected = f"(got {wrong!r} as item 1): make it a ServerSentEvent(data), or return the state itself"
    with pytest.raises(TypeError, match=re.escape(expected)):
        await take_snapshot(Options(snapshot=snapshot), None, AT)


@pytest.mark.parametrize(
    ("event", "until", "expected"),
    [
        (ServerSentEvent("x", event="done"), "done", True),
        (ServerSentEvent("x", event="done", id="7", retry=1, comment="c"), "done", True),
        (ServerSentEvent("x", event="undone"), "done", False),
        (ServerSentEvent("x", event="done2"), "done", False),
        (ServerSentEvent("event: done\nevent: done", comment="event: done"), "done", False),
        (ServerSentEvent("x"), "message", True),
        (ServerSentEvent("x", event="message"), "message", True),
        (ServerSentEvent("x", event="done"), "message", False),
        (ServerSentEvent("x", event="fertig \u2713"), "fertig \u2713", True),
        (ServerSentEvent("x"), None, False),
    ],
)
def test_the_last_event_of_a_stream_is_known_by_its_type(
    event: ServerSentEvent, until: str | None, *, expected: bool
) -> None:
    """Whatever other fields it has; text in data and comments is no type."""
    assert is_last(event.encode(), Options(until=until)) is expected
