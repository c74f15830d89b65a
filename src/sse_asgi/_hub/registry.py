"""Which subscriptions of this process read which channel: the one place where the backend and the readers meet."""

import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio

from .._log.event import Entry, History
from .._log.position import MAX_SEQUENCE, Position
from .._loop.running import checkpoint
from .._loop.wakeup import Wakeup, new_wakeup
from ..backends.base import Backend, Member
from ..exceptions import HubClosedError
from .delivery import Delivery
from .home import Home
from .presence import Presence
from .stats import Stats, Tally
from .subscription import Subscription

CONTROL = "sse.control"
UNSUBSCRIBE_SECONDS = 5.0
PAUSE_SECONDS = 0.001  # an event that comes sooner after the last one of its channel is joined with it
READS_AT_ONCE = 4  # from this process's memory, where each takes the event loop
REMOTE_READS_AT_ONCE = 64


class _Channel:
    """The readers of one channel.

    Attributes:
        readers: The subscriptions, in the order in which they came.
        subscribed: Whether the backend was told that the channel has readers.
        lock: Held while the backend is told.
        delivered: When the delivery of its last event ended.
        pause: For how long after that an event is joined with those around it, where that is longer than
            PAUSE_SECONDS: as long as it took to deliver the last event that was sent at once.
    """

    __slots__ = ("delivered", "lock", "pause", "readers", "subscribed")

    def __init__(self) -> None:
        self.delivered = 0.0
        self.pause = 0.0
        self.readers: dict[Subscription, None] = {}
        self.subscribed = False
        self.lock = anyio.Lock(fast_acquire=True)

    def is_quiet(self, now: float) -> bool:
        """Return True if the time has passed in which an event is joined with the last one."""
        return now - self.delivered > max(PAUSE_SECONDS, self.pause)


class Registry:
    """The Source of every subscription and the Sink of the backend, while a hub is open.

    Attributes:
        home: The event loop that it belongs to.
        up: Whether the backend is reachable.
        presence: Who is here, by way of this process.
        tally: What is counted for all readers.
        recall: Called with each reader that enters, in the moment from which orders to disconnect reach it.
    """

    def __init__(self, backend: Backend, presence: Presence, home: Home) -> None:
        """Know of no readers."""
        self.home = home
        self.up = True
        self.presence = presence
        self.tally = Tally()
        self.recall: Callable[[Subscription], None] = lambda _: None
        self._backend = backend
        self._channels: dict[str, _Channel] = {}
        self._position: Position | None = None
        self._closed = False
        self._reading = anyio.Semaphore(
            READS_AT_ONCE if backend.in_process else REMOTE_READS_AT_ONCE, fast_acquire=True
        )
        self._draining: list[Wakeup] = []

    # Source: what subscriptions ask for

    def position(self) -> Position | None:
        """Return the position up to which every event was offered to its readers."""
        return self._position

    async def enter(self, subscription: Subscription) -> Position | None:
        """Offer live events from now on; the first reader of a channel subscribes this process to it."""
        if self._closed:
            what = "cannot enter the subscription"
            raise HubClosedError(what)
        for name in subscription.channels:
            if name not in self._channels:
                self._channels[name] = _Channel()
            self._channels[name].readers[subscription] = None
        self.recall(subscription)
        channels = {name: self._channels[name] for name in subscription.channels}
        missing = {name: channel for name, channel in channels.items() if not channel.subscribed}
        position = await self._subscribe(missing) if missing else self._position
        if subscription.options.presence:
            identity = str(subscription.options.identity)
            self.presence.enter(subscription, [Member(name, identity) for name in subscription.options.presence])
        return position

    async def _subscribe(self, channels: dict[str, _Channel]) -> Position | None:
        async with self._turn(channels, lambda channel: not channel.subscribed) as missing:
            if not missing:
                return self._position
            position = await self._backend.subscribe(tuple(missing))
            if self._closed:  # while it waited: `close` knew of no subscription, and the next hub must not lose its own
                await self._backend.unsubscribe(tuple(missing))
                what = "cannot enter the subscription"
                raise HubClosedError(what)
            for channel in missing.values():
                channel.subscribed = True
            return position

    async def reach(self) -> None:
        """Have everything delivered that was published so far."""
        await self._backend.reach()

    async def leave(self, subscription: Subscription) -> None:
        """Offer nothing more; the last reader of a channel unsubscribes this process from it."""
        self.presence.leave(subscription)
        unread: dict[str, _Channel] = {}
        for name in subscription.channels:
            channel = self._channels.get(name)
            if channel is not None and subscription in channel.readers:
                del channel.readers[subscription]
                if not channel.readers:
                    unread[name] = channel
        if unread:
            await self._unsubscribe(unread)
        for wakeup in self._draining:
            wakeup.set()

    async def _unsubscribe(self, channels: dict[str, _Channel]) -> None:
        with anyio.move_on_after(UNSUBSCRIBE_SECONDS, shield=True):
            async with self._turn(channels, lambda channel: not channel.readers) as unread:
                subscribed = tuple(name for name, channel in unread.items() if channel.subscribed)
                for name in subscribed:
                    unread[name].subscribed = False
                if subscribed:
                    await self._backend.unsubscribe(subscribed)
                for name, channel in unread.items():
                    if not channel.readers:
                        del self._channels[name]

    @asynccontextmanager
    async def _turn(
        self, channels: dict[str, _Channel], needed: Callable[[_Channel], bool]
    ) -> AsyncIterator[dict[str, _Channel]]:
        """Find those that a call to the backend is still needed for when it is their turn, one call at a time."""
        held: dict[str, _Channel] = {}
        try:
            for name in sorted(channels):  # in one order, so that no two wait for each other
                channel = channels[name]
                await channel.lock.acquire()
                if self._channels.get(name) is channel and needed(channel):
                    held[name] = channel
                else:
                    channel.lock.release()  # the next one need not wait for the call as well
            yield held
        finally:
            for channel in held.values():
                channel.lock.release()

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log for a replay, when it is its turn.

        The event loop has a turn before each page, and so few are read at a time that many readers that come back at
        once do not hold up the publishers.
        """
        async with self._reading:
            await checkpoint()
            return await self._backend.history(channels, after, upto, limit)

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Find where the newest events begin."""
        return await self._backend.rewind(channels, min(count, MAX_SEQUENCE), upto)

    # Sink: what the backend tells

    def deliver(self, entry: Entry) -> None:
        """Offer one event to every reader of its channels, once, and move the position behind it."""
        channels = self._known(entry.channels)
        began = time.monotonic()
        at_once = all(channel.is_quiet(began) for channel in channels)
        delivery = Delivery(entry, began, at_once=at_once)
        for reader in _readers(channels):
            reader.offer(delivery)
        ended = time.monotonic()
        for channel in channels:
            channel.delivered = ended
            if at_once:
                channel.pause = ended - began
        if entry.position is not None:
            self._position = entry.position

    def advance(self, position: Position) -> None:
        """Move the position where no event did."""
        self._position = position

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Tell the readers of these channels that they lost events, or, without a reason, that they may have."""
        for reader in _readers(self._known(channels)):
            reader.lose(reason)
        self.presence.beat()

    def state(self, *, up: bool) -> None:
        """Remember whether the backend is reachable."""
        self.up = up

    # What the hub asks for

    async def drain(self, patience: float) -> None:
        """End every subscription but the hub's own, and wait for the readers to leave, but not for ever."""
        wakeup = new_wakeup()
        self._draining.append(wakeup)
        for reader in self.subscriptions():
            reader.end("shutdown")
        with anyio.move_on_after(patience):
            while self.subscriptions():
                await wakeup
        self._draining.remove(wakeup)

    async def close(self) -> None:
        """End every subscription and refuse new ones; whoever leaves later is no concern of the backend any more."""
        self._closed = True
        for reader in _readers(self._known(None)):
            reader.end("shutdown")
        subscribed = [name for name, channel in self._channels.items() if channel.subscribed]
        for name in subscribed:
            self._channels[name].subscribed = False
        if subscribed:
            with anyio.move_on_after(UNSUBSCRIBE_SECONDS, shield=True):
                await self._backend.unsubscribe(tuple(subscribed))

    async def page(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log without waiting for those that replay."""
        return await self._backend.history(channels, after, upto, limit)

    def subscriptions(self, channel: str | None = None) -> list[Subscription]:
        """Return the readers of a channel, or all, without the hub's own."""
        readers = _readers(self._known(None if channel is None else (channel,)))
        return [reader for reader in readers if reader.channels != (CONTROL,)]

    def stats(self) -> Stats:
        """Count what is here."""
        readers = self.subscriptions()
        waiting = [reader.waiting for reader in readers]
        return Stats(
            connections=len(readers),
            channels={name: len(channel.readers) for name, channel in self._channels.items() if name != CONTROL},
            buffered_events=sum(events for events, _ in waiting),
            buffered_bytes=sum(size for _, size in waiting),
            drops=self.tally.drops,
            gaps=self.tally.gaps,
            published=self.tally.published,
            unpublished=self.tally.unpublished,
        )

    def _known(self, names: Iterable[str] | None) -> list[_Channel]:
        """Return those of the channels that have readers, or had some just now."""
        channels = self._channels
        return [channels[name] for name in (channels if names is None else names) if name in channels]


def _readers(channels: list[_Channel]) -> Iterable[Subscription]:
    """Return who reads any of these channels, each once."""
    if len(channels) == 1:
        return channels[0].readers
    return dict.fromkeys(reader for channel in channels for reader in channel.readers)
