"""The runs of the memory backend: a table of records, in which every transition of `_log/run.py` is one call."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .._log.event import ServerSentEvent
from .._log.position import Position
from .._log.run import RUNNING, RunRecord, RunState, end_event, run_channel
from ..exceptions import BackendError
from ._shelf import RECORD_BYTES, Bounds, Shelf

NO_ROOM = (
    "the events of runs fill their {bound} bytes, which are half of total_bytes, and no ended run is left to forget: "
    "give MemoryBackend a larger total_bytes=, or the runs a smaller max_bytes="
)

Store = Callable[[Shelf, tuple[str, ...], ServerSentEvent], Position | None]


@dataclass(slots=True)
class _Kept:
    """A run in the table, its channel, and when its lease ends or it is forgotten."""

    record: RunRecord
    channels: tuple[str]
    ttl: float
    until: float


class RunTable:
    """The runs of one log in memory.

    Attributes:
        shelf: The events of the runs. They take room of the other events.
    """

    def __init__(self, store: Store, others: Shelf, bound: int) -> None:
        """Begin without runs.

        Args:
            store: Numbers, keeps and delivers an event.
            others: The events whose room the runs take.
            bound: The most bytes of the events of all runs. Those that ended longest ago are forgotten to make room.
        """
        self.shelf = Shelf(Bounds(1 << 60, 1 << 60, 1 << 60, 1 << 60))
        self._store = store
        self._others = others
        self._bound = bound
        self._running: dict[str, _Kept] = {}
        self._ended: dict[str, _Kept] = {}  # in the order of their ends

    def get(self, key: str, now: float) -> RunRecord | None:
        """Return a record; None if there is no such run, or no longer."""
        kept = self._running.get(key) or self._ended.get(key)
        if kept is None:
            return None
        if kept.record.state != RUNNING and kept.until <= now:
            self._forget(key)
            return None
        return kept.record

    def start(
        self, key: str, owner: str, fingerprint: str, begin: Position, *, now: float, lease: float, ttl: float
    ) -> RunRecord:
        """Begin a run, unless there is one; return the record."""
        record = self.get(key, now)
        if record is None:
            record = RunRecord(key, owner, RUNNING, begin, begin, 0, fingerprint)
            self._running[key] = _Kept(record, (run_channel(key),), ttl, now + lease)
        return record

    def append(
        self, key: str, owner: str, after: int, events: Sequence[ServerSentEvent], *, now: float
    ) -> RunRecord | None:
        """Store the events of the owner; return the record.

        Raises:
            BackendError: There is no room.
        """
        kept = self._running.get(key)
        if kept is None or kept.record.owner != owner or kept.record.appended != after:
            return self.get(key, now)
        self._make_room(events)
        last = self._keep(kept, events)
        # What _replace does, in a third of its time.
        begin, fingerprint = kept.record.begin, kept.record.fingerprint
        kept.record = RunRecord(key, owner, RUNNING, begin, last, after + len(events), fingerprint)
        return kept.record

    def end(
        self,
        key: str,
        state: RunState,
        reason: str,
        owner: str | None,
        *,
        appended: int | None = None,
        begin: Position,
        now: float,
        ttl: float,
    ) -> bool:
        """End a running run, if it has the owner and the count that are given; return True if this call did."""
        if owner is not None and appended is None:
            self.start(key, owner, "", begin, now=now, lease=0, ttl=ttl)  # in place of a record that was lost
        kept = self._running.get(key)
        if kept is None or owner not in (None, kept.record.owner) or appended not in (None, kept.record.appended):
            return False
        self._end(kept, state, reason, now)
        return True

    def renew(self, owners: Collection[tuple[str, str]], *, now: float, lease: float) -> list[str]:
        """Renew leases, end the runs whose leases have run out, and forget old ones; return the keys that are gone."""
        gone = []
        for key, owner in owners:
            kept = self._running.get(key)
            if kept is None or kept.record.owner != owner:
                gone.append(key)
            else:
                kept.until = now + lease
        for kept in [kept for kept in self._running.values() if kept.until <= now]:
            self._end(kept, "lost", "lease", now)
        for key in [key for key, kept in self._ended.items() if kept.until <= now]:
            self._forget(key)
        return gone

    def _keep(self, kept: _Kept, events: Sequence[ServerSentEvent]) -> Position:
        """Store events; return the position of the last one."""
        shelf, before = self.shelf, self.shelf.total
        last: Position | None = None
        for event in events:
            last = self._store(shelf, kept.channels, event)
        assert last is not None
        self._others.reserve(shelf.total - before)
        return last

    def _end(self, kept: _Kept, state: RunState, reason: str, now: float) -> None:
        key = kept.record.key
        last = self._keep(kept, [end_event(state, reason)])
        kept.record = kept.record._replace(state=state, reason=reason, last=last)
        kept.until = now + kept.ttl
        del self._running[key]
        self._ended[key] = kept

    def _forget(self, key: str) -> None:
        del self._ended[key]
        before = self.shelf.total
        self.shelf.remove(run_channel(key))
        self._others.reserve(self.shelf.total - before)

    def _make_room(self, events: Sequence[ServerSentEvent]) -> None:
        needed = RECORD_BYTES * len(events)
        for event in events:
            needed += len(event.encode())
        while self.shelf.total + needed > self._bound:
            if not self._ended:
                raise BackendError(NO_ROOM.format(bound=self._bound))
            self._forget(next(iter(self._ended)))
