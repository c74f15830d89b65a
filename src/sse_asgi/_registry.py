"""Which subscriptions of this process read which channel: the one place where the backend and the readers meet."""

from collections.abc import Iterable

import anyio

from ._event import Entry, History
from ._position import Position
from ._runtime import Wakeup, new_wakeup
from ._subscription import Subscription
from .backends.base import Backend
from .exceptions import HubClosedError

UNSUBSCRIBE_SECONDS = 5.0


class _Channel:
    """The readers of one channel, and whether the backend was told that there are any."""

    __slots__ = ("lock", "readers", "subscribed")

    def __init__(self) -> None:
        self.readers: dict[Subscription, None] = {}
        self.subscribed = False
        self.lock = anyio.Lock(fast_acquire=True)


class Registry:
    """The Source of every subscription and the Sink of the backend, while a hub is open.

    Attributes:
        up: Whether the backend is reachable.
    """

    def __init__(self, backend: Backend) -> None:
        """Know of no readers."""
        self.up = True
        self._backend = backend
        self._channels: dict[str, _Channel] = {}
        self._position: Position | None = None
        self._closed = False
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
        position = self._position
        for name in subscription.channels:
            if not self._channels[name].subscribed:
                position = await self._subscribe(name, self._channels[name])
        return position

    async def _subscribe(self, name: str, channel: _Channel) -> Position | None:
        async with channel.lock:
            if channel.subscribed:
                return self._position
            position = await self._backend.subscribe((name,))
            channel.subscribed = True
            return position

    async def reach(self) -> None:
        """Have everything delivered that was published so far."""
        await self._backend.reach()

    async def leave(self, subscription: Subscription) -> None:
        """Offer nothing more; the last reader of a channel unsubscribes this process from it."""
        for name in subscription.channels:
            channel = self._channels.get(name)
            if channel is None or subscription not in channel.readers:
                continue
            del channel.readers[subscription]
            if not channel.readers:
                await self._unsubscribe(name, channel)
        for wakeup in self._draining:
            wakeup.set()

    async def _unsubscribe(self, name: str, channel: _Channel) -> None:
        with anyio.move_on_after(UNSUBSCRIBE_SECONDS, shield=True):
            async with channel.lock:
                if not channel.readers:
                    await self._forget(name, channel)

    async def _forget(self, name: str, channel: _Channel) -> None:
        if channel.subscribed:
            channel.subscribed = False
            await self._backend.unsubscribe((name,))
        if not channel.readers and self._channels.get(name) is channel:
            del self._channels[name]

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        """Read one page of the log."""
        return await self._backend.history(channels, after, upto, limit)

    # Sink: what the backend tells

    def deliver(self, entry: Entry) -> None:
        """Offer one event to every reader of its channels, once, and move the position behind it."""
        for reader in self._readers(entry.channels):
            reader.offer(entry)
        if entry.position is not None:
            self._position = entry.position

    def advance(self, position: Position) -> None:
        """Move the position where no event did."""
        self._position = position

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Tell the readers of these channels that they lost events, or, without a reason, that they may have."""
        for reader in self._readers(channels):
            reader.lose(reason)

    def state(self, *, up: bool) -> None:
        """Remember whether the backend is reachable."""
        self.up = up

    # What the hub asks for

    async def drain(self, patience: float) -> None:
        """End every subscription, and wait for the readers to leave, but not for ever."""
        wakeup = new_wakeup()
        self._draining.append(wakeup)
        for reader in self._readers(None):
            reader.end("shutdown")
        with anyio.move_on_after(patience):
            while self._readers(None):
                await wakeup
        self._draining.remove(wakeup)

    def close(self) -> None:
        """End every subscription and refuse new ones."""
        self._closed = True
        for reader in self._readers(None):
            reader.end("shutdown")

    def _readers(self, names: Iterable[str] | None) -> Iterable[Subscription]:
        channels = self._channels
        found = [channels[name].readers for name in (channels if names is None else names) if name in channels]
        if len(found) == 1:
            return found[0]
        return dict.fromkeys(reader for readers in found for reader in readers)
