"""RedisBackend: the public class, its options, and calls that are repeated in the next session."""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from ..._log.event import History, RenderedEvent, ServerSentEvent
from ..._log.names import RESERVED
from ..._log.position import Position
from ..._log.run import PREFIX, RunRecord, RunState
from ..._loop.running import on_asyncio
from ...exceptions import BackendError
from ..base import BYTES_RULE, Backend, Member, Sink
from ._address import read_address
from ._history import HistoryReader
from ._keeper import SessionKeeper
from ._keys import Keys
from ._link import LinkLostError
from ._message import payload
from ._presence import Attendance
from ._resp import ReplyError
from ._runs import RunStore, Via, new_call
from ._scripts import Scripts, Storage
from ._session import MOVING_SECONDS, Session, is_elsewhere, is_moving
from ._submitter import Submitter

T = TypeVar("T")
Sized = int | Callable[[str], int]
Kept = float | Callable[[str], float | None] | None
MAX_SIZE = (1 << 63) - 1  # the largest integer of Redis
MAX_TTL = 10_000_000_000
START_SECONDS = 5.0  # as long as a hub waits for it
OWN_SIZE, OWN_TTL, OWN_BYTES = 1000, 3600.0, 4 << 20  # for the library's own channels
SIZE_RULE = "a whole number of events, at least 0"
TTL_RULE = f"seconds above 0 and at most {MAX_TTL}, or None: a history_size of at least 0 is the bound then"


class RedisBackend(Backend):
    """Keeps each channel's latest events in Redis, for every process that opens a hub of the same name there.

    It runs on asyncio. While Redis is away, readers wait, and publishing raises BackendError after `timeout`.

    Attributes:
        ignored: The number of messages and entries on this hub's keys that were not of this library.
    """

    def __init__(
        self,
        url: str | Mapping[str, Any] = "redis://localhost:6379",
        *,
        name: str = "default",
        prefix: str = "sse",
        history_size: Sized = 1000,
        history_ttl: Kept = 3600,
        history_bytes: Sized = 4 << 20,
        total_bytes: int = 256 << 20,
        timeout: float = 5.0,
    ) -> None:
        """Read the options. The backend connects when its hub is opened.

        Args:
            url: `redis://`, `rediss://` or `unix://` as in redis-py, with its options as the query;
                `redis+sentinel://host,host/service/db`; `redis+cluster://host,host`; the last two also with `rediss`.
                `valkey` and `valkeys` stand for `redis` and `rediss`.
                Or a mapping of redis-py's connection options.
            name: The name of the hub in this Redis.
            prefix: The beginning of the names of all its keys.
            history_size: Events kept for each channel, or a function of the channel's name. 0 keeps none on any
                channel, and then no event can be replayed. The result of a function is checked when it is used; a wrong
                one is a BackendError.
            history_ttl: Seconds that an event is kept, or a function of the channel's name. None keeps events until
                there are too many.
            history_bytes: Bytes of events kept for each channel, or a function of the channel's name. A larger event is
                not kept.
            total_bytes: Bytes of events kept for all channels together. An event counts once for each of its channels.
                Beyond the bound, the channels that were published to longest ago lose their histories. Joins and leaves
                are not counted.
            timeout: Seconds that publishing waits for Redis, and that Redis may take for an answer.

        Raises:
            ValueError: The URL, a name or a number is wrong.
        """
        if timeout <= 0 or not math.isfinite(timeout):
            msg = f"timeout={timeout}: must be a number of seconds above 0"
            raise ValueError(msg)
        size = _by_channel("history_size", history_size, _is_size, SIZE_RULE, own=OWN_SIZE)
        weight = _by_channel("history_bytes", history_bytes, _is_bytes, BYTES_RULE, own=OWN_BYTES)
        if not _is_bytes(total_bytes):
            msg = f"total_bytes={total_bytes!r}: must be {BYTES_RULE}"
            raise ValueError(msg)
        ttl = _by_channel("history_ttl", history_ttl, _is_ttl, TTL_RULE, own=OWN_TTL)
        self._addresses = read_address(url)
        self._keys = Keys(prefix, name)
        self.keeps_history: bool = history_size != 0
        self._timeout = timeout
        self._scripts = Scripts()
        self._history_reader = HistoryReader(self._keys, self._scripts, _without_runs(ttl))
        storage = Storage(self._keys, self._scripts, size, _milliseconds(ttl), weight, total_bytes, self.keeps_history)
        self._submitter = Submitter(storage, timeout)
        self._attendance = Attendance(storage)
        self._runs = RunStore(storage)
        self._keeper: SessionKeeper | None = None

    @property
    def ignored(self) -> int:
        """The number of messages and entries on this hub's keys that were not of this library, since it was opened."""
        return 0 if self._keeper is None else self._keeper.inbox.ignored

    def age(self, position: Position) -> float:
        """Return the seconds since Redis gave out a position, which contains its clock; at least 0."""
        return max(0.0, time.time() - position.sequence / 1e6)

    @property
    def trouble(self) -> str:
        """The reason why the last attempt to connect failed; empty while Redis is there."""
        return "" if self._keeper is None else self._keeper.trouble

    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Connect with the first hub of this process; wait until the first attempt has succeeded or failed.

        Raises:
            RuntimeError: No asyncio loop runs here, or the backend is open in another one.
        """
        if not on_asyncio():
            msg = "RedisBackend runs on asyncio, because redis-py does: run the server on asyncio"
            raise RuntimeError(msg)
        if self._keeper is not None and self._keeper.loop is not asyncio.get_running_loop():
            msg = "this RedisBackend is open in another event loop: make one backend for each event loop"
            raise RuntimeError(msg)
        return self._connected(sink)

    @asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[None]:
        if self._keeper is None:
            self._keeper = SessionKeeper(
                self._addresses,
                self._keys,
                self._scripts,
                self._history_reader,
                keeps=self.keeps_history,
                timeout=self._timeout,
            )
        keeper = self._keeper
        keeper.add(sink)
        try:
            await keeper.tried.wait()
            yield
        finally:
            keeper.inbox.sinks.remove(sink)
            if not keeper.inbox.sinks:
                self._keeper = None
                await keeper.close()

    def _opened(self) -> SessionKeeper:
        if self._keeper is None:
            msg = "the Redis backend is not connected: open its hub first"
            raise BackendError(msg)
        return self._keeper

    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        """Store and announce an event in one round trip."""
        if not isinstance(event, ServerSentEvent):
            msg = "data that is made for each reader cannot leave this process: publish plain data"
            raise TypeError(msg)
        return await self._submitter.publish(self._opened(), channels, payload(event, channels, key), idempotency_key)

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        """Subscribe to these channels; wait while Redis is away."""
        keeper = self._opened()
        subscribing = {topic: keeper.inbox.add_user(topic, name) for topic, name in self._topics(channels)}
        try:
            await keeper.subscribe(subscribing)
        except BaseException:
            keeper.unsubscribe(list(subscribing))
            raise
        return keeper.inbox.position

    async def reach(self) -> None:
        """Deliver everything that was published so far; wait while Redis is away."""
        keeper = self._opened()
        reached = False
        while not reached:
            with contextlib.suppress(LinkLostError):
                await keeper.reach()
                reached = True

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Unsubscribe from these channels, without waiting."""
        if self._keeper is not None:
            self._keeper.unsubscribe([topic for topic, _ in self._topics(channels)])

    def _topics(self, channels: tuple[str, ...]) -> list[tuple[bytes, str]]:
        return [(self._keys.topic(name), name) for name in channels]

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page; wait while Redis is away.

        A page up to a position that this process has reached does not change. It is read once for all readers that want
        it now.

        Raises:
            BackendError: Redis refused.
        """
        keeper = self._opened()
        seen = keeper.inbox.position
        reached = seen is not None and seen.epoch == upto.epoch and seen >= upto
        end = upto.sequence
        # Now: an event that arrives from here on may be later than `upto`.
        heard = {name: keeper.inbox.heard(topic, end) if reached else end for topic, name in self._topics(channels)}
        read = partial(self._read_page, keeper, channels, after, upto, limit, heard=heard)
        return await (keeper.pages.share((channels, after, upto, limit), read) if reached else read())

    async def _read_page(
        self,
        keeper: SessionKeeper,
        channels: tuple[str, ...],
        after: Position | None,
        upto: Position,
        limit: int,
        *,
        heard: Mapping[str, int],
    ) -> History:
        async def read(session: Session) -> History:
            async with keeper.reading:
                session.check()
                page = await self._history_reader.page(session.server, channels, after, upto, limit, heard=heard)
            if page.epoch != upto.epoch:  # readers get a gap, and read again
                await keeper.follow(session, page.epoch)
                return History((), after)
            if page.whole is None and after is not None and after > upto:
                await keeper.reach()
            return page.history(keeper.decode)

        return await self._repeat(keeper, read, "to read history")

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Let Redis find the position, so that no event is sent here; wait while Redis is away.

        Raises:
            BackendError: Redis refused.
        """
        keeper = self._opened()

        async def read(session: Session) -> Position | None:
            async with keeper.reading:
                session.check()
                epoch, sequence = await self._history_reader.rewind(session.server, channels, count, upto)
            if epoch != upto.epoch:  # readers get a gap, and read again
                await keeper.follow(session, epoch)
                return None
            return Position(upto.epoch, sequence) if sequence else None

        return await self._repeat(keeper, read, "to read history")

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """Update the members of a process, in one round trip; wait while Redis is away."""
        return await self._repeat(
            self._opened(),
            lambda session: self._attendance.attend(
                session, self._epoch, process, lease=lease, entered=entered, left=left
            ),
            "to update presence",
        )

    async def present(self, channel: str) -> Collection[str]:
        """Return the identities on a channel; wait while Redis is away."""
        return await self._repeat(
            self._opened(),
            lambda session: self._attendance.present(session, self._epoch, channel),
            "to read presence",
        )

    async def start_run(self, key: str, owner: str, *, lease: float, ttl: float, fingerprint: str = "") -> RunRecord:
        """Begin a run, unless there is one; wait while Redis is away, for START_SECONDS at most.

        A Redis that stood still for longer does not begin it when it goes on: nobody would produce it.
        """
        keeper, deadline = self._opened(), time.monotonic() + START_SECONDS
        return await self._repeat(
            keeper,
            lambda session: self._runs.start(
                Via(keeper, session), key, owner, lease=lease, ttl=ttl, fingerprint=fingerprint, deadline=deadline
            ),
            "to start a run",
        )

    async def append_run(self, key: str, owner: str, after: int, events: Sequence[ServerSentEvent]) -> RunRecord | None:
        """Append events in one round trip; wait while Redis is away."""
        keeper = self._opened()
        return await self._repeat(
            keeper,
            lambda session: self._runs.append(Via(keeper, session), key, owner, after, events),
            "to append to a run",
        )

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
        """End a run; wait while Redis is away."""
        keeper, call = self._opened(), new_call()
        return await self._repeat(
            keeper,
            lambda session: self._runs.end(
                Via(keeper, session), key, state, reason, owner=owner, appended=appended, ttl=ttl, call=call
            ),
            "to end a run",
        )

    async def get_run(self, key: str) -> RunRecord | None:
        """Return the record of a run; wait while Redis is away."""
        return await self._repeat(self._opened(), lambda session: self._runs.get(session, key), "to read a run")

    async def renew_runs(self, owners: Collection[tuple[str, str]], *, lease: float) -> Collection[str]:
        """Renew leases, and end and forget other runs, in one round trip; wait while Redis is away."""
        keeper = self._opened()
        return await self._repeat(
            keeper, lambda session: self._runs.renew(Via(keeper, session), owners, lease), "to renew the leases of runs"
        )

    @property
    def _epoch(self) -> str:
        position = self._opened().inbox.position
        return "" if position is None else position.epoch

    async def _repeat(self, keeper: SessionKeeper, ask: Callable[[Session], Awaitable[T]], action: str) -> T:
        """Make a call that may be repeated, in one session after another, until it has an answer."""
        while True:
            session = await keeper.commands()
            try:
                return await ask(session)
            except LinkLostError:
                continue
            except ReplyError as error:
                if is_moving(error):
                    await asyncio.sleep(MOVING_SECONDS)
                elif not is_elsewhere(error):
                    msg = f"Redis refused {action}: {error}"
                    raise BackendError(msg) from error
                else:
                    session.fail(str(error))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_SIZE


def _is_bytes(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MAX_SIZE


def _is_ttl(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 < value <= MAX_TTL)


def _by_channel(option: str, given: Any, fits: Callable[[Any], bool], rule: str, *, own: Any) -> Callable[[str], Any]:
    """Return a function of a channel's name that checks its results. The library's own channels get `own`."""

    def of(channel: str) -> Any:
        if channel.startswith(RESERVED):
            return own
        value = given(channel)
        if not fits(value):
            msg = f"{option} of the channel {channel!r} is {value!r}: must be {rule}"
            raise BackendError(msg)
        return value

    if callable(given):
        return of
    if not fits(given):
        msg = f"{option}={given!r}: must be {rule}"
        raise ValueError(msg)
    return lambda _: given


def _without_runs(ttl: Callable[[str], float | None]) -> Callable[[str], float | None]:
    """Return a function that lets no event of a run expire: a run is forgotten as a whole."""
    return lambda channel: None if channel.startswith(PREFIX) else ttl(channel)


def _milliseconds(ttl: Callable[[str], float | None]) -> Callable[[str], int]:
    """Return the time to live in the form of the scripts: in milliseconds, and 0 is for ever."""

    def of(channel: str) -> int:
        seconds = ttl(channel)
        return 0 if seconds is None else max(1, round(seconds * 1000))

    return of
