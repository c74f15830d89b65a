"""Delivery: the words that the hub and the streams share when an event is handed over.

The registry makes one Delivery for each event, and passes it as an argument: to the receiver of each reader, and from
there to the connection's writer, the Carrier.
"""

from collections.abc import Callable
from typing import Any, Protocol

from .._log.event import Entry
from .._log.position import Position

BODY_LIMIT = 64 * 1024
PING = b":\n"


class Delivery:
    """One entry of the log while it is given to its readers.

    Attributes:
        entry: The entry.
        now: When the delivery began, by the timer's clock.
        position: The entry's position.
        at_once: True if the event is sent by itself, because its channels were quiet and all readers get the same
            frame; False if it is joined with the events around it.
        message: The ASGI message that the first connection made of the entry, and that all others send; None before.
        held: How many readers did not send the event at once.
        when_sent: Called once, with the time, when the event was sent to the readers that are up to date; None if
            no telemetry asks for it. Code that sends the event later sets this to None, and makes the call then.
    """

    __slots__ = ("at_once", "entry", "held", "message", "now", "position", "when_sent")

    def __init__(self, entry: Entry, now: float, *, at_once: bool) -> None:
        """Begin to deliver an entry."""
        self.entry: Entry = entry
        self.position: Position | None = entry.position
        self.now: float = now
        self.at_once: bool = at_once and bool(entry.frame)
        self.message: Any = None
        self.held: int = 0
        self.when_sent: Callable[[float], None] | None = None


class Receiver(Protocol):
    """The receiver of one reader's live events."""

    def offer(self, delivery: Delivery) -> None:
        """Take one live event; it never waits and never fails."""


class Carrier(Protocol):
    """A connection's writer, which others may send through, in the publisher's turn, while its own task sleeps."""

    @property
    def rests(self) -> bool:
        """Whether the connection has nothing to do, so that others may send what its own task would send."""

    def send(self, delivery: Delivery) -> bool:
        """Send the event that is being delivered; return False, and do nothing, if the connection does not rest."""

    def send_later(self, delivery: Delivery) -> None:
        """Send the events that wait in the reader's buffer: with those that follow, or now where none may follow."""

    def send_waiting(self) -> None:
        """Send the events that wait in the reader's buffer now, or wake the connection's own task to do it."""

    def send_now(self, body: bytes) -> bool:
        """Send a body while the connection rests; return False if its own task has to finish that."""
