"""The contract between a hub and its backend, which carries and keeps the events.

Joins, leaves and the library's own orders travel over the same log, so that a process that was cut off gets them when
it is back, and a backend needs no second way to talk. They are kept apart from the events of the application: a client
that enters many channels must not push out their histories.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from .._log.event import Entry, History, RenderedEvent, ServerSentEvent
from .._log.position import Position
from .._log.run import RunRecord, RunState

# A page of history ends before the event that takes it beyond these bytes, so that a reader never holds much.
PAGE_BYTES = 256 * 1024
PAGE_ENTRIES = 256
IDEMPOTENCY_SECONDS = 120  # an idempotency key is remembered for so long
BYTES_RULE = "a whole number of bytes, at least 1; history_size=0 keeps no history"
PRESENCE = ("sse.join", "sse.leave")
NO_RUNS = "this backend does not support runs: implement `start_run`, `append_run`, `end_run`, `get_run`, `renew_runs`"
NO_PRESENCE = "this backend does not support presence: implement `attend` and `present`"


class Sink(Protocol):
    """The hub's side of a backend. Every method is called in the hub's event loop, and none waits."""

    def deliver(self, entry: Entry) -> None:
        """Hand over one event, in the order of the log, each exactly once. An event moves the position too."""

    def advance(self, position: Position) -> None:
        """Report that every event up to this position on the subscribed channels was delivered.

        A backend with history calls this once before the first `subscribe` returns.
        """

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Report that events on these channels (None: on all channels) were lost on their way; readers get a gap.

        Without a reason the readers only read history again, which finds the gap of each of them.
        """

    def state(self, *, up: bool) -> None:
        """Report that the backend is reachable again, or no longer.

        Args:
            up: Whether it is reachable. A hub starts with True.
        """


class Member(NamedTuple):
    """An identity that is present on a channel.

    Attributes:
        channel: The channel.
        identity: The identity, as `subscribe(identity=...)` was given it.
    """

    channel: str
    identity: str


class Backend(ABC):
    """A log that is shared by all hubs that are connected to it.

    All events of a log are numbered in one increasing sequence. A backend without history has no positions: `publish`
    and `subscribe` return None, and `history` is never called.

    Attributes:
        in_process: True if events never leave this process. Then a function can be published as data.
        keeps_history: True if this backend keeps history.
    """

    in_process = False
    keeps_history: bool = True

    @abstractmethod
    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Own the connections and reader tasks while the context is open. One task enters and leaves it.

        Entering must not fail because a server is away: call `sink.state(up=False)`, and reconnect.
        """

    @abstractmethod
    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        """Store an event under one position and announce it, atomically. Each hub gets it once.

        Args:
            channels: At least one, none twice.
            event: An event without an id. A RenderedEvent only where `in_process` is true.
            key: A key that travels with the entry.
            idempotency_key: A second publish with the same key stores nothing and returns the first position.

        Raises:
            BackendError: The event was not stored.
            PublishUnknownError: The event may have been stored.
        """

    @abstractmethod
    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        """Begin to deliver these channels to the connected sink; wait while the backend is away.

        Returns:
            A position: history reaches up to it, and every later event will be delivered.
        """

    @abstractmethod
    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Stop delivering these channels: the hub has no reader of them any more."""

    async def reach(self) -> None:  # noqa: B027 - optional
        """Deliver everything that was published so far on the sink's channels; wait as `subscribe` does.

        A backend whose `publish` returns after the delivery, in every process, has nothing to do.
        """

    @abstractmethod
    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the history of these channels, merged in the order of the log; wait as `subscribe` does.

        A page holds at most `limit` entries and about PAGE_BYTES over all of its channels together, and at least one
        entry if there is one. It is read forward from `after`, so that the cost of a page depends on its size: a reader
        of many channels costs about as much as many readers of one. An event for several of the channels is in the page
        once. It is missing only if none of these channels holds it any more.

        Args:
            channels: At least one.
            after: Leave out entries up to this position. None begins with the oldest entry that is kept. A position
                that this log never gave out is answered like None, with the reason `epoch` or `fork`. A position
                after `upto` comes from a process that is ahead of this one: the answer waits until everything up to it
                was delivered. If `upto` is of an earlier life of the log, the page is empty and `after` is next.
            upto: Leave out entries after this position.
            limit: The most entries to return.
        """

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Return the position after which the newest events of these channels begin; wait as `subscribe` does.

        This default reads all of the history, page by page. A backend that can look at the newest events directly
        should do so.

        Args:
            channels: At least one.
            count: How many events, 1 or more. Joins and leaves between them are not counted.
            upto: Later events are not counted.

        Returns:
            A position for `history`; None if no more than `count` events are kept.
        """
        newest: deque[Position | None] = deque(maxlen=count + 1)
        after = None
        while True:
            page = await self.history(channels, after, upto, PAGE_ENTRIES)
            newest.extend(entry.position for entry in page.entries if not is_presence(entry))
            if page.next is None:
                return newest[0] if len(newest) > count else None
            after = page.next

    def age(self, position: Position) -> float:  # noqa: ARG002 - for subclasses
        """Return the seconds since the event at a position was published; 0 if its delivery follows at once."""
        return 0.0

    @property
    def trouble(self) -> str:
        """Why the backend is away now, for error messages; empty if the backend is there or the reason is unknown."""
        return ""

    # Presence is optional: without these two methods a hub refuses `presence=True`.

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """Update the members that a process has listed. Repeating a call changes nothing.

        The first process that lists an identity on a channel publishes `sse.join` to that channel, and the last one
        that removes it publishes `sse.leave`: see `presence_event`. A process whose lease ran out is treated as dead,
        and its members are removed. After an outage all processes get the length of a lease again, because no process
        could renew its lease during the outage.

        Joins and leaves are read by `history` like other events, but are kept apart from them: they neither push out
        a channel's events nor count as a channel that keeps events.

        Args:
            process: The name of the process.
            lease: Seconds for which the process counts as alive.
            entered: Members to add to its list.
            left: Members to remove from its list.

        Returns:
            How many members are listed for the process now.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_PRESENCE)

    async def present(self, channel: str) -> Collection[str]:
        """Return the identities that the processes have listed on a channel.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_PRESENCE)

    # Runs are optional too: without these five methods a hub refuses `start_run`. The head of `_log/run.py` has the
    # states. The events of a run are on the channel `run_channel(key)`, which `subscribe` and `history` read like any
    # other. None of them is dropped before the run is forgotten. Each of these calls may be repeated.

    async def start_run(self, key: str, owner: str, *, lease: float, ttl: float, fingerprint: str = "") -> RunRecord:
        """Begin a run, unless there is one with this key.

        Args:
            key: The key.
            owner: Names the caller; a name is used for one run only.
            lease: Seconds for which the owner counts as alive.
            ttl: Seconds that the run is kept after its end.
            fingerprint: Kept in the record.

        Returns:
            The record of the run. The caller is its owner if it has this name.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_RUNS)

    async def append_run(self, key: str, owner: str, after: int, events: Sequence[ServerSentEvent]) -> RunRecord | None:
        """Store and announce events of a run, if it is running and `owner` is its owner.

        Args:
            key: The key.
            owner: The owner.
            after: How many events the owner has appended before. If there are other events, nothing is stored.
            events: At least one event, without ids.

        Returns:
            The record afterwards. The events are stored if its owner is `owner`, it runs, and `appended` is `after`
            plus the number of events. None if there is no such run.

        Raises:
            BackendError: The events were not stored: there is no room, or the backend refused.
        """
        raise NotImplementedError(NO_RUNS)

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
        """End a run that is running, and announce its last event, `end_event(state, reason)`.

        Args:
            key: The key.
            state: How it ends.
            reason: Why, where the state does not say it.
            owner: Only the run of this owner, also if the log has lost its record: then it is kept as an ended one, so
                that its readers learn that it has ended. None ends the run of any owner.
            appended: Only if the log has so many events of the run, and its record. So a run whose events were lost
                does not look finished. None ends it without this check.
            ttl: Seconds that a run is kept whose record was lost. Any other run has the `ttl` of its start.

        Returns:
            True if this call has ended it; False if it had ended before, or there is no such run, or it was not to end.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_RUNS)

    async def get_run(self, key: str) -> RunRecord | None:
        """Return the record of a run, or None.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_RUNS)

    async def renew_runs(self, owners: Collection[tuple[str, str]], *, lease: float) -> Collection[str]:
        """Renew the leases of runs, then end the runs of all processes whose leases have run out, as `lost`.

        After an outage all owners get the length of a lease again, because none of them could renew its lease.

        Args:
            owners: The key and the owner of each run that this process produces.
            lease: See start_run.

        Returns:
            The keys of those runs that are not running any more, or have another owner.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_RUNS)


def presence_event(kind: str, identity: str) -> ServerSentEvent:
    """Return the event that announces that an identity came (`join`) or went (`leave`)."""
    return ServerSentEvent({"identity": identity}, event=f"sse.{kind}")


def is_presence(entry: Entry) -> bool:
    """Return True if an entry is a join or a leave."""
    event = entry.event
    return isinstance(event, ServerSentEvent) and event.event in PRESENCE
