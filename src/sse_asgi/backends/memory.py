"""A log in this process's memory: the default backend, and the reference for the contract."""

import heapq
import logging
import os
import sys
import time
from argparse import ArgumentParser
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import NamedTuple

from .._event import Entry, History, RenderedEvent, ServerSentEvent
from .._position import Position, new_epoch
from .._runtime import running_loop
from .._servers import uvicorn_server
from .base import Backend, Member, Sink, presence_event

logger = logging.getLogger("sse_asgi")

IDEMPOTENCY_SECONDS = 120.0
MAX_EMPTIED = 100_000
SERVERS = {"gunicorn", "hypercorn", "granian"}


class _Loss(NamedTuple):
    """The last sequence that a channel had to let go, and why."""

    sequence: int = 0
    reason: str = ""


class _Log:
    """What one channel keeps: (time, entry) pairs, and what it had to let go last."""

    __slots__ = ("items", "loss")

    def __init__(self, loss: _Loss) -> None:
        self.items: deque[tuple[float, Entry]] = deque()
        self.loss = loss

    @property
    def newest(self) -> float:
        return self.items[-1][0]

    def append(self, now: float, entry: Entry, size: int) -> None:
        self.items.append((now, entry))
        if len(self.items) > size:
            self._drop_first("trimmed")

    def expire(self, horizon: float) -> None:
        while self.items and self.items[0][0] < horizon:
            self._drop_first("expired")

    def _drop_first(self, reason: str) -> None:
        self.loss = _Loss(_sequence(self.items.popleft()[1]), reason)

    def between(self, start: int, end: int) -> list[Entry]:
        """Return the entries in (start, end], looking at little more than those."""
        newer = takewhile(lambda item: _sequence(item[1]) > start, reversed(self.items))
        return [entry for _, entry in newer if _sequence(entry) <= end][::-1]


def _sequence(entry: Entry) -> int:
    return entry.position.sequence if entry.position else 0


class MemoryBackend(Backend):
    """Keeps each channel's latest events in memory, also while nobody reads them, for one process.

    Channels that were published to least recently are emptied when there are too many; a reader who missed something
    that way is told.
    """

    in_process = True

    def __init__(
        self, *, history_size: int = 1000, history_ttl: float | None = 3600, max_channels: int = 10_000
    ) -> None:
        """Begin an empty log.

        Args:
            history_size: Events kept for each channel; 0 keeps none, and then nothing can be replayed.
            history_ttl: Seconds that an event is kept; None keeps it until there are too many.
            max_channels: Channels that keep events.

        Raises:
            ValueError: A negative number, or a `history_ttl` or `max_channels` of 0.
        """
        if history_size < 0 or (history_ttl is not None and not history_ttl > 0) or max_channels < 1:
            msg = (
                f"history_size={history_size}, history_ttl={history_ttl}, max_channels={max_channels}: "
                "the size must be at least 0, the ttl above 0 or None, the channels at least 1"
            )
            raise ValueError(msg)
        self.keeps_history = history_size > 0
        self._size = history_size
        self._ttl = history_ttl
        self._max_channels = max_channels
        self._position = Position(new_epoch(), 0)
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        self._emptied: OrderedDict[str, _Loss] = OrderedDict()
        self._emptied_before = _Loss(0, "evicted")
        self._published: OrderedDict[str, tuple[float, Position | None]] = OrderedDict()
        self._sinks: list[Sink] = []
        self._loop: object | None = None
        self._attending: dict[str, set[Member]] = {}
        self._leases: dict[str, float] = {}
        self._present: dict[str, Counter[str]] = {}

    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Deliver every event to this sink.

        Raises:
            RuntimeError: It is open in another event loop.
        """
        if self._sinks and self._loop is not running_loop():
            msg = "this MemoryBackend is open in another event loop: make one for each"
            raise RuntimeError(msg)
        self._loop = running_loop()
        return self._connected(sink)

    @asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[None]:
        _warn_of_workers()
        self._sinks.append(sink)
        if self._size:
            sink.advance(self._position)
        try:
            yield
        finally:
            self._sinks.remove(sink)

    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        """Number, keep and deliver an event without waiting, so that nothing comes between."""
        now = time.monotonic()
        self._expire(now)
        if idempotency_key is not None and idempotency_key in self._published:
            return self._published[idempotency_key][1]
        self._position = Position(self._position.epoch, self._position.sequence + 1)
        entry = Entry(event, self._position if self._size else None, channels, key)
        if idempotency_key is not None:
            self._published[idempotency_key] = (now, entry.position)
        if self._size:
            self._keep(entry, now)
        for sink in self._sinks:
            sink.deliver(entry)
        return entry.position

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:  # noqa: ARG002 - all are delivered
        """Return the last position given out."""
        return self._position if self._size else None

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Do nothing: hubs look for their own readers."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Merge what is kept of the channels."""
        self._expire(time.monotonic(), channels)
        loss = self._loss_after(after, channels) if after else None
        start = after.sequence if after and (loss is None or loss.sequence) else 0
        logs = [self._logs[name].between(start, upto.sequence) for name in channels if name in self._logs]
        merged = heapq.merge(*logs, key=_sequence)
        # An event that was published to several of these channels is in several logs, and one in the page.
        entries = list(islice((next(same) for _, same in groupby(merged, key=_sequence)), limit + 1))
        following = entries[limit - 1].position if len(entries) > limit else None
        return History(entries[:limit], following, loss and loss.reason, loss.sequence if loss else 0)

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
                await self._publish_presence("join", member)

    async def _dismiss(self, members: Collection[Member]) -> None:
        for member in members:
            here = self._present[member.channel]
            here[member.identity] -= 1
            if not here[member.identity]:
                del here[member.identity]
                await self._publish_presence("leave", member)
            if not here:
                del self._present[member.channel]

    async def _publish_presence(self, kind: str, member: Member) -> None:
        event = presence_event(kind, member.identity)
        await self.publish((member.channel,), event, key=None, idempotency_key=None)

    async def present(self, channel: str) -> Collection[str]:
        """Return who is listed, without those whose hub was closed, or has not beaten for too long."""
        await self._miss(time.monotonic())
        return self._present.get(channel, ())

    def _loss_after(self, after: Position, channels: tuple[str, ...]) -> "_Loss | None":
        if after.epoch != self._position.epoch:
            return _Loss(0, "epoch")
        if after.sequence > self._position.sequence:
            return _Loss(0, "fork")
        losses = (
            self._logs[name].loss if name in self._logs else self._emptied.get(name, self._emptied_before)
            for name in channels
        )
        last = max(losses, key=lambda loss: loss.sequence)
        return last if last.sequence > after.sequence else None

    def _keep(self, entry: Entry, now: float) -> None:
        for name in entry.channels:
            if name not in self._logs:
                self._logs[name] = _Log(self._emptied.pop(name, self._emptied_before))
            self._logs[name].append(now, entry, self._size)
            self._logs.move_to_end(name)
        while len(self._logs) > self._max_channels:
            self._empty_oldest("evicted")

    def _expire(self, now: float, channels: tuple[str, ...] = ()) -> None:
        while self._published and next(iter(self._published.values()))[0] < now - IDEMPOTENCY_SECONDS:
            self._published.popitem(last=False)
        if self._ttl is None:
            return
        horizon = now - self._ttl
        while self._logs and next(iter(self._logs.values())).newest < horizon:
            self._empty_oldest("expired")
        for name in channels:
            if name in self._logs:
                self._logs[name].expire(horizon)

    def _empty_oldest(self, reason: str) -> None:
        name, log = self._logs.popitem(last=False)
        self._emptied[name] = _Loss(_sequence(log.items[-1][1]), reason)
        if len(self._emptied) > MAX_EMPTIED:
            self._emptied_before = self._emptied.popitem(last=False)[1]


def _warn_of_workers() -> None:
    workers = _worker_count()
    if workers > 1:
        logger.warning(
            "MemoryBackend with %d workers: each worker has a hub of its own, so an event reaches only the readers "
            "of the worker that published it. Set SSE_BACKEND_URL=redis://..., or run one worker.",
            workers,
        )


def _worker_count() -> int:
    server, asked_for = uvicorn_server(), _asked_for()
    if asked_for is not None:  # also where gunicorn's workers are those of uvicorn
        return asked_for
    return int(server.config.workers if server is not None else os.environ.get("WEB_CONCURRENCY") or 1)


def _asked_for() -> int | None:
    """Read the command line of a server, which its workers share; there is nothing else that all of them tell."""
    program, *arguments = sys.argv
    if SERVERS.isdisjoint(Path(program).parts):
        return None
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-w", "--workers", nargs="?", default="")
    workers = parser.parse_known_args(arguments)[0].workers or ""
    return int(workers) if workers.isdecimal() else None
