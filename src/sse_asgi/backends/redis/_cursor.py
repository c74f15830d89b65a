"""How far the streams of some channels were read, so that the next page goes on from there."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, Self

from ..._log.position import Position

STREAMS = 1000  # streams that one call merges
AHEAD = 1 << 20  # bytes that may be read before their turn, so that large events of many channels are read once


class Stream(NamedTuple):
    """One of the streams of a channel: its events, or its joins and leaves."""

    key: bytes
    channel: str
    presence: bool


class Row(NamedTuple):
    """An entry of a stream, as it was read.

    Attributes:
        sequence: Its sequence.
        channel: The channel of the stream.
        previous: The sequence of the channel's event before; None if the entry is not of this library.
        data: The payload.
        before: For an event of several channels, the channels and their sequences before, as JSON.
    """

    sequence: int
    channel: str
    previous: int | None
    data: bytes
    before: bytes = b""


class Batch(NamedTuple):
    """The streams to read in one call.

    Attributes:
        numbers: Their indexes in the cursor, in the order in which they are read.
        starts: For each of them, the sequence after which it is read.
        rest: The sequence after which the next of the other streams is read; None if there are no others.
    """

    numbers: list[int]
    starts: list[int]
    rest: int | None


class Cursor:
    """How far the streams of some channels were read.

    Attributes:
        streams: The streams.
        since: For each stream, the sequence up to which (backward: from which on) nothing is left to read.
        lacking: The channels whose presence streams are not among the streams.
        found: The lacking channels have no joins or leaves to read up to this sequence.
        rows: Rows that were read and not returned yet, in the order of the log.
        safe: All rows up to this sequence were read.
        size: The average size of the entries that were read last; 0 before.
    """

    __slots__ = ("found", "lacking", "rows", "safe", "since", "size", "streams")

    def __init__(self, streams: Sequence[Stream], since: Sequence[int], lacking: Sequence[str], found: int) -> None:
        """Note how far each stream was read."""
        self.streams = list(streams)
        self.since = list(since)
        self.lacking = list(lacking)
        self.found = found
        self.rows: list[Row] = []
        self.safe = 0
        self.size = 0

    @classmethod
    def begin(cls, streams: Sequence[Stream], since: int) -> Self:
        """Return a cursor that has read nothing after `since`, with the event streams of the channels."""
        return cls(streams, [since] * len(streams), [stream.channel for stream in streams], since)

    def after(self, sequence: int) -> "Cursor":
        """Return a copy that has read everything up to a sequence."""
        since = [max(sequence, one) for one in self.since]
        cursor = Cursor(self.streams, since, self.lacking, max(sequence, self.found))
        cursor.rows = [row for row in self.rows if row.sequence > sequence]
        cursor.safe, cursor.size = self.safe, self.size
        return cursor

    def put(self, rows: list[Row]) -> None:
        """Add rows that were read."""
        if rows:
            self.rows = sorted(self.rows + rows, key=itemgetter(0))
            self.size = sum(len(row.data) for row in rows) // len(rows)

    def take(self, upto: int, limit: int, room: int) -> tuple[list[Row], bool]:
        """Return a page of the rows, one for each event, and True if the page has all rows up to `upto`."""
        taken: list[Row] = []
        size = 0
        for row in self.rows:
            if row.sequence > upto:
                break
            if taken and row.sequence == taken[-1].sequence:
                continue  # an event that was published to several of the channels
            size += len(row.data)
            if len(taken) == limit or (taken and size > room):
                return taken, False
            taken.append(row)
        return taken, True

    def wants(self, upto: int, limit: int, room: int) -> tuple[int, int, int]:
        """Return how many rows and bytes the page lacks, and how many bytes may be read before their turn."""
        ready = [len(row.data) for row in self.rows if row.sequence <= min(self.safe, upto)]
        held = sum(len(row.data) for row in self.rows)
        return max(0, limit - len(ready)), max(0, room - sum(ready)), max(0, AHEAD + room - held)

    def add(self, streams: Mapping[int, Stream]) -> None:
        """Add these presence streams, by the indexes of their channels in `lacking`."""
        self.streams += streams.values()
        self.since += [self.found] * len(streams)
        self.lacking = [name for number, name in enumerate(self.lacking) if number not in streams]

    def batch(self, direction: int) -> Batch:
        """Choose the streams that the merge reaches first."""
        since = self.since
        order = sorted(range(len(since)), key=lambda number: direction * since[number])
        first = order[:STREAMS]
        rest = since[order[STREAMS]] if len(order) > STREAMS else None
        return Batch(first, [since[number] for number in first], rest)


class PagePosition(Position):
    """The position after a page, and how far the streams were read.

    It equals the bare position, from which the streams are read again.
    """

    channels: tuple[str, ...] = ()
    cursor: Cursor | None = None
