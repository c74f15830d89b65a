"""What was published, and what readers saw of it: whether anything is missing, is there twice, or out of order."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

# Gaps that say that something was published and is not kept any more; the others say that the log is another one.
OF_HISTORY = ("evicted", "expired", "trimmed")


class Event(NamedTuple):
    """An event of the load: which publisher's, and the number that this publisher gave it."""

    publisher: int
    number: int

    @classmethod
    def read(cls, text: str) -> "Event":
        publisher, _, number = text.partition(":")
        return cls(int(publisher), int(number))

    def __str__(self) -> str:
        return f"{self.publisher}:{self.number}"


class Seen(NamedTuple):
    """What a reader saw.

    Attributes:
        at: When.
        hub: Which of the hubs it was connected to.
        connection: Which of its connections it was.
        id: The id in force.
        event: The event; None for a gap.
        reason: The gap's.
    """

    at: float
    hub: int
    connection: int
    id: str
    event: Event | None
    reason: str = ""

    @property
    def sequence(self) -> int:
        return int(self.id.partition("-")[2])


class Finding(NamedTuple):
    """What one reader missed.

    Attributes:
        gaps: The reasons of its gaps.
        lost: Acknowledged and never seen, with no gap in their place.
        told: Acknowledged and never seen, and a gap said so.
        twice: Seen more than once.
        disorder: Seen after something newer.
        kept: Never seen, although Redis still has them.
        repeated: Connections with two gaps of one reason, more often than the log was lost.
        alarms: Reasons of gaps in whose place nothing is missing.
    """

    gaps: list[str]
    lost: list[Event]
    told: list[Event]
    twice: list[Event]
    disorder: list[Event]
    kept: list[Event]
    repeated: list[int]
    alarms: list[str]

    @property
    def faultless(self) -> bool:
        """Whether nothing happened that must not happen."""
        return not any((self.lost, self.twice, self.disorder, self.kept, self.repeated, self.alarms))


def check(
    log: Iterable[Seen],
    acknowledged: Mapping[int, Collection[int]],
    kept: Iterable[Event],
    losses: int,
    unknown: Collection[Event] = (),
) -> Finding:
    """Judge what one reader saw.

    Args:
        log: In its order, from before the first event was published.
        acknowledged: The numbers of each publisher that it reads.
        kept: What Redis still has of the channels that it reads.
        losses: How often the log was lost.
        unknown: What may have been stored.
    """
    seen = list(log)
    events = [one.event for one in seen if one.event is not None]
    lost, told = _missing(seen, acknowledged)
    gaps = Counter((one.connection, one.reason) for one in seen if one.event is None)
    return Finding(
        gaps=[one.reason for one in seen if one.event is None],
        lost=lost,
        told=told,
        twice=[event for event, count in Counter(events).items() if count > 1],
        disorder=_disorder(seen),
        kept=sorted(set(kept) - set(events)),
        repeated=[connection for (connection, _), count in gaps.items() if count > max(1, losses)],
        alarms=_alarms(seen, {*unknown, *(Event(at, number) for at in acknowledged for number in acknowledged[at])}),
    )


def _missing(seen: list[Seen], acknowledged: Mapping[int, Collection[int]]) -> tuple[list[Event], list[Event]]:
    """Find missing events, by whether a gap stands between the two events of that publisher around them."""
    last = dict.fromkeys(acknowledged, 0)
    untold = set(acknowledged)
    missing: tuple[list[Event], list[Event]] = [], []
    for one in seen:
        if one.event is None:
            untold.clear()
            continue
        publisher, number = one.event
        skipped = range(last[publisher] + 1, number)
        silent = publisher in untold
        missing[not silent].extend(Event(publisher, n) for n in skipped if n in acknowledged[publisher])
        untold.add(publisher)
        last[publisher] = max(last[publisher], number)
    return missing


def _alarms(seen: list[Seen], published: set[Event]) -> list[str]:
    """Find gaps of history around which no publisher's events are missing."""
    return [
        one.reason
        for at, one in enumerate(seen)
        if one.event is None and one.reason in OF_HISTORY and not _misses(seen[:at], seen[at:], published)
    ]


def _misses(before: list[Seen], after: list[Seen], published: set[Event]) -> bool:
    """Return True if an event that was published is missing between the two lists."""
    last = {one.event.publisher: one.event.number for one in before if one.event is not None}
    first = {one.event.publisher: one.event.number for one in reversed(after) if one.event is not None}
    return any(
        Event(publisher, number) in published
        for publisher, following in first.items()
        for number in range(last.get(publisher, 0) + 1, following)
    )


def _disorder(seen: list[Seen]) -> list[Event]:
    """Find events that came after newer ones: by id, and by the publisher's number."""
    found: list[Event] = []
    sequence, last = 0, Counter[int]()
    for one in seen:
        if one.event is None:
            continue
        if one.sequence <= sequence or one.event.number < last[one.event.publisher]:
            found.append(one.event)
        sequence, last[one.event.publisher] = one.sequence, one.event.number
    return found
