"""Where a reader is in a hub's log, written as an event id."""

import re
import secrets
from typing import NamedTuple, Self

_ID = re.compile(r"([0-9a-f]{8})-(0|[1-9][0-9]{0,15})")

MAX_SEQUENCE = 10**16 - 1


class Position(NamedTuple):
    """A place in one life of a log: everything up to `sequence` is behind it.

    The sequence of a log only grows; the epoch is another one when the log lost what it held.
    """

    epoch: str
    sequence: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read an event id; None for text that no log of ours ever wrote."""
        match = _ID.fullmatch(text)
        return cls(match[1], int(match[2])) if match else None

    def __str__(self) -> str:
        """Write the event id: `<epoch>-<sequence>`, opaque to clients."""
        return f"{self.epoch}-{self.sequence}"


def new_epoch() -> str:
    """Name the life of a log that begins now: 8 hex digits."""
    return secrets.token_hex(4)


def furthest(mine: Position | None, other: Position | None) -> Position | None:
    """Return the other position, or mine if it is later: a reader may come from a process that is ahead of this one."""
    if mine is None or other is None or mine.epoch != other.epoch:
        return other
    return max(mine, other)
