"""The idempotency keys that the memory backend remembers, each with the position of its event."""

from collections import OrderedDict

from .._log.position import Position
from ._shelf import Shelf
from .base import IDEMPOTENCY_SECONDS

KEY_BYTES = 256  # memory of an idempotency key, besides its text


class PublishedKeys:
    """The idempotency keys of the last two minutes, or fewer if their bytes are beyond the bound.

    Attributes:
        known: The time and the position of each key's event, the oldest first.
        size: Bytes of the keys. They take room of the events.
    """

    __slots__ = ("_bound", "_shelf", "known", "size")

    def __init__(self, shelf: Shelf, bound: int) -> None:
        """Remember no key yet.

        Args:
            shelf: The events whose room the keys take.
            bound: Bytes that all keys together may have. The newest key is remembered also beyond it.
        """
        self._shelf = shelf
        self._bound = bound
        self.known: OrderedDict[str, tuple[float, Position | None]] = OrderedDict()
        self.size = 0

    def remember(self, key: str, now: float, position: Position | None) -> None:
        """Remember a new key, and forget the oldest keys if there are too many bytes."""
        self.known[key] = (now, position)
        self._count(key, 1)
        while self.size > self._bound and len(self.known) > 1:
            self._forget_first()

    def forget_old(self, now: float) -> None:
        """Forget the keys that were used longer ago than a key is valid."""
        while self.known and next(iter(self.known.values()))[0] < now - IDEMPOTENCY_SECONDS:
            self._forget_first()

    def _forget_first(self) -> None:
        key, _ = self.known.popitem(last=False)
        self._count(key, -1)

    def _count(self, key: str, sign: int) -> None:
        size = sign * (KEY_BYTES + len(key.encode()))
        self.size += size
        self._shelf.reserve(size)
