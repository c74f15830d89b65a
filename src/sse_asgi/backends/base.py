"""The contract between a hub and what carries and keeps its events."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from .._log.event import Entry, History, RenderedEvent, ServerSentEvent
from .._log.position import Position

# A page of history ends with the event that takes it beyond this, so that a reader holds little, whatever it missed.
PAGE_BYTES = 256 * 1024
PAGE_ENTRIES = 256
PRESENCE = ("sse.join", "sse.leave")
NO_PRESENCE = "this backend does not keep who is here: implement `attend` and `present`"


class Sink(Protocol):
    """What a backend tells a hub; every method is called in the hub's event loop, and none waits."""

    def deliver(self, entry: Entry) -> None:
        """Hand over one event, in the order of the log, each exactly once; it moves the position as well."""

    def advance(self, position: Position) -> None:
        """Say that every event up to this position on the subscribed channels was delivered.

        A backend with history says it once before the first `subscribe` returns.
        """

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Say that events on these channels (None: on all) were lost on their way; their readers are told.

        Without a reason the readers only read history again, which knows what each of them misses.
        """

    def state(self, *, up: bool) -> None:
        """Say whether the backend is reachable; a hub starts with True."""


class Member(NamedTuple):
    """Somebody who is here.

    Attributes:
        channel: Where.
        identity: Who.
    """

    channel: str
    identity: str


class Backend(ABC):
    """A log that is shared by every hub that is connected to it.

    All events of a log are numbered in one increasing sequence. Whoever keeps no history has no positions: `publish`
    and `subscribe` return None, and `history` is never called.

    Attributes:
        in_process: Whether events never leave this process, so that publishing a function as data is possible.
        keeps_history: Whether it is made to keep history; whoever never does says False.
    """

    in_process = False
    keeps_history = True

    @abstractmethod
    def connect(self, sink: Sink) -> AbstractAsyncContextManager[None]:
        """Own the connections and reader tasks while the context is open; it is entered and left in one task.

        Entering must not fail because a server is away: say so by `sink.state(up=False)`, and reconnect.
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
        """Store an event under one position and announce it, atomically; each hub has it delivered once.

        Args:
            channels: At least one, none twice.
            event: Without an id; a RenderedEvent only where `in_process` is true.
            key: Travels with the entry.
            idempotency_key: A second publish with the same key stores nothing and returns the first position.

        Raises:
            BackendError: It was not stored.
            PublishUnknownError: It may have been stored.
        """

    @abstractmethod
    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        """Begin to deliver these channels to the sink that is connected in this hub; wait while the backend is away.

        Returns:
            A position: history reaches it, and every later event will be delivered.
        """

    @abstractmethod
    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Stop delivering these channels; the hub has no reader of them any more."""

    async def reach(self) -> None:  # noqa: B027 - most have nothing to do
        """Tell the sink of everything that was published so far on its channels; wait as `subscribe` does.

        A backend that has delivered an event when its `publish` returns, everywhere, has nothing to do.
        """

    @abstractmethod
    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of what is kept of these channels, merged in the order of the log; wait as `subscribe` does.

        A page holds at most `limit` entries and about PAGE_BYTES over all of its channels together, and at least one
        entry if there is one. It is read forward from `after`, so that its cost depends on what it holds: a reader of
        many channels costs about as much as many readers of one. An event for several of the channels is in it once,
        and is missing only if none of these channels holds it any more.

        Args:
            channels: At least one.
            after: Entries up to this position are left out; None begins with the oldest that is kept. A position
                that this log never gave out is answered like None, with the reason `epoch` or `fork`. One that is
                after `upto`, because this process is behind another, is answered once everything up to it was
                delivered. Where `upto` is of another life than the log now, the page is empty, and `after` is next.
            upto: Entries after this position are left out.
            limit: The most entries to return.
        """

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Return the position after which the newest events of these channels begin; wait as `subscribe` does.

        This default reads all of the history, page by page. A backend that can look at the newest events directly
        should do so.

        Args:
            channels: At least one.
            count: How many events, 1 or more; joins and leaves come along and are not counted.
            upto: Later events are not counted.

        Returns:
            A position that `history` takes; None where no more events are kept than that.
        """
        newest: deque[Position | None] = deque(maxlen=count + 1)
        after = None
        while True:
            page = await self.history(channels, after, upto, PAGE_ENTRIES)
            newest.extend(entry.position for entry in page.entries if not is_presence(entry))
            if page.next is None:
                return newest[0] if len(newest) > count else None
            after = page.next

    @property
    def trouble(self) -> str:
        """Why the backend is away now, for errors; empty if that is not known, or it is there."""
        return ""

    # Who is here; a backend need not know, and then `presence=True` is refused.

    async def attend(
        self, process: str, *, lease: float, entered: Collection[Member] = (), left: Collection[Member] = ()
    ) -> int:
        """List whom a process has here; repeating a call changes nothing.

        With the first process that lists an identity, `sse.join` is published to its channel, and with the last that
        does not any more, `sse.leave`: see `presence_event`. Processes whose lease ran out are taken for gone, but not
        after an outage, when nobody could be heard: they have as much time again.

        Joins and leaves are read by `history` like other events, but are kept apart from them: they neither push out
        a channel's events nor count as a channel that keeps events.

        Args:
            process: Whoever calls.
            lease: Seconds for which it is not gone.
            entered: Whom to list for it, besides those who are.
            left: Whom not to list any more.

        Returns:
            How many are listed for it now.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_PRESENCE)

    async def present(self, channel: str) -> Collection[str]:
        """Return the identities that any process has listed on a channel.

        Raises:
            BackendError: The backend refused, or was lost on the way.
        """
        raise NotImplementedError(NO_PRESENCE)


def presence_event(kind: str, identity: str) -> ServerSentEvent:
    """Return what is published when somebody comes (`join`) or goes (`leave`)."""
    return ServerSentEvent({"identity": identity}, event=f"sse.{kind}")


def is_presence(entry: Entry) -> bool:
    """Tell whether an entry says that somebody came or went."""
    event = entry.event
    return isinstance(event, ServerSentEvent) and event.event in PRESENCE
