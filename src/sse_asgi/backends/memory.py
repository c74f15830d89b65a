"""A log in the memory of this process: the default backend, and the reference for the contract.

- The log keeps plain records: a frame and its fields, once, however many channels refer to it. An event is made of the
  frame again when a reader asks for it.
- Every event has the next sequence, so that sequences are dense. A page of history is read over a span of sequences,
  and each channel is looked at twice: a reader of many channels costs as much as its channels cost one by one.
- The events of the application, joins and leaves, the library's own channels, and runs are four shelves: a client that
  enters many channels cannot push out their histories, and the events of a run are kept until it is forgotten.
"""

import heapq
import logging
import os
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby, islice
from operator import itemgetter

from .._log.event import Entry, History, ReceivedEntry, RenderedEvent, ServerSentEvent
from .._log.logged import about
from .._log.names import RESERVED
from .._log.position import Position, new_epoch, new_position
from .._log.run import RunRecord, RunState
from .._loop.timer import SystemTime, Timer, shared_timer
from .._servers.workers import worker_count
from ._idempotency import PublishedKeys
from ._members import MemberLists
from ._runs import RunTable
from ._shelf import Bounds, Record, Shelf, content_size
from .base import BYTES_RULE, PAGE_BYTES, Backend, Member, Sink, presence_event

logger: logging.Logger = logging.getLogger("sse_asgi.backends")

EXPIRE_SECONDS = 1.0
SHARE = 16  # joins and leaves, and the library's own channels, each get one sixteenth of the bytes


class MemoryBackend(Backend):
    """Keeps each channel's latest events in memory, for one process, also while a channel has no reader.

    If there are too many channels, the channels that were published to least recently are emptied. If there are too
    many bytes, the oldest events of these channels are dropped. A reader that missed such an event gets a gap. Joins
    and leaves have a history of their own beside a channel's events, with a sixteenth of the bytes, so that they push
    out no events and empty no channels. A forked process begins a log of its own when it opens the backend.
    """

    in_process = True

    def __init__(
        self,
        *,
        history_size: int = 1000,
        history_ttl: float | None = 3600,
        history_bytes: int = 4 << 20,
        total_bytes: int = 256 << 20,
        max_channels: int = 10_000,
    ) -> None:
        """Begin an empty log.

        Args:
            history_size: Events kept for each channel. 0 keeps none, and then no event can be replayed.
            history_ttl: Seconds that an event is kept. None keeps events until there are too many.
            history_bytes: Bytes of events kept for each channel: the frames as they are sent, and their keys. A larger
                event is not kept.
            total_bytes: Bytes kept for all channels together. An event counts 256 bytes more for each of its channels,
                which is about the memory that it takes. An idempotency key counts its text and 256 bytes for as long
                as it is remembered: two minutes, or less if the keys alone are beyond the bound.
            max_channels: Channels that keep events.

        Raises:
            ValueError: A number is negative, a number other than `history_size` is 0, or bytes are not a whole number.
        """
        if history_size < 0 or (history_ttl is not None and not history_ttl > 0) or max_channels < 1:
            msg = (
                f"history_size={history_size}, history_ttl={history_ttl}, max_channels={max_channels}: "
                "the size must be at least 0, the ttl above 0 or None, the channels at least 1"
            )
            raise ValueError(msg)
        for name, value in (("history_bytes", history_bytes), ("total_bytes", total_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                msg = f"{name}={value!r}: must be {BYTES_RULE}"
                raise ValueError(msg)
        self.keeps_history: bool = history_size > 0
        self._ttl = history_ttl
        self._bounds = Bounds(history_size, history_bytes, total_bytes, max_channels)
        self._begin()

    def _begin(self) -> None:
        """Begin the log of this process."""
        self._process = os.getpid()
        self._sinks: list[Sink] = []
        self._timer: Timer | SystemTime = SystemTime()  # until it is connected
        self._position = Position(new_epoch(), 0)
        # Three kinds of events are kept apart, so that none of them pushes out the others.
        share = self._bounds.total_bytes // SHARE
        small = self._bounds._replace(total_bytes=share)
        self._events = Shelf(self._bounds._replace(total_bytes=self._bounds.total_bytes - 2 * share))
        self._presence_events = Shelf(small)
        self._own = Shelf(small)  # the library's channels, such as the one for disconnect orders
        self._runs = RunTable(self._store, self._events, self._bounds.total_bytes // 2)
        self._shelves = self._events, self._presence_events, self._own, self._runs.shelf
        self._expire_at = 0.0
        self._published = PublishedKeys(self._events, self._bounds.total_bytes)
        self._members = MemberLists()

    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Deliver every event to this sink.

        Raises:
            RuntimeError: The backend is open in another event loop.
        """
        if self._process != os.getpid():  # a forked process: its readers do not know the positions of the parent's log
            self._begin()
        timer = shared_timer()  # each event loop has its own
        if self._sinks and self._timer is not timer:
            msg = "this MemoryBackend is open in another event loop: make one backend for each event loop"
            raise RuntimeError(msg)
        self._timer = timer
        return self._connected(sink)

    @asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[None]:
        _warn_of_workers()
        sinks = self._sinks
        sinks.append(sink)
        if self.keeps_history:
            sink.advance(self._position)
        try:
            yield
        finally:
            sinks.remove(sink)

    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        """Number, keep and deliver an event without waiting, so that no other event comes between."""
        shelf = self._own if channels[0].startswith(RESERVED) else self._events
        return self._store(shelf, channels, event, key, idempotency_key)

    def _store(
        self,
        shelf: Shelf,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> Position | None:
        now = self._timer.now()
        if self._published.known:
            self._published.forget_old(now)
            if idempotency_key is not None and idempotency_key in self._published.known:
                return self._published.known[idempotency_key][1]
        epoch, last = self._position
        position = self._position = new_position(Position, (epoch, last + 1))
        entry = Entry(event, position if self.keeps_history else None, channels, key)
        if idempotency_key is not None:
            self._published.remember(idempotency_key, now, entry.position)
        if self.keeps_history:
            if self._ttl is not None and now >= self._expire_at:
                self._expire_at = now + EXPIRE_SECONDS
                self._expire(())
            # The frame is the whole event, unless the data has carriage returns or is rendered for each reader.
            whole = isinstance(event, ServerSentEvent) and "\r" not in (event.data or "")
            shelf.keep(last + 1, now, entry.frame if whole else event, channels, key)
        for sink in self._sinks:
            sink.deliver(entry)
        return entry.position

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:  # noqa: ARG002 - all are delivered
        """Return the last position."""
        return self._position if self.keeps_history else None

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Do nothing: every event is delivered, and the hub chooses its readers."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Merge the records of the channels, and read no further than the end of the page."""
        self._expire(channels)
        epoch = self._position.epoch
        reason = self._foreign(after)
        start = 0 if after is None or reason else after.sequence
        lost, why = max(shelf.loss(channels, start) for shelf in self._shelves)
        entries: list[Entry] = []
        following, size = None, 0
        for record in self._records(channels, start, min(upto.sequence, self._position.sequence), limit):
            sequence, _, content, names, key = record
            size += content_size(content)
            if len(entries) == limit or (entries and size > PAGE_BYTES):
                following = entries[-1].position
                break
            position = new_position(Position, (epoch, sequence))
            if isinstance(content, bytes):
                entries.append(ReceivedEntry(content, position, names, key))
            else:
                entries.append(Entry(content, position, names, key))
        if following is not None:
            self._events.judged(channels, following.sequence)
        return History(entries, following, reason or (why or None if after else None), lost)

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Read the newest events of the channels backward, and no more than `count` of them."""
        self._expire(channels)
        logs = [
            log.back_from(upto.sequence) for shelf in (self._events, self._own) for log in shelf.logs_after(channels, 0)
        ]
        newest = heapq.merge(*logs, reverse=True)
        events = (next(same) for _, same in groupby(newest, key=itemgetter(0)))
        before = next(islice(events, count, None), None)
        return None if before is None else Position(self._position.epoch, before[0])

    def _records(self, channels: tuple[str, ...], start: int, end: int, limit: int) -> list[Record]:
        """Return records of the channels after one sequence and up to another, in order: more than `limit`, or all.

        Sequences are dense, so that a span of sequences holds at most as many events as it is long. Each span is twice
        as long as the one before, because most of the events may be on other channels.
        """
        logs = [log for shelf in self._shelves for log in shelf.logs_after(channels, start)]
        records: list[Record] = []
        span = limit + 1
        while logs and len(records) <= limit and start < end:
            start, before, span = min(start + span, end), start, span * 2
            found = [record for log in logs for record in log.between(before, start)]
            found.sort()  # by sequence; sorting merges runs that are in order
            records += (next(same) for _, same in groupby(found, itemgetter(0))) if len(logs) > 1 else found
        return records

    def _foreign(self, position: Position | None) -> str | None:
        """Return why a position is not of this log, or None."""
        if position is None:
            return None
        if position.epoch != self._position.epoch:
            return "epoch"
        return "fork" if position.sequence > self._position.sequence else None

    def _expire(self, channels: tuple[str, ...]) -> None:
        if self._ttl is not None:
            horizon = self._timer.now() - self._ttl
            for shelf in self._shelves[:3]:  # a run is forgotten as a whole
                shelf.expire(horizon, channels)

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """Update the members that a hub has listed. A closed hub is gone when its lease has run out."""
        changes = self._members.attend(process, self._timer.now(), lease, entered, left)
        self._publish_presence(changes)
        return self._members.count(process)

    def _publish_presence(self, changes: list[tuple[str, Member]]) -> None:
        for kind, member in changes:
            self._store(self._presence_events, (member.channel,), presence_event(kind, member.identity))

    async def present(self, channel: str) -> Collection[str]:
        """Expire the leases of dead hubs, then return the channel's identities."""
        self._publish_presence(self._members.expire(self._timer.now()))
        return self._members.identities(channel)

    async def start_run(self, key: str, owner: str, *, lease: float, ttl: float, fingerprint: str = "") -> RunRecord:
        """Begin a run behind the last event, unless there is one with this key."""
        now = self._timer.now()
        return self._runs.start(key, owner, fingerprint, self._position, now=now, lease=lease, ttl=ttl)

    async def append_run(self, key: str, owner: str, after: int, events: Sequence[ServerSentEvent]) -> RunRecord | None:
        """Store and deliver events of a run without waiting."""
        return self._runs.append(key, owner, after, events, now=self._timer.now())

    async def end_run(
        self,
        key: str,
        state: RunState,
        *,
        reason: str = "",
        owner: str | None = None,
        appended: int | None = None,
        ttl: float = 0.0,
    ) -> bool:
        """End a run without waiting."""
        now = self._timer.now()
        return self._runs.end(key, state, reason, owner, appended=appended, begin=self._position, now=now, ttl=ttl)

    async def get_run(self, key: str) -> RunRecord | None:
        """Return the record of a run."""
        return self._runs.get(key, self._timer.now())

    async def renew_runs(self, owners: Collection[tuple[str, str]], *, lease: float) -> Collection[str]:
        """Renew leases. Only the runs of a hub that was not closed properly can be lost."""
        return self._runs.renew(owners, now=self._timer.now(), lease=lease)


def _warn_of_workers() -> None:
    workers = worker_count()
    if workers > 1:
        logger.warning(
            "MemoryBackend with %d workers: each worker has a hub of its own, so an event reaches only the readers "
            "of the worker that published it. Set SSE_BACKEND_URL=redis://..., or run one worker.",
            workers,
            extra=about("memory_backend_in_workers"),
        )
