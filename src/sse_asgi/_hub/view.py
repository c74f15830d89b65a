"""A reader's view of a log entry: its event or its frame, rendered and transformed, and the snapshot of its state."""

import logging
from collections.abc import Awaitable
from typing import Any

from .._log.event import Entry, RenderedEvent, ServerSentEvent, as_event, own_event
from .._log.logged import about, one_line
from .._log.position import Position
from .gate import gap_event
from .options import Options

logger = logging.getLogger("sse_asgi.hub")

_FAILED = gap_event("error")


def without_id(event: ServerSentEvent) -> ServerSentEvent:
    """Return the event without its id, because the hub gives the ids."""
    if event.id is None:
        return event
    return ServerSentEvent(event.data, event=event.event, retry=event.retry, comment=event.comment)


async def take_snapshot(options: Options, subscription: Any, position: Position | None) -> list[Entry]:
    """Return a reader's state, as of a position.

    Only the last event has the position: a reader that is cut off before it gets the whole state again.

    Raises:
        TypeError: The snapshot is not an async function, or returned a list of events and other things.
    """
    snapshot = options.snapshot
    assert snapshot is not None
    awaitable = snapshot(subscription) if options.personal else snapshot()
    if not isinstance(awaitable, Awaitable):
        msg = f"snapshot must be an async function (got {snapshot!r}, which returned {type(awaitable).__name__})"
        raise TypeError(msg)
    *others, last = _events_of_state(await awaitable)
    return [*map(Entry, others), Entry(last, position)]


def _events_of_state(state: Any) -> list[ServerSentEvent]:
    """Return the events of a list of events, or one event for any other state."""
    given = [own_event(value) for value in state] if isinstance(state, list | tuple) else []
    if not any(given):
        return [without_id(own_event(state) or ServerSentEvent(state, event="snapshot"))]
    events = []
    for number, event in enumerate(given):
        if event is None or event.data is None:
            msg = (
                f"a snapshot that returns events must return events with data only (got {state[number]!r} as item "
                f"{number}): make it a ServerSentEvent(data), or return the state itself, without any event in it"
            )
            raise TypeError(msg)
        events.append(without_id(event))
    return events


def is_last(frame: bytes, options: Options) -> bool:
    """Return True if a frame, as the reader sees it, is an event of the type that the reader's stream goes up to."""
    if options.until is None:
        return False
    # A line of data or of a comment begins with another name, so this one is the type.
    _, typed, rest = (b"\n" + frame).partition(b"\nevent: ")
    return (rest.partition(b"\n")[0] if typed else b"message") == options.until.encode()


def seen_event(entry: Entry, channels: tuple[str, ...], options: Options) -> ServerSentEvent | None:
    """Return this reader's event: None where it is filtered, a gap where the application's function failed.

    The function runs when the reader takes the event, so a slow or failing one costs its own reader only.
    """
    event = entry.event
    if not entry.channels:  # an entry of the gate's own: a gap, a position, an initial event, a snapshot
        return event if isinstance(event, ServerSentEvent) else None
    try:
        if isinstance(event, RenderedEvent):
            event = event.render_for(options.properties)
        if event is None or options.transform is None:
            return event
        seen = entry.for_reader(event, channels)
        result = options.transform(seen, options.properties)
        if result is seen:
            return event
        return None if result is None else without_id(as_event(result))
    except Exception:
        names = one_line(", ".join(entry.channels))
        extra = about("transform_failed", channels=entry.channels)
        logger.exception("a transform or callable data failed for an event on %s", names, extra=extra)
        return _FAILED


def seen_frame(entry: Entry, channels: tuple[str, ...], options: Options) -> bytes:
    """Return the bytes of this reader's event; no bytes where it is filtered."""
    if not entry.channels or (entry.frame and options.transform is None):
        return entry.frame
    event = seen_event(entry, channels, options)
    if event is None:
        return b""
    if event is entry.event:
        return entry.frame
    if entry.position is None or not entry.frame:
        return Entry(event, entry.position).frame
    return entry.frame[: entry.frame.index(b"\n") + 1] + event.encode()  # faster than writing the id again
