"""The numbers that a hub counts in this process."""

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
    runs: int = 0


class Tally:
    """Counters that are increased as things happen."""

    __slots__ = ("drops", "gaps", "published", "unpublished")

    def __init__(self) -> None:
        """Start at zero."""
        self.drops: int = 0
        self.gaps: int = 0
        self.published: int = 0
        self.unpublished: int = 0
