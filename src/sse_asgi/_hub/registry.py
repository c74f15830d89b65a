"""Registry: the readers of each channel in this process; the one place where the backend and the readers meet.

The backend delivers each event to the registry, which offers it to the receiver of every reader. The first event after
a pause is sent at once, to one reader after another, because under uvicorn `send` does not wait unless the client is
slow: waking the task of each reader costs a third of a delivery. It is sent where it is offered: holding it first and
coming back to each reader cost 6 % with 10,000 readers. An event that follows within a millisecond is joined with the
events around it: `publish` lets the event loop turn, so without this a loop of ten publishes would be ten bodies for
each reader. Where sending to all readers takes longer than a millisecond, so long is the pause.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

import anyio

from .._log.event import Entry, History
from .._log.position import MAX_SEQUENCE, Position
from .._loop.running import checkpoint
from .._loop.timer import shared_timer
from .._loop.wakeup import Wakeup, new_wakeup
from ..backends.base import Backend, Member
from ..exceptions import CLOSED, HubClosedError
from .delivery import Delivery, Receiver
from .home import Home
from .presence import Presence
from .stats import Stats, Tally
from .subscription import Subscription

CONTROL = "sse.control"
Store = Callable[..., Awaitable[Position | None]]
UNSUBSCRIBE_SECONDS = 5.0
PAUSE_SECONDS = 0.001  # an event that comes sooner after the last one of its channel is joined with it
READS_AT_ONCE = 4  # from this process's memory, where each read blocks the event loop
REMOTE_READS_AT_ONCE = 64


class _Channel:
    """The readers of one channel.

    Attributes:
        readers: The subscriptions, in the order in which they came, and the receiver of each one's live events.
        subscribed: Whether this process is subscribed to the channel at the backend.
        lock: Held during a call to the backend that changes this.
        pause: How many seconds it took to deliver the last event that was sent at once. An event that comes sooner
            after the last one is joined with the events around it, as if PAUSE_SECONDS had not passed.
        quiet_from: The time after which an event is sent at once.
    """

    __slots__ = ("lock", "pause", "quiet_from", "readers", "subscribed")

    def __init__(self) -> None:
        self.pause = 0.0
        self.quiet_from = 0.0
        self.readers: dict[Subscription, Receiver] = {}
        self.subscribed = False
        self.lock = anyio.Lock(fast_acquire=True)


class Registry:
    """The Source of every subscription and the Sink of the backend, while a hub is open.

    Attributes:
        home: The event loop that it belongs to.
        up: Whether the backend is reachable.
        presence: The identities that this process lists.
        tally: The counters of all readers.
        recall: Called with each reader that enters, at the moment from which disconnect orders reach it.
        store: Publishes an event: the backend's `publish`, or a telemetry's function around it.
        when_sent: Returns a function to call when the last sends of an event have begun, or None to skip this event;
            a telemetry sets it.
    """

    def __init__(self, backend: Backend, presence: Presence, home: Home) -> None:
        """Begin without readers."""
        self.home = home
        self.up: bool = True
        self.presence = presence
        self.tally: Tally = Tally()
        self.recall: Callable[[Subscription], None] = lambda _: None
        self.store: Store = backend.publish
        self.when_sent: Callable[[Delivery], Callable[[float], None] | None] | None = None
        self._backend = backend
        self._channels: dict[str, _Channel] = {}
        self._position: Position | None = None
        self._closed = False
        self._timer = shared_timer()
        self._reading = anyio.Semaphore(
            READS_AT_ONCE if backend.in_process else REMOTE_READS_AT_ONCE, fast_acquire=True
        )
        self._draining: list[Wakeup] = []

    # Source: the methods that subscriptions call

    def position(self) -> Position | None:
        """Return the position up to which every event was offered to its readers."""
        return self._position

    async def enter(self, subscription: Subscription, receiver: Receiver) -> Position | None:
        """Offer live events to the receiver from now on; the first reader of a channel subscribes this process to it.

        Raises:
            HubClosedError: The hub was closed.
        """
        if self._closed:
            what = "cannot enter the subscription"
            raise HubClosedError(what, CLOSED)
        for name in subscription.channels:
            if name not in self._channels:
                self._channels[name] = _Channel()
            self._channels[name].readers[subscription] = receiver
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
            if self._closed:  # meanwhile, so that `close` did not unsubscribe from these channels
                await self._backend.unsubscribe(tuple(missing))
                what = "cannot enter the subscription"
                raise HubClosedError(what, CLOSED)
            for channel in missing.values():
                channel.subscribed = True
            return position

    async def reach(self) -> None:
        """Wait until everything that was published so far is delivered."""
        await self._backend.reach()

    async def leave(self, subscription: Subscription) -> None:
        """Offer no more events; the last reader of a channel unsubscribes this process from it."""
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
        """Lock the channels, and yield those that still need a call to the backend: a channel has one call at a time.

        Args:
            channels: By name.
            needed: Returns True if a channel needs the call.
        """
        held: dict[str, _Channel] = {}
        try:
            for name in sorted(channels):  # always in the same order, so that no two tasks wait for each other
                channel = channels[name]
                await channel.lock.acquire()
                if self._channels.get(name) is channel and needed(channel):
                    held[name] = channel
                else:
                    channel.lock.release()  # the next task need not wait for this task's call
            yield held
        finally:
            for channel in held.values():
                channel.lock.release()

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log for a replay.

        The event loop turns before each page, and few pages are read at a time, so publishers are not held up when many
        readers come back at once.
        """
        async with self._reading:
            await checkpoint()
            return await self._backend.history(channels, after, upto, limit)

    async def rewind(self, channels: tuple[str, ...], count: int, upto: Position) -> Position | None:
        """Return the position after which the newest events begin."""
        return await self._backend.rewind(channels, min(count, MAX_SEQUENCE), upto)

    # Sink: the methods that the backend calls

    def deliver(self, entry: Entry) -> None:
        """Offer an event once to every reader of its channels, and move the position behind it."""
        names, known = entry.channels, self._channels
        if len(names) == 1:  # the same as _known, without two calls
            channels: Sequence[_Channel] = (known[names[0]],) if names[0] in known else ()
        else:
            channels = self._known(names)
        if channels or self.when_sent is not None:
            self._offer(entry, channels)
        if entry.position is not None:
            self._position = entry.position

    def _offer(self, entry: Entry, channels: Sequence[_Channel]) -> None:
        began, at_once = self._timer.now(), True
        for channel in channels:
            at_once = at_once and began > channel.quiet_from
        delivery = Delivery(entry, began, at_once=at_once)
        if self.when_sent is not None:
            delivery.when_sent = self.when_sent(delivery)
        readers = channels[0].readers if len(channels) == 1 else _readers(channels)
        for receiver in readers.values():
            receiver.offer(delivery)
        ended = self._timer.now()
        if sent := len(readers) - delivery.held:  # counted once for all of them: an addition for each would cost 1 %
            self.tally.delivered += sent
            self.tally.size += sent * len(entry.frame)
        if delivery.when_sent is not None:
            delivery.when_sent(ended)
        for channel in channels:
            if at_once:
                channel.pause = ended - began
            channel.quiet_from = ended + max(PAUSE_SECONDS, channel.pause)

    def advance(self, position: Position) -> None:
        """Move the position without an event."""
        self._position = position

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Have the readers of these channels catch up, and announce the reason if events were lost for certain."""
        for reader in _readers(self._known(channels)):
            reader.lose(reason)
        self.presence.beat()

    def state(self, *, up: bool) -> None:
        """Remember whether the backend is reachable."""
        self.tally.reconnects += up and not self.up
        self.up = up

    # The methods that the hub calls

    async def drain(self, patience: float) -> None:
        """End every subscription but the hub's own, and wait for the readers to leave, up to `patience` seconds."""
        wakeup = new_wakeup()
        self._draining.append(wakeup)
        for reader in self.subscriptions():
            reader.end("shutdown")
        with anyio.move_on_after(patience):
            while self.subscriptions():
                await wakeup
        self._draining.remove(wakeup)

    async def close(self) -> None:
        """End every subscription, refuse new ones, and unsubscribe from all channels once, so that leaving need not."""
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
        """Read one page of the log without waiting for the readers that replay."""
        return await self._backend.history(channels, after, upto, limit)

    def subscriptions(self, channel: str | None = None) -> list[Subscription]:
        """Return the readers of a channel, or all readers, without the hub's own."""
        readers = _readers(self._known(None if channel is None else (channel,)))
        return [reader for reader in readers if reader.channels != (CONTROL,)]

    def stats(self) -> Stats:
        """Return the counters, and the present number of readers and of waiting events. It works in every thread."""
        tally = self.tally
        # Each copy is made in one step, between which the event loop may change the dicts.
        channels = {name: [*channel.readers] for name, channel in self._channels.copy().items() if name != CONTROL}
        readers = {reader for readers in channels.values() for reader in readers}
        waiting = [reader.waiting for reader in readers]
        return Stats(
            connections=len(readers),
            channels={name: len(readers) for name, readers in channels.items()},
            buffered_events=sum(events for events, _ in waiting),
            buffered_bytes=sum(size for _, size in waiting),
            drops=tally.drops,
            gaps=tally.gaps.total(),
            published=tally.published,
            unpublished=tally.unpublished,
            delivered=tally.delivered,
            delivered_bytes=tally.size,
            replayed=tally.replayed,
            overflows=tally.overflows,
            reconnects=tally.reconnects,
            gaps_by_reason=dict(tally.gaps),
        )

    def _known(self, names: Iterable[str] | None) -> list[_Channel]:
        """Return the channels of these names, or all, that have readers or had some just now."""
        channels = self._channels
        return [channels[name] for name in (channels if names is None else names) if name in channels]


def _readers(channels: Sequence[_Channel]) -> Mapping[Subscription, Receiver]:
    """Return the readers of any of these channels, each once."""
    return {reader: receiver for channel in channels for reader, receiver in channel.readers.items()}
