"""Turn: tells whether the event loop has turned since the last look, at the cost of one callback for each turn."""

import asyncio

from .running import LoopVar, on_asyncio


class Turn:
    """Tells one turn of the event loop from the next, on asyncio. On trio all turns have the same number.

    Attributes:
        number: The number of this turn. A turn that was not marked may share its number with the next one.
    """

    __slots__ = ("_marked", "number")

    def __init__(self) -> None:
        """Begin with turn 0."""
        self.number = 0
        self._marked = False

    def mark(self) -> int:
        """Return the number of this turn, and give the next turn another number."""
        if not self._marked and on_asyncio():
            self._marked = True
            asyncio.get_running_loop().call_soon(self._end)
        return self.number

    def _end(self) -> None:
        self.number += 1
        self._marked = False


_turn: LoopVar[Turn] = LoopVar(Turn)


def current_turn() -> Turn:
    """Return the turn of the running event loop."""
    return _turn.get()
