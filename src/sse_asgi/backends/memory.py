"""A log in this process's memory: the default backend, and the reference for the contract."""

import heapq
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby, islice
from operator import itemgetter

from .._log.event import Entry, History, ReceivedEntry, RenderedEvent, ServerSentEvent
from .._log.names import RESERVED
from .._log.position import Position, new_epoch
from .._loop.running import running_loop
from .._servers.workers import worker_count
from ._shelf import Bounds, Record, Shelf, content_size
from .base import PAGE_BYTES, Backend, Member, Sink, presence_event

logger = logging.getLogger("sse_asgi.backends")

IDEMPOTENCY_SECONDS = 120.0
EXPIRE_SECONDS = 1.0
SHARE = 16  # joins and leaves, and the library's own channels, may each take one part in so many of the bytes


class MemoryBackend(Backend):
    """Keeps each channel's latest events in memory, also while nobody reads them, for one process.

    When there are too many channels, those that were published to least recently are emptied; when there are too many
    bytes in all, the oldest events of those are dropped. A reader that missed something that way is told. Joins and
    leaves have a history of their own beside a channel's events, with a sixteenth of the bytes, so that they push out
    no events and empty no channels. A process that was forked begins a log of its own where it opens the backend.
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
            history_size: Events kept for each channel; 0 keeps none, and then nothing can be replayed.
            history_ttl: Seconds that an event is kept; None keeps it until there are too many.
            history_bytes: Bytes of events kept for each channel, as they are sent; a larger event is not kept.
            total_bytes: Bytes kept for all channels together; an event counts 256 bytes more for each of its channels,
                which is about what keeping it takes.
            max_channels: Channels that keep events.

        Raises:
            ValueError: A negative number, one of 0 that is not `history_size`, or bytes that are no whole number.
        """
        if history_size < 0 or (history_ttl is not None and not history_ttl > 0) or max_channels < 1:
            msg = (
                f"history_size={history_size}, history_ttl={history_ttl}, max_channels={max_channels}: "
                "the size must be at least 0, the ttl above 0 or None, the channels at least 1"
            )
            raise ValueError(msg)
        for name, value in (("history_bytes", history_bytes), ("total_bytes", total_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                msg = f"{name}={value!r}: must be a whole number of bytes, at least 1; history_size=0 keeps no history"
                raise ValueError(msg)
        self.keeps_history = history_size > 0
        self._ttl = history_ttl
        self._bounds = Bounds(history_size, history_bytes, total_bytes, max_channels)
        self._begin()

    def _begin(self) -> None:
        """Begin the log of this process."""
        self._process = os.getpid()
        self._sinks: list[Sink] = []
        self._loop: object | None = None
        self._position = Position(new_epoch(), 0)
        # Three kinds of events are kept apart, so that none of them pushes out another.
        share = self._bounds.total_bytes // SHARE
        small = self._bounds._replace(total_bytes=share)
        self._events = Shelf(self._bounds._replace(total_bytes=self._bounds.total_bytes - 2 * share))
        self._presence_events = Shelf(small)
        self._own = Shelf(small)  # channels of the library, such as the one for orders to disconnect
        self._shelves = self._events, self._presence_events, self._own
        self._expire_at = 0.0
        self._published: OrderedDict[str, tuple[float, Position | None]] = OrderedDict()
        self._attending: dict[str, set[Member]] = {}
        self._leases: dict[str, float] = {}
        self._present: dict[str, Counter[str]] = {}

    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Deliver every event to this sink.

        Raises:
            RuntimeError: It is open in another event loop.
        """
        if self._process != os.getpid():  # it was forked: what its parent numbered means nothing to its readers
            self._begin()
        if self._sinks and self._loop is not running_loop():
            msg = "this MemoryBackend is open in another event loop: make one for each"
            raise RuntimeError(msg)
        self._loop = running_loop()
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
        """Number, keep and deliver an event without waiting, so that nothing comes between."""
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
        now = time.monotonic()
        if self._published:
            self._forget_keys(now)
            if idempotency_key is not None and idempotency_key in self._published:
                return self._published[idempotency_key][1]
        epoch, last = self._position
        self._position = Position(epoch, last + 1)
        entry = Entry(event, self._position if self.keeps_history else None, channels, key)
        if idempotency_key is not None:
            self._published[idempotency_key] = (now, entry.position)
        if self.keeps_history:
            if self._ttl is not None and now >= self._expire_at:
                self._expire_at = now + EXPIRE_SECONDS
                self._expire(())
            # The frame is all of an event, but for carriage returns, and for what is rendered for each reader.
            whole = isinstance(event, ServerSentEvent) and "\r" not in (event.data or "")
            shelf.keep(last + 1, now, entry.frame if whole else event, channels, key)
        for sink in self._sinks:
            sink.deliver(entry)
        return entry.position

    def _forget_keys(self, now: float) -> None:
        while self._published and next(iter(self._published.values()))[0] < now - IDEMPOTENCY_SECONDS:
            self._published.popitem(last=False)

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:  # noqa: ARG002 - all are delivered
        """Return the last position given out."""
        return self._position if self.keeps_history else None

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Do nothing: hubs look for their own readers."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Merge what is kept of the channels, and go no further than the page does."""
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
            position = Position(epoch, sequence)
            if isinstance(content, bytes):
                entries.append(ReceivedEntry(content, position, names, key))
            else:
                entries.append(Entry(content, position, names, key))
        if following is not None:
            self._events.judged(channels, following.sequence)
        return History(entries, following, reason or (why or None if after else None), lost)

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Look at the newest events of the channels, and no further back than is asked for."""
        self._expire(channels)
        logs = [
            log.back_from(upto.sequence) for shelf in (self._events, self._own) for log in shelf.logs_after(channels, 0)
        ]
        newest = heapq.merge(*logs, reverse=True)
        events = (next(same) for _, same in groupby(newest, key=itemgetter(0)))
        before = next(islice(events, count, None), None)
        return None if before is None else Position(self._position.epoch, before[0])

    def _records(self, channels: tuple[str, ...], start: int, end: int, limit: int) -> list[Record]:
        """Return records of the channels after one sequence and up to another, in order: more than `limit` or all.

        Every event has the next sequence, so that a span of sequences holds no more events than it is long. It is wider
        each time, because most of the events may be on other channels.
        """
        logs = [log for shelf in self._shelves for log in shelf.logs_after(channels, start)]
        records: list[Record] = []
        span = limit + 1
        while logs and len(records) <= limit and start < end:
            start, before, span = min(start + span, end), start, span * 2
            found = [record for log in logs for record in log.between(before, start)]
            found.sort()  # by their sequences; runs that are in order are merged
            records += (next(same) for _, same in groupby(found, itemgetter(0))) if len(logs) > 1 else found
        return records

    def _foreign(self, position: Position | None) -> str | None:
        """Return why a position is not one of this log."""
        if position is None:
            return None
        if position.epoch != self._position.epoch:
            return "epoch"
        return "fork" if position.sequence > self._position.sequence else None

    def _expire(self, channels: tuple[str, ...]) -> None:
        if self._ttl is not None:
            horizon = time.monotonic() - self._ttl
            for shelf in self._shelves:
                shelf.expire(horizon, channels)

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """List whom a hub has here; a hub that was closed is gone when its lease has run out."""
        now = time.monotonic()
        mine = self._attending.setdefault(process, set())
        self._leases[process] = now + lease
        await self._miss(now)
        await self._welcome(set(entered) - mine)
        await self._dismiss(mine.intersection(left))
        mine.update(entered)
        mine.difference_update(left)
        return len(mine)

    async def _miss(self, now: float) -> None:
        for process in [one for one, end in self._leases.items() if end < now]:
            del self._leases[process]
            await self._dismiss(self._attending.pop(process))

    async def _welcome(self, members: Collection[Member]) -> None:
        for member in members:
            here = self._present.setdefault(member.channel, Counter())
            here[member.identity] += 1
            if here[member.identity] == 1:
                self._publish_presence("join", member)

    async def _dismiss(self, members: Collection[Member]) -> None:
        for member in members:
            here = self._present[member.channel]
            here[member.identity] -= 1
            if not here[member.identity]:
                del here[member.identity]
                self._publish_presence("leave", member)
            if not here:
                del self._present[member.channel]

    def _publish_presence(self, kind: str, member: Member) -> None:
        self._store(self._presence_events, (member.channel,), presence_event(kind, member.identity))

    async def present(self, channel: str) -> Collection[str]:
        """Return who is listed, without those whose hub was closed, or has not beaten for too long."""
        await self._miss(time.monotonic())
        return self._present.get(channel, ())


def _warn_of_workers() -> None:
    workers = worker_count()
    if workers > 1:
        logger.warning(
            "MemoryBackend with %d workers: each worker has a hub of its own, so an event reaches only the readers "
            "of the worker that published it. Set SSE_BACKEND_URL=redis://..., or run one worker.",
            workers,
        )
