"""The live events held for one reader, bounded in number and bytes."""

from .._log.event import Entry


class Buffer:
    """A queue of log entries that never grows past its bounds.

    An entry that is larger than the whole buffer is still admitted when the buffer is empty.

    Attributes:
        entries: From the oldest to the newest; to be read, not changed.
        size: Their bytes together.
        dropped: How many entries were let go since this was last reset.
    """

    __slots__ = ("_max_bytes", "_max_events", "dropped", "entries", "size")

    def __init__(self, max_events: int, max_bytes: int) -> None:
        """Hold nothing yet; an empty list costs a tenth of an empty deque, and there is one for every idle reader."""
        self.entries: list[Entry] = []
        self.size = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self.dropped = 0

    @property
    def bounds(self) -> str:
        """Say what was too much, and what to do."""
        return (
            f"more than {self._max_events} events or {self._max_bytes} bytes were waiting: "
            "read faster, raise buffer_size or buffer_bytes, or choose another overflow rule"
        )

    def append(self, entry: Entry) -> bool:
        """Hold one more; False, and nothing is done, when the buffer is full."""
        entries = self.entries
        size = self.size + len(entry.frame)
        if entries and (len(entries) >= self._max_events or size > self._max_bytes):
            return False
        entries.append(entry)
        self.size = size
        return True

    def append_dropping_oldest(self, entry: Entry) -> None:
        """Hold one more and let go of as many of the oldest as that takes."""
        self._replace([*self.entries, entry])
        while len(self.entries) > 1 and self._is_over():
            self.pop()
            self.dropped += 1

    def append_keeping_latest(self, entry: Entry) -> bool:
        """Hold one more and only the newest of each key; False when that is still too much."""
        newest: dict[object, Entry] = {}
        for one in (*self.entries, entry):
            key = one if one.key is None else one.key
            newest.pop(key, None)
            newest[key] = one
        self._replace(list(newest.values()))
        return not self._is_over()

    def pop(self, count: int = 1) -> Entry:
        """Let go of the oldest entries; return the last of them."""
        entries = self.entries
        last = entries[count - 1]
        if count == len(entries):
            entries.clear()
            self.size = 0
        else:
            self.size -= sum(len(one.frame) for one in entries[:count])
            del entries[:count]
        return last

    def clear(self) -> None:
        """Let go of everything."""
        self.entries.clear()
        self.size = self.dropped = 0

    def _replace(self, entries: list[Entry]) -> None:
        self.entries = entries
        self.size = sum(len(one.frame) for one in entries)

    def _is_over(self) -> bool:
        return len(self.entries) > self._max_events or self.size > self._max_bytes
