"""A reader's view of an entry: rendered, transformed, filtered, or a gap in its place; snapshots."""

from typing import Any

import pytest

from hub.readers import data, reason, take_all
from sse_asgi import Hub, ServerSentEvent
from sse_asgi._log.position import Position

pytestmark = pytest.mark.anyio


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
