"""Position: a place in a hub's log, written as an event id."""

import re
import secrets
from typing import NamedTuple, Self

_ID = re.compile(r"([0-9a-f]{8})-(0|[1-9][0-9]{0,15})")

MAX_SEQUENCE = 10**16 - 1


class Position(NamedTuple):
    """A place in a log: the reader has everything up to `sequence`.

    One increasing sequence numbers all events of a log, so one id resumes any set of channels. A log that loses its
    events gets a new epoch.
    """

    epoch: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the position of an event id, or None if the text is not an id that this library writes."""
        match = _ID.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None

    def __str__(self) -> str:
        """Return the event id, `<epoch>-<sequence>`, which clients treat as opaque."""
        return f"{self.epoch}-{self.sequence}"


# Makes a Position in half the time of Position(...): new_position(Position, (epoch, sequence)).
new_position = tuple.__new__


def new_epoch() -> str:
    """Return a new epoch of 8 random hex digits."""
    return secrets.token_hex(4)


def furthest(mine: Position | None, other: Position | None) -> Position | None:
    """Return the other position, or mine if it is later, because a reader may come from a process that is ahead."""
    if mine is None or other is None or mine.epoch != other.epoch:
        return other
    return max(mine, other)
