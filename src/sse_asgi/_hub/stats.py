"""The numbers that a hub counts in this process."""

from collections import Counter
from typing import NamedTuple


class Stats(NamedTuple):
    """The state of a hub in this process; `_asdict()` can be written as JSON.

    Attributes:
        connections: Open subscriptions.
        channels: The number of open subscriptions of each channel.
        buffered_events: Events that wait for readers.
        buffered_bytes: Bytes of the events that wait; an event is counted for each reader that it waits for.
        drops: Events that were dropped for slow readers, since the hub was opened.
        gaps: Gaps that were announced to readers, since the hub was opened.
        published: Events that this process published, since the hub was opened.
        unpublished: Events of `publish_soon` that were lost: too many waited, or the backend refused them.
        delivered: Events that readers were given, since the hub was opened. An event counts for each of its readers.
        delivered_bytes: Bytes of these events.
        replayed: Events that were read from history for readers, since the hub was opened.
        overflows: How often the buffer of a reader that was up to date became too full for an event.
        reconnects: How often the backend was back after it could not be reached.
        gaps_by_reason: The gaps that were announced, by their reasons.
        runs: Runs that this process produces.
    """

    connections: int
    channels: dict[str, int]
    buffered_events: int
    buffered_bytes: int
    drops: int
    gaps: int
    published: int
    unpublished: int
    delivered: int
    delivered_bytes: int
    replayed: int
    overflows: int
    reconnects: int
    gaps_by_reason: dict[str, int]
    runs: int = 0


class Tally:
    """Counters that are increased as things happen: plain numbers, which any thread may read.

    Attributes:
        gaps: By their reasons.
        errors: Calls of publish that failed because the event was not stored, by the type of the exception.
        runs: Runs of this process that have ended, by their states.
        size: Bytes of the delivered events.

    The others are described in Stats.
    """

    __slots__ = (
        "delivered",
        "drops",
        "errors",
        "gaps",
        "overflows",
        "published",
        "reconnects",
        "replayed",
        "runs",
        "size",
        "unpublished",
    )

    def __init__(self) -> None:
        """Start at zero."""
        self.drops: int = 0
        self.published: int = 0
        self.unpublished: int = 0
        self.delivered: int = 0
        self.size: int = 0
        self.replayed: int = 0
        self.overflows: int = 0
        self.reconnects: int = 0
        self.gaps: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
