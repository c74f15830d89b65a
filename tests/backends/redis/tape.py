"""A sink that records the calls of a backend."""

from sse_asgi._log.event import Entry
from sse_asgi._log.position import Position


class Tape:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def deliver(self, entry: Entry) -> None:
        self.told.append(entry.channels if entry.position is None else entry.position.sequence)

    def advance(self, position: Position) -> None:
        self.told.append(f"at {position.sequence}")

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        self.told.append((reason, channels))

    def state(self, *, up: bool) -> None:
        raise AssertionError(up)
