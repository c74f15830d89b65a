"""What one reader sees of a log entry: its event, rendered and transformed, or a gap in its place."""

import logging
from collections.abc import Awaitable
from typing import Any, Literal, NamedTuple

from .._log.event import Entry, RenderedEvent, ServerSentEvent, as_event
from .._log.logged import one_line
from .._log.position import Position
from .options import Options

logger = logging.getLogger("sse_asgi")


class Recovery(NamedTuple):
    """How a subscription began.

    Attributes:
        outcome: `fresh` (no id was given), `resumed` (nothing is missing), or `gap` (the stream begins with `sse.gap`).
        replayed: How many events came from history so far.
        reason: Why there is a gap, or None.
    """

    outcome: Literal["fresh", "resumed", "gap"]
    replayed: int = 0
    reason: str | None = None


FRESH = Recovery("fresh")


def gap(reason: str, position: Position | None) -> Entry:
    """Announce a loss, at the position after which a reader should resume."""
    return Entry(_gap_event(reason), position)


def _gap_event(reason: str) -> ServerSentEvent:
    return ServerSentEvent({"reason": reason}, event="sse.gap")


_FAILED = _gap_event("error")


def position_before(entry: Entry) -> Position | None:
    """Return the position just before an entry, from which it is the next; None where there are none."""
    position = entry.position
    return position and position._replace(sequence=position.sequence - 1)


def is_after(entry: Entry, position: Position | None) -> bool:
    """Tell whether an entry comes after everything up to a position."""
    if position is None or entry.position is None:
        return True
    return entry.position.epoch != position.epoch or entry.position.sequence > position.sequence


def without_id(event: ServerSentEvent) -> ServerSentEvent:
    """Leave the id to the hub."""
    if event.id is None:
        return event
    return ServerSentEvent(event.data, event=event.event, retry=event.retry, comment=event.comment)


async def take_snapshot(options: Options, subscription: Any, position: Position | None) -> Entry:
    """Have a reader's state told, as of a position.

    Raises:
        TypeError: The snapshot is not an async function.
    """
    snapshot = options.snapshot
    assert snapshot is not None
    awaitable = snapshot(subscription) if options.personal else snapshot()
    if not isinstance(awaitable, Awaitable):
        msg = f"snapshot must be an async function, and {snapshot!r} returned {type(awaitable).__name__}"
        raise TypeError(msg)
    state = await awaitable
    if not isinstance(state, ServerSentEvent):
        state = ServerSentEvent(state, event="snapshot")
    return Entry(without_id(state), position)


def seen_event(entry: Entry, channels: tuple[str, ...], options: Options) -> ServerSentEvent | None:
    """Return this reader's event: None where it is filtered, a gap where the application's function failed."""
    event = entry.event
    if not entry.channels:
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
        logger.exception("a transform or callable data failed for an event on %s", one_line(", ".join(entry.channels)))
        return _FAILED


def seen_frame(entry: Entry, channels: tuple[str, ...], options: Options) -> bytes:
    """Return the bytes of this reader's event, or none."""
    if not entry.channels or (entry.frame and options.transform is None):
        return entry.frame
    event = seen_event(entry, channels, options)
    if event is None:
        return b""
    if event is entry.event:
        return entry.frame
    if entry.position is None or not entry.frame:
        return entry.write(event)
    return entry.frame[: entry.frame.index(b"\n") + 1] + event.encode()  # quicker than to write the id again
