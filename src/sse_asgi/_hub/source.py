"""Source: the hub as a subscription sees it."""

from typing import Any, Protocol

from .._log.event import History
from .._log.position import Position
from .delivery import Receiver
from .home import Home
from .stats import Tally


class Source(Protocol):
    """The part of a hub that a subscription needs.

    Attributes:
        home: The event loop in which a subscription is entered, read and left.
    """

    home: Home

    @property
    def tally(self) -> Tally:
        """Return the counters of all readers."""

    def position(self) -> Position | None:
        """Return the position up to which this process has seen all events; None without history."""

    async def enter(self, subscription: Any, receiver: Receiver) -> Position | None:
        """Begin to offer live events of a Subscription's channels, then return a position that history reaches."""

    async def reach(self) -> None:
        """Offer everything that was published so far, or move the position behind it."""

    async def leave(self, subscription: Any) -> None:
        """Stop offering events to a Subscription."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log, from its beginning where `after` is None."""

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Return the position after which the newest events begin; None where that is the beginning."""
