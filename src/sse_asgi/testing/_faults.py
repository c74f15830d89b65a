"""FaultyBackend: a backend that breaks as a network and a server do, when a test says so."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio

from .._log.event import Entry, History, RenderedEvent, ServerSentEvent
from .._log.position import Position
from .._log.run import RunRecord, RunState
from .._loop.timer import shared_timer
from ..backends.base import Backend, Member, Sink
from ..exceptions import BackendError, PublishUnknownError

AWAY = "the FaultyBackend is disconnected"


class _Line:
    """The way of events from the backend to one hub.

    Attributes:
        to_lose: How many of the next events do not arrive.
    """

    def __init__(self, sink: Sink, backend: "FaultyBackend") -> None:
        self._sink = sink
        self._backend = backend
        self.to_lose = 0
        self._missed: dict[str, None] = {}  # channels
        self._latest: Position | None = None  # of what was missed

    def deliver(self, entry: Entry) -> None:
        if self.to_lose or not self._backend.connected:
            self.to_lose = max(0, self.to_lose - 1)
            self._missed.update(dict.fromkeys(entry.channels))
            self._latest = entry.position
        else:
            self.catch_up(advance=False)
            self._sink.deliver(entry)

    def catch_up(self, *, advance: bool = True) -> None:
        """Tell the hub of what it has missed, as a backend does that finds a hole in the log."""
        channels, self._missed = (*self._missed,), {}
        if channels:
            if advance and self._latest is not None:
                self._sink.advance(self._latest)
            self._sink.gap("lost" if self._latest is None else None, channels)

    def advance(self, position: Position) -> None:
        if not self._missed:
            self._sink.advance(position)

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        self._sink.gap(reason, channels)

    def state(self, *, up: bool) -> None:
        self._sink.state(up=up and self._backend.connected)


class FaultyBackend(Backend):
    """Wraps a backend, and breaks it by the rules that every backend has to keep: nothing is lost silently.

    Its methods that are not `async` are called in the hub's event loop; SyncEventStreamClient.call does that from a
    test without `async`.

    Attributes:
        inner: The backend that is wrapped.
        delay: Seconds that each call takes longer, by the time that Clock moves.
        connected: False between `disconnect` and `reconnect`.
    """

    def __init__(self, inner: Backend, *, delay: float = 0.0) -> None:
        """Wrap a backend, which works until a fault is asked for.

        Args:
            inner: The backend.
            delay: See the attribute.

        Raises:
            TypeError: `inner` is not a Backend.
        """
        if not isinstance(inner, Backend):
            msg = f"inner must be a Backend (got {type(inner).__name__}): FaultyBackend(MemoryBackend()), for example"
            raise TypeError(msg)
        self.inner: Backend = inner
        self.delay: float = delay
        self.connected: bool = True
        self.in_process: bool = inner.in_process
        self.keeps_history: bool = inner.keeps_history
        self._lines: list[_Line] = []
        self._repeated = 0
        self._failing: list[bool] = []
        self._back = anyio.Event()

    # Faults

    def drop(self, count: int = 1) -> None:
        """Lose the next events on their way to each hub of this backend. They are stored.

        The loss is noticed at the next event that arrives, as a hole in a log is. Then the hub reads them from the
        history; a backend without history has its readers told by an `sse.gap`.

        Args:
            count: How many events.

        Raises:
            RuntimeError: No hub is connected.
        """
        _check(count)
        if not self._lines:
            msg = "no hub of this FaultyBackend is open, so no event can be lost on its way: open the hub first"
            raise RuntimeError(msg)
        for line in self._lines:
            line.to_lose += count

    def duplicate(self, count: int = 1) -> None:
        """Store the next events twice, as a publisher does that tries again after a PublishUnknownError.

        An event that is published with an `idempotency_key` is stored once.

        Args:
            count: How many events.
        """
        _check(count)
        self._repeated += count

    def fail(self, count: int = 1, *, stored: bool = False) -> None:
        """Have the next calls of `publish` fail.

        Args:
            count: How many calls.
            stored: False raises BackendError, and nothing is stored. True stores the event, and raises
                PublishUnknownError, as when the answer is lost.
        """
        _check(count)
        self._failing += [stored] * count

    def disconnect(self) -> None:
        """Go away: publishing is a BackendError, readers keep their streams and get nothing, new readers wait."""
        self.connected = False
        for line in self._lines:
            line.state(up=False)

    def reconnect(self) -> None:
        """Be there again: the hubs read what they have missed."""
        self.connected = True
        for line in self._lines:
            line.state(up=True)
            line.catch_up()
        self._back.set()
        self._back = anyio.Event()

    # Backend

    @property
    def trouble(self) -> str:
        """Why the backend is away."""
        return self.inner.trouble if self.connected else AWAY

    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Connect the wrapped backend."""
        return self._connected(sink)

    @asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[None]:
        line = _Line(sink, self)
        async with self.inner.connect(line):
            self._lines.append(line)
            if not self.connected:
                line.state(up=False)
            try:
                yield
            finally:
                self._lines.remove(line)

    async def _call(self) -> None:
        """Take the time of a call, and wait while the backend is away."""
        if self.delay:
            await shared_timer().sleep(self.delay)
        while not self.connected:
            await self._back.wait()

    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        """Publish once, twice, or not at all."""
        if not self.connected:
            raise BackendError(AWAY)
        await self._call()
        stored = self._failing.pop(0) if self._failing else None
        if stored is False:
            msg = "the FaultyBackend was told to fail: the event was not stored"
            raise BackendError(msg)
        position = await self.inner.publish(channels, event, key=key, idempotency_key=idempotency_key)
        if self._repeated:
            self._repeated -= 1
            await self.inner.publish(channels, event, key=key, idempotency_key=idempotency_key)
        if stored:
            msg = "the FaultyBackend was told to fail: the event may have been stored"
            raise PublishUnknownError(msg)
        return position

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.subscribe(channels)

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Unsubscribe at once: a connection that is lost has no subscriptions."""
        await self.inner.unsubscribe(channels)

    async def reach(self) -> None:
        """Wait while the backend is away, and notice what was dropped."""
        await self._call()
        await self.inner.reach()
        for line in self._lines:
            line.catch_up()

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.history(channels, after, upto, limit)

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.rewind(channels, count, upto)

    def age(self, position: Position) -> float:
        """Return the wrapped backend's answer."""
        return self.inner.age(position)

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.attend(process, lease=lease, entered=entered, left=left)

    async def present(self, channel: str) -> Collection[str]:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.present(channel)

    async def start_run(self, key: str, owner: str, *, lease: float, ttl: float, fingerprint: str = "") -> RunRecord:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.start_run(key, owner, lease=lease, ttl=ttl, fingerprint=fingerprint)

    async def append_run(self, key: str, owner: str, after: int, events: Sequence[ServerSentEvent]) -> RunRecord | None:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.append_run(key, owner, after, events)

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
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.end_run(key, state, reason=reason, owner=owner, appended=appended, ttl=ttl)

    async def get_run(self, key: str) -> RunRecord | None:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.get_run(key)

    async def renew_runs(self, owners: Collection[tuple[str, str]], *, lease: float) -> Collection[str]:
        """Wait while the backend is away."""
        await self._call()
        return await self.inner.renew_runs(owners, lease=lease)


def _check(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        msg = f"count must be a whole number, at least 1 (got {count!r})"
        raise ValueError(msg)
