"""Source: what a subscription needs of its hub."""

from typing import Any, Protocol

from .._log.event import History
from .._log.position import Position
from .home import Home
from .stats import Tally


class Source(Protocol):
    """What a subscription needs of its hub.

    Attributes:
        home: The event loop in which it is entered, read and left.
    """

    home: Home

    @property
    def tally(self) -> Tally:
        """Return what is counted for all of them."""

    def position(self) -> Position | None:
        """Return the position up to which this process has seen all events; None without history."""

    async def enter(self, subscription: Any) -> Position | None:
        """Begin to offer live events to a Subscription, then return a position that history reaches."""

    async def reach(self) -> None:
        """Have offered, or moved the position behind, everything that was published so far."""

    async def leave(self, subscription: Any) -> None:
        """Offer a Subscription nothing more."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log, from its beginning where `after` is None."""

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Return the position after which the newest events begin; None where that is the beginning."""
