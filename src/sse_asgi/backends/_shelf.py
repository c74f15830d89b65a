"""The logs of many channels in memory, bounded, and an exact account of the records that each of them dropped.

A record is kept once, however many channels it was published to, and the log of each channel refers to it. A log drops
only its oldest record, so that it holds every record of its channel from its first one on. If one channel drops a
record that another channel still holds, the record is lost to the readers of the first channel alone: the first channel
lists it as kept elsewhere. When the last of its channels drops the record, it is lost to all of them.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple, TypeAlias

from .._log.event import RenderedEvent, ServerSentEvent

MAX_EMPTIED = 100_000
MAX_JUDGED = 1000
RECORD_BYTES = 256  # memory of a record in one of its channels, besides the frame and the key
FEWEST_DROPPED = 64

# Sequence, time, frame (or an event that is more than its frame), channels, key. A plain tuple is smaller than an
# object, quicker to make, and sorts by its sequence.
Content: TypeAlias = bytes | ServerSentEvent | RenderedEvent
Record: TypeAlias = tuple[int, float, Content, tuple[str, ...], str | None]


class Bounds(NamedTuple):
    """The bounds of a shelf.

    Attributes:
        size: Records of one channel.
        channel_bytes: Bytes of the frames and keys of one channel.
        total_bytes: Bytes of all channels together, with RECORD_BYTES for each record of each channel.
        channels: Channels with at least one record.
    """

    size: int
    channel_bytes: int
    total_bytes: int
    channels: int


class _Dropped(NamedTuple):
    """A record that a channel dropped while another one holds it: its channels, the reason, and a serial number."""

    channels: tuple[str, ...]
    reason: str
    number: int


class _Past:
    """The records that a channel dropped.

    Attributes:
        sequence: The last record that no channel holds any more.
        reason: Why that record was dropped.
        elsewhere: Records that only other channels still hold, by sequence, in the order of the log.
    """

    __slots__ = ("elsewhere", "reason", "sequence")

    def __init__(self, sequence: int = 0, reason: str = "evicted") -> None:
        self.sequence = sequence
        self.reason = reason
        self.elsewhere: dict[int, _Dropped] | None = None

    def lose(self, sequence: int, reason: str) -> None:
        if sequence > self.sequence:
            self.sequence = sequence
            self.reason = reason
        if self.elsewhere:
            self.elsewhere.pop(sequence, None)

    def leave(self, record: Record, reason: str, number: int) -> None:
        """Note that this channel dropped a record that another one holds."""
        if self.elsewhere is None:
            self.elsewhere = {}
        self.elsewhere[record[0]] = _Dropped(record[3], reason, number)

    @property
    def last(self) -> int:
        return max(self.sequence, next(reversed(self.elsewhere), 0)) if self.elsewhere else self.sequence


class ChannelLog:
    """The records of one channel.

    Attributes:
        names: The channel's name in a tuple, which the records of this channel alone share.
        past: The records that it dropped.
        size: Bytes of the frames and keys.
        items: The records, in the order of the log, after the empty places of dropped records.
        start: The index of the first record.
    """

    __slots__ = ("items", "names", "past", "size", "start")

    def __init__(self, name: str, past: _Past) -> None:
        """Keep nothing yet."""
        self.names = (name,)
        self.past = past
        self.size = 0
        self.items: list[Record | None] = []
        self.start = 0

    @property
    def first(self) -> Record:
        """Return the oldest record; there must be one."""
        return self.items[self.start]  # type: ignore[return-value]

    @property
    def newest(self) -> Record:
        """Return the newest record; there must be one."""
        return self.items[-1]  # type: ignore[return-value]

    def pop_first(self) -> tuple[Record, int]:
        """Remove the oldest record, and return it with its bytes."""
        items, start = self.items, self.start
        record = items[start]
        assert record is not None
        items[start] = None
        self.start = start = start + 1
        if start >= FEWEST_DROPPED and start * 2 > len(items):
            del items[:start]
            self.start = 0
        size = content_size(record[2], record[4])
        self.size -= size
        return record, size

    def holds(self, sequence: int) -> bool:
        """Return True if a record of this channel is still here."""
        return self.start < len(self.items) and self.first[0] <= sequence

    def between(self, start: int, end: int) -> Sequence[Record]:
        """Return the records after one sequence and up to another."""
        items = self.items
        if items[-1][0] <= start or items[self.start][0] > end:  # type: ignore[index] # the same as newest and first
            return ()
        return items[self._index(start) : self._index(end)]  # type: ignore[return-value]

    def back_from(self, sequence: int) -> Iterator[Record]:
        """Iterate over the records up to a sequence, the newest first."""
        return map(self.items.__getitem__, range(self._index(sequence) - 1, self.start - 1, -1))  # type: ignore[arg-type]

    def _index(self, sequence: int) -> int:
        return bisect_right(self.items, (sequence, inf), self.start)  # type: ignore[type-var]


class Shelf:
    """The logs of one kind of events, in the order in which their channels were last published to.

    Attributes:
        logs: The log of each channel with records.
        total: Bytes of all records, with RECORD_BYTES for each record of each channel, and bytes reserved.
    """

    def __init__(self, bounds: Bounds) -> None:
        """Keep nothing yet."""
        self.logs: OrderedDict[str, ChannelLog] = OrderedDict()
        self._size, self._channel_bytes, self._total_bytes, self._channels = bounds
        self._emptied: OrderedDict[str, _Past] = OrderedDict()
        self._forgotten = _Past()  # the past of emptied channels beyond MAX_EMPTIED
        self._number = 0
        self._judged: OrderedDict[tuple[tuple[str, ...], int], int] = OrderedDict()
        self.total = 0

    def keep(self, sequence: int, now: float, content: Content, channels: tuple[str, ...], key: str | None) -> None:
        """Keep an event for its channels, and drop older ones beyond the bounds. An event beyond them is not kept."""
        size = content_size(content, key)
        cost = size + RECORD_BYTES * len(channels)
        if size > self._channel_bytes or cost > self._total_bytes:
            self._refuse(sequence, channels)
            return
        logs = self.logs
        if len(channels) == 1:
            name = channels[0]
            log = logs.get(name) or self._new_log(name)
            channels = log.names
        record: Record = (sequence, now, content, channels, key)
        for name in channels:
            log = logs.get(name) or self._new_log(name)
            log.items.append(record)
            log.size += size
            if len(log.items) - log.start > self._size or log.size > self._channel_bytes:
                self._trim(log)
            logs.move_to_end(name)
        self.total += cost
        if self.total > self._total_bytes:
            self._make_room()
        while len(logs) > self._channels:
            self._empty_oldest("evicted")

    def reserve(self, size: int) -> None:
        """Count bytes that are kept elsewhere as part of the bound."""
        self.total += size
        if self.total > self._total_bytes:
            self._make_room()

    def _make_room(self) -> None:
        while self.total > self._total_bytes and self.logs:
            self._drop_oldest()

    def _new_log(self, name: str) -> ChannelLog:
        past = self._emptied.pop(name) if name in self._emptied else self._unknown()
        log = self.logs[name] = ChannelLog(name, past)
        return log

    def remove(self, name: str) -> None:
        """Remove a channel that has records of its own only, and remember nothing of it."""
        log = self.logs.pop(name, None)
        if log is not None:
            self.total -= log.size + RECORD_BYTES * (len(log.items) - log.start)

    def loss(self, names: tuple[str, ...], after: int) -> tuple[int, str]:
        """Return the last sequence after this one that none of these channels holds, and the reason; 0 if none."""
        last, reason = after, ""
        pasts = [self._past(name) or self._forgotten for name in names]
        for past in pasts:
            if past.sequence > last:
                last, reason = past.sequence, past.reason
        shared = [past.elsewhere for past in pasts if past.elsewhere]
        if shared:
            known = self._judged.pop((names, after), 0)
            firsts = {name: log.first[0] for name in names if (log := self.logs.get(name)) is not None}
            for elsewhere in shared:
                for sequence, (channels, why, number) in reversed(elsewhere.items()):
                    if sequence <= last or number <= known:
                        break
                    for name in channels:
                        if firsts.get(name, inf) <= sequence:  # a log holds everything from its first record on
                            break
                    else:
                        last, reason = sequence, why
                        break
        return (last, reason) if reason else (0, "")

    def judged(self, names: tuple[str, ...], after: int) -> None:
        """Remember that after this sequence no loss is left that `loss` did not return.

        Otherwise each page of a replay would look at all records that other channels still hold.
        """
        if self._number:
            self._judged[names, after] = self._number
            if len(self._judged) > MAX_JUDGED:
                self._judged.popitem(last=False)

    def logs_after(self, names: Iterable[str], sequence: int) -> list[ChannelLog]:
        """Return the logs of these channels that hold later records."""
        logs = map(self.logs.get, names) if self.logs else ()
        return [log for log in logs if log is not None and log.newest[0] > sequence]

    def expire(self, horizon: float, names: Iterable[str]) -> None:
        """Drop the records of these channels that are older than this, and empty every channel without newer ones."""
        while self.logs and next(iter(self.logs.values())).newest[1] < horizon:
            self._empty_oldest("expired")
        for log in map(self.logs.get, names) if self.logs else ():
            while log is not None and log.first[1] < horizon:
                self._drop_first(log, "expired")

    # Dropping

    def _trim(self, log: ChannelLog) -> None:
        while len(log.items) - log.start > self._size or log.size > self._channel_bytes:
            self._drop_first(log, "trimmed")

    def _drop_first(self, log: ChannelLog, reason: str) -> None:
        record, size = log.pop_first()
        sequence, _, _, channels, _ = record
        if len(channels) == 1:
            log.past.lose(sequence, reason)
        elif any(self._holds(name, sequence) for name in reversed(channels)):  # the last of them keeps it longest
            self._number += 1
            log.past.leave(record, reason, self._number)
            return
        else:
            for past in filter(None, map(self._past, channels)):
                past.lose(sequence, reason)
        self.total -= size + RECORD_BYTES * len(channels)

    def _drop_oldest(self) -> None:
        """Drop the oldest record of the channel that was published to least recently."""
        name, log = next(iter(self.logs.items()))
        self._drop_first(log, "trimmed")
        if log.start == len(log.items):
            self._empty(name, log)

    def _empty_oldest(self, reason: str) -> None:
        name, log = next(iter(self.logs.items()))
        while log.start < len(log.items):
            self._drop_first(log, reason)
        self._empty(name, log)

    def _empty(self, name: str, log: ChannelLog) -> None:
        del self.logs[name]
        self._remember(name, log.past)

    def _refuse(self, sequence: int, channels: tuple[str, ...]) -> None:
        for name in channels:
            past = self._past(name)
            if past is None:
                past = self._unknown()
                self._remember(name, past)
            past.lose(sequence, "trimmed")

    # The past

    def _holds(self, name: str, sequence: int) -> bool:
        log = self.logs.get(name)
        return log is not None and log.holds(sequence)

    def _past(self, name: str) -> _Past | None:
        log = self.logs.get(name)
        return self._emptied.get(name) if log is None else log.past

    def _unknown(self) -> _Past:
        return _Past(self._forgotten.sequence, self._forgotten.reason)

    def _remember(self, name: str, past: _Past) -> None:
        self._emptied[name] = past
        if len(self._emptied) > MAX_EMPTIED:
            self._forgotten.lose(self._emptied.popitem(last=False)[1].last, "evicted")


def content_size(content: Content, key: str | None = None) -> int:
    """Return the bytes of a frame and its key. The frame of an event that is rendered for each reader counts 0."""
    size = len(content if isinstance(content, bytes) else content.encode())
    return size if key is None else size + len(key.encode())
