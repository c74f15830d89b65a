"""The newest events of some channels that a backend keeps, as a list."""

from collections import deque

from .._log.event import Entry, ServerSentEvent
from .._log.position import MAX_SEQUENCE, Position
from ..backends.base import is_presence
from .registry import Registry
from .subscription import PAGE


async def newest_events(registry: Registry, channels: tuple[str, ...], limit: int) -> list[ServerSentEvent]:
    """Return up to `limit` events, the oldest of them first, together with the joins and leaves among them."""
    count = limit
    while count and (position := registry.position()) is not None:
        newest = await _read(registry, channels, limit, count, position)
        if newest is None:  # the log began another life
            continue
        if newest.complete:
            return newest.events(channels)
        count *= 2  # events that are rendered for each reader are kept, but are not events without one
    return []


async def _read(
    registry: Registry, channels: tuple[str, ...], limit: int, count: int, position: Position
) -> "_Newest | None":
    """Read the newest `count` entries; return None if the log began another life meanwhile."""
    upto = position._replace(sequence=MAX_SEQUENCE)  # everything that is kept now, even if this process has not seen it
    after = await registry.rewind(channels, count, upto)
    newest = _Newest(limit, whole=after is None)
    while True:
        page = await registry.page(channels, after, upto, PAGE)
        now = registry.position()
        if now is None or now.epoch != position.epoch:
            return None
        for entry in page.entries:
            newest.add(entry)
        if page.next is None:
            return newest
        after = page.next


class _Newest:
    """Keeps the newest of the events that are added."""

    def __init__(self, limit: int, *, whole: bool) -> None:
        self._limit = limit
        self._whole = whole
        self._entries: deque[tuple[Entry, ServerSentEvent]] = deque()
        self._counted = 0

    def add(self, entry: Entry) -> None:
        """Add a later event; the oldest is dropped if there are too many, because more were published meanwhile."""
        if isinstance(entry.event, ServerSentEvent):
            self._entries.append((entry, entry.event))
            self._counted += not is_presence(entry)
        while self._counted > self._limit:
            self._counted -= not is_presence(self._entries.popleft()[0])

    @property
    def complete(self) -> bool:
        """Whether there are as many events as were asked for, or the backend keeps no more."""
        return self._whole or self._counted >= self._limit

    def events(self, channels: tuple[str, ...]) -> list[ServerSentEvent]:
        """Return the events as a reader of these channels sees them."""
        return [entry.for_reader(event, channels) for entry, event in self._entries]
