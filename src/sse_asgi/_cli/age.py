"""The time at which an event was published, as far as the event tells it."""

import json
import re
import time
from datetime import datetime

from ..decoder import DecodedEvent

# Hubs on Redis number their events by Redis' clock, in microseconds; other logs count from one.
_ID_WITH_A_TIME = re.compile(r"[0-9a-f]{8}-(\d{16})")
_MILLISECONDS_FROM = 1e11


def published_at(event: DecodedEvent, field: str | None = None) -> float | None:
    """Return when an event was published, in seconds since the epoch, or None if it does not say so.

    Args:
        event: The event.
        field: The field of its JSON data that has the time: seconds or milliseconds since the epoch, or ISO 8601. None
            takes the time from the id of a hub on Redis.
    """
    if field is None:
        match = _ID_WITH_A_TIME.fullmatch(event.id)
        return int(match[1]) / 1e6 if match else None
    try:
        value = json.loads(event.data)[field]
    except (ValueError, LookupError, TypeError):
        return None
    return _seconds(value)


def lag(event: DecodedEvent, field: str | None = None) -> float | None:
    """Return how many seconds ago an event was published, or None; the arguments are those of `published_at`."""
    published = published_at(event, field)
    return None if published is None else time.time() - published


def _seconds(value: object) -> float | None:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 1000 if value > _MILLISECONDS_FROM else float(value)
