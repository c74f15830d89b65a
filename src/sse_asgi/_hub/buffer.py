"""Buffer: the live events that wait for one reader, bounded in number and in bytes."""

from collections.abc import Sequence

from .._log.event import Entry


class Buffer:
    """A queue of log entries that never grows past its bounds.

    An entry that is larger than the whole buffer is still admitted when the buffer is empty. An empty buffer has no
    list of its own, because most readers are idle most of the time.

    Attributes:
        entries: From the oldest to the newest; to be read, not changed.
        size: The number of their bytes.
        dropped: How many entries were dropped since the gate last announced it.
    """

    __slots__ = ("_max_bytes", "_max_events", "dropped", "entries", "size")

    def __init__(self, max_events: int, max_bytes: int) -> None:
        """Begin empty."""
        self.entries: list[Entry] | tuple[()] = ()
        self.size: int = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.dropped: int = 0

    @property
    def bounds(self) -> str:
        """The bounds that were exceeded, and what to do about it, for an error message."""
        return (
            f"more than {self._max_events} events or {self._max_bytes} bytes were waiting: "
            "read faster, raise buffer_size or buffer_bytes, or choose another overflow rule"
        )

    def append(self, entry: Entry) -> bool:
        """Add an entry; return False, and add nothing, if the buffer is full."""
        entries = self.entries
        if not entries:
            self.entries = [entry]
            self.size = len(entry.frame)
            return True
        size = self.size + len(entry.frame)
        if len(entries) >= self._max_events or size > self._max_bytes:
            return False
        entries.append(entry)
        self.size = size
        return True

    def append_dropping_oldest(self, entry: Entry) -> None:
        """Add an entry, and drop as many of the oldest as do not fit beside it."""
        self._replace([*self.entries, entry])
        while len(self.entries) > 1 and self._is_over():
            self.pop()
            self.dropped += 1

    def append_keeping_latest(self, entry: Entry) -> bool:
        """Add an entry, and keep only the newest entry of each key; return False if that is still too much."""
        newest: dict[object, Entry] = {}
        for one in (*self.entries, entry):
            key = one if one.key is None else one.key
            newest.pop(key, None)
            newest[key] = one
        self._replace(list(newest.values()))
        return not self._is_over()

    def pop(self, count: int = 1) -> Entry:
        """Remove so many of the oldest entries; return the last of them."""
        entries = self.entries
        assert entries
        last = entries[count - 1]
        if count == len(entries):
            self.entries = ()
            self.size = 0
        else:
            self.size -= _size(entries[:count])
            del entries[:count]
        return last

    def clear(self) -> None:
        """Remove every entry, and forget what was dropped."""
        self.entries = ()
        self.size = self.dropped = 0

    def _replace(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.size = _size(entries)

    def _is_over(self) -> bool:
        return len(self.entries) > self._max_events or self.size > self._max_bytes


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(one.frame) for one in entries)
