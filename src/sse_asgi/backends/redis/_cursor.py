"""How far the streams of some channels were read and looked at, so that the next page goes on from there."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from ..._position import Position

STREAMS = 1000  # that one call merges


class Stream(NamedTuple):
    """One of the streams of a channel: its events, or its joins and leaves."""

    key: bytes
    channel: str
    joins: bool


class Batch(NamedTuple):
    """The streams to be read in one call.

    Attributes:
        numbers: Their numbers in the cursor, in the order in which they are read.
        starts: For each of them, the sequence from which on it is read.
        rest: The sequence from which on the next of the other streams is read; None if there are no others.
    """

    numbers: list[int]
    starts: list[int]
    rest: int | None


class Cursor:
    """How far the streams of some channels were looked at.

    Attributes:
        streams: Those that are read.
        since: For each of them, a sequence up to which there is nothing more to read; backward, from which on.
        lacking: The channels whose joins and leaves are not among the streams.
        found: None of these channels has joins or leaves to be read up to this sequence.
    """

    __slots__ = ("found", "lacking", "since", "streams")

    def __init__(self, streams: Sequence[Stream], since: Sequence[int], lacking: Sequence[str], found: int) -> None:
        """Note how far each stream was looked at."""
        self.streams = list(streams)
        self.since = list(since)
        self.lacking = list(lacking)
        self.found = found

    @classmethod
    def begin(cls, streams: Sequence[Stream], since: int) -> Self:
        """Look at nothing yet; the streams are those of events."""
        return cls(streams, [since] * len(streams), [stream.channel for stream in streams], since)

    def after(self, sequence: int) -> "Cursor":
        """Return a copy that has read everything up to a sequence."""
        since = [max(sequence, one) for one in self.since]
        return Cursor(self.streams, since, self.lacking, max(sequence, self.found))

    def before(self, sequence: int) -> None:
        """Have read backward everything from a sequence on."""
        self.since = [min(sequence, one) for one in self.since]

    def add(self, streams: Mapping[int, Stream]) -> None:
        """Read these streams as well, each instead of lacking the channel of this number."""
        self.streams += streams.values()
        self.since += [self.found] * len(streams)
        self.lacking = [name for number, name in enumerate(self.lacking) if number not in streams]

    def batch(self, horizons: Mapping[str, int], direction: int) -> Batch:
        """Choose the streams that the merge arrives at first, none of them before its channel's horizon."""
        starts = [
            max(since, horizons.get(stream.channel, 0)) for stream, since in zip(self.streams, self.since, strict=True)
        ]
        order = sorted(range(len(starts)), key=lambda number: direction * starts[number])
        first = order[:STREAMS]
        rest = starts[order[STREAMS]] if len(order) > STREAMS else None
        return Batch(first, [starts[number] for number in first], rest)


class Place(Position):
    """The position after a page, with how far the streams were looked at.

    It equals the bare position; whoever has only that looks at the streams again.
    """

    channels: tuple[str, ...] = ()
    cursor: Cursor | None = None
