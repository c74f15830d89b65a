"""The public face of a hub: opening, publishing, subscribing."""

import operator
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, TypeVar

import anyio

from .._log.event import RenderedEvent, ServerSentEvent, as_published
from .._loop.running import checkpoint, running_loop
from ..backends.base import NO_PRESENCE, Backend
from ..backends.memory import MemoryBackend
from ..exceptions import BackendError
from .newest import newest_events
from .opening import OpenHub
from .options import (
    Options,
    Overflow,
    Snapshot,
    Transform,
    check_callable,
    check_channel,
    check_channels,
    check_key,
    check_options,
    check_seconds,
    check_type,
    initial_events,
    is_personal,
    listed_channels,
)
from .orders import disconnect_order
from .outbox import Outgoing
from .patterns import Pattern, Patterns
from .registry import CONTROL, Registry
from .stats import Stats
from .subscription import Subscription

DRAIN_SECONDS = 1.0
READ_SECONDS = 5.0

T = TypeVar("T")


class Hub(OpenHub):
    """Publishes events to channels, and lets any number of readers in this process subscribe to them."""

    def __init__(
        self,
        backend: Backend | None = None,
        *,
        buffer_size: int = 256,
        buffer_bytes: int = 1 << 20,
        overflow: Overflow = "replay",
        ping_interval: float | None = 15.0,
        patterns: Collection[str] = (),
        presence_ttl: float = 15.0,
        presence_grace: float = 5.0,
    ) -> None:
        """Prepare a hub; it is opened by `async with`, by EventSourceMiddleware or by `hub.lifespan`.

        Args:
            backend: What carries and keeps the events; None is a MemoryBackend().
            buffer_size: How many live events may wait for one reader.
            buffer_bytes: How many bytes of them.
            overflow: What happens to a reader whose buffer is full: `"replay"` catches it up from history, `"close"`
                ends its stream, `"drop_oldest"` drops and announces, `"latest"` keeps the newest event of each key.
            ping_interval: Seconds of silence after which a response of this hub sends a ping; None sends none.
            patterns: Names like `orders.*`: what is published to a channel that matches also reaches the readers of
                `Pattern("orders.*")`, a channel with a history of its own. `*` is any run of characters. Give the same
                patterns to every process that publishes.
            presence_ttl: Seconds after which the readers of a process that is not heard of are not present any more,
                give or take a third of it.
            presence_grace: Seconds for which a reader that has left is still present, so that nobody is seen to go and
                come when a page is reloaded or a server restarted.

        Raises:
            ValueError: A bound below 1, an unknown overflow rule, a pattern without `*`, or a bad number of seconds.
            TypeError: `backend` is no Backend.
        """
        if backend is not None and not isinstance(backend, Backend):
            msg = (
                f"backend must be a Backend (got {type(backend).__name__}): "
                "create_hub('redis://localhost') makes a hub from a URL"
            )
            raise TypeError(msg)
        self._defaults = check_options(
            Options(buffer_size=buffer_size, buffer_bytes=buffer_bytes, overflow=overflow, ping_interval=ping_interval)
        )
        self._patterns = Patterns(patterns)
        check_seconds("presence_ttl", presence_ttl)
        if not presence_grace >= 0:
            msg = f"presence_grace={presence_grace} must be 0 seconds or more"
            raise ValueError(msg)
        super().__init__(MemoryBackend() if backend is None else backend, presence_ttl, presence_grace)

    # Opening and closing

    @property
    def state(self) -> str:
        """`"closed"`, `"up"`, or `"down"` while the backend is out of reach."""
        if self._registry is None:
            return "closed"
        return "up" if self._registry.up else "down"

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns that it gathers."""
        return self._patterns.names

    @property
    def keeps_history(self) -> bool:
        """Whether readers can resume: the backend is made to keep history, be it there now or not."""
        return self.backend.keeps_history

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG002 - Starlette passes it
        """Open the hub for an application's life: `FastAPI(lifespan=hub.lifespan)`, where `get_hub` finds it too."""
        async with self:
            yield {"hub": self}

    async def drain(self) -> None:
        """End every subscription of this hub in this process: what is ready is sent, then the stream ends.

        It returns when the readers have left, after a second at the latest.

        Raises:
            HubClosedError: The hub is not open.
        """
        registry = self._opened("cannot drain")
        if registry.home.is_here():
            await registry.drain(DRAIN_SECONDS)
        else:
            await registry.home.carry(self.drain)

    # Publishing

    async def publish(
        self,
        channels: str | Collection[str],
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str | None:
        """Publish one event; a reader of several of the channels gets it once.

        Args:
            channels: A name or several.
            data: str as it is, bytes as UTF-8 text, a ServerSentEvent without an id, anything else as JSON. On a
                MemoryBackend also a function of a reader's properties, whose result is that reader's data; a falsy
                result skips the reader.
            event: The type.
            retry: The browser's reconnection time, in milliseconds.
            key: What this is the newest value of, for readers with `overflow="latest"`.
            idempotency_key: Publishing again with the same key within two minutes stores nothing, and returns the
                same id.

        Returns:
            The event's id, once it is stored; None where no history is kept.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: No data, an id, a bad field, key or channel name; a name or type that begins with `sse.`; a
                pattern.
            TypeError: Data that cannot be written as JSON, a key that is no str, or a function on a backend that
                crosses processes.
            BackendError: The event was not stored.
            PublishUnknownError: It may have been stored; publish again with an idempotency_key.
        """
        home = (self._registry or self._opened("cannot publish")).home  # an open hub spares the call
        if not home.is_here():
            options: dict[str, Any] = {"event": event, "retry": retry, "key": key, "idempotency_key": idempotency_key}
            return await home.carry(partial(self.publish, channels, data, **options))
        names, message = self._checked(channels, data, event, retry, key)
        check_key("idempotency_key", idempotency_key)
        await checkpoint()  # before it is stored: who is cancelled here has published nothing
        registry = self._registry or self._opened("cannot publish")
        position = await self.backend.publish(names, message, key=key, idempotency_key=idempotency_key)
        registry.tally.published += 1
        return None if position is None else str(position)

    def _checked(
        self, channels: str | Collection[str], data: Any, event: str | None, retry: int | None, key: str | None
    ) -> tuple[tuple[str, ...], ServerSentEvent | RenderedEvent]:
        """Return where to publish and what, or raise for what publish refuses."""
        names = (check_channel(channels),) if isinstance(channels, str) else check_channels(channels)
        check_key("key", key)
        message = as_published(data, event, retry)
        if isinstance(message, RenderedEvent) and not self.backend.in_process:
            msg = "a function as data cannot leave this process: publish plain data and subscribe with transform="
            raise TypeError(msg)
        check_type(message.event)
        return self._patterns.gather(names), message

    def publish_from_thread(
        self,
        channels: str | Collection[str],
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str | None:
        """Publish from another thread of this process, as from a `def` endpoint; wait until the event is stored.

        An event loop that runs in the calling thread waits too; there, `await hub.publish(...)` does not hold it up.

        Args:
            channels: See publish, like all that follow.
            data: See publish.
            event: See publish.
            retry: See publish.
            key: See publish.
            idempotency_key: See publish.

        Returns:
            What publish returns.

        Raises:
            RuntimeError: It was called in the hub's own event loop, and would wait for ever: await publish there.
            SSEError: What publish raises, like ValueError and TypeError.
        """
        home = self._opened("cannot publish").home
        if home.is_here():
            msg = (
                "publish_from_thread would hold up the event loop that it waits for: "
                "await hub.publish(...) here, or call hub.publish_soon(...) in a function that is not async"
            )
            raise RuntimeError(msg)
        options: dict[str, Any] = {"event": event, "retry": retry, "key": key, "idempotency_key": idempotency_key}
        return home.wait(partial(self.publish, channels, data, **options))

    def publish_soon(
        self,
        channels: str | Collection[str],
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> None:
        """Have an event published, without waiting; it works in every thread, and in functions that are not async.

        These events are published one after another, in the order of the calls; a later `publish` may overtake them.
        Up to 10,000 events or 16 MiB wait, also while the backend is away. An event that finds no room, or that the
        backend refuses, is lost: `stats().unpublished` counts it, and one warning is logged until all is well again.
        Closing the hub publishes those that wait, for a second at most.

        Args:
            channels: See publish, like all that follow.
            data: See publish.
            event: See publish.
            retry: See publish.
            key: See publish.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: What publish raises for wrong arguments, like TypeError.
            RuntimeError: The process was forked from the hub's.
        """
        self._opened("cannot publish")
        names, message = self._checked(channels, data, event, retry, key)
        self._outbox.add(Outgoing(names, message, key))

    async def history(self, *channels: str, limit: int = 100) -> list[ServerSentEvent]:
        """Return the newest events that the backend keeps of these channels, the oldest of them first.

        Args:
            channels: At least one name, or a Pattern of this hub.
            limit: The most events to return; the joins and leaves among them come along and are not counted.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: A bad channel name, or a negative limit.
            BackendError: The backend could not be asked, or not within five seconds.
        """
        registry = self._opened("cannot read history")
        if not registry.home.is_here():
            return await registry.home.carry(partial(self.history, *channels, limit=limit))
        names = self._patterns.readable(check_channels(channels))
        if limit < 0:
            msg = f"limit must be a number of events, at least 0 (got {limit})"
            raise ValueError(msg)
        if registry.position() is None and not registry.up:
            msg = f"the backend has not been there yet: its history cannot be read{self._trouble()}"
            raise BackendError(msg)
        with self._patience("its history cannot be read"):
            return await newest_events(registry, names, limit)

    # Subscribing

    def subscribe(
        self,
        *channels: str,
        last_event_id: str | None = None,
        properties: Any = None,
        transform: Transform | None = None,
        initial: Iterable[Any] = (),
        rewind: float = 0,
        snapshot: Snapshot | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
        identity: str | None = None,
        presence: bool | str | Collection[str] = False,
        since: float | None = None,
    ) -> Subscription:
        """Prepare to read channels; nothing is read before the subscription is entered, by hand or by its response.

        Args:
            channels: At least one name, or a Pattern of this hub.
            last_event_id: The id to resume after; None is the request's own Last-Event-ID in an EventSourceResponse
                and a fresh start elsewhere, `""` is a fresh start on purpose.
            properties: Anything that tells this reader from others; given to `transform` and to callable data.
            transform: A plain function `(event, properties)`: what this reader gets instead, or None to skip it.
            initial: Events for a fresh stream to begin with.
            rewind: How many of the newest events that are kept of its channels a fresh stream gets after `initial`, in
                their order, before live events; `math.inf` is all. Older events are not announced as a gap. A resumed
                stream goes on after its id instead.
            snapshot: An async function that returns the current state, for a reader that is fresh or has a gap: sent
                as one event of type `snapshot` before any later event. If it needs an argument, that is the
                Subscription, whose `channels` and `options.properties` say whose state it is. Write your state first,
                then publish: a delta that follows may already be contained in the snapshot, so make deltas idempotent
                or versioned.
            buffer_size: How many live events may wait; None is the hub's.
            buffer_bytes: How many bytes of them; None is the hub's.
            overflow: What happens when they are too many; None is the hub's.
            position_frames: Whether `sse.position` events keep a quiet reader's position current. Without them it may
                fall out of history.
            identity: Who this reader is, for `presence` and `disconnect`: what could be the name of a channel.
            presence: True lists its identity on the channels while it is open, see `Hub.presence`; names list it on
                these of them only. `sse.join` and `sse.leave` are published to it, and push nothing out of the history.
            since: The `moment` before it was looked up what this reader may: an order to disconnect that is heard later
                ends it. None is now.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: No channel, a bad name, one of the library's own, one of the hub's patterns that is no Pattern,
                a bad option, or both `rewind` and `snapshot`.
            TypeError: A channel that is no str, a `rewind` that is not a number, or `initial` that is no collection of
                events.
            NotImplementedError: `presence` on a backend that does not keep who is here.
            RuntimeError: Another event loop than the hub's runs here. A thread without one may call this, as a `def`
                endpoint does.
        """
        registry = self._subscribable()
        defaults = self._defaults
        options = defaults._replace(
            properties=properties,
            transform=check_callable("transform", transform),
            initial=initial_events(initial),
            rewind=rewind,
            snapshot=snapshot,
            personal=is_personal(snapshot),
            position_frames=position_frames,
            buffer_size=defaults.buffer_size if buffer_size is None else buffer_size,
            buffer_bytes=defaults.buffer_bytes if buffer_bytes is None else buffer_bytes,
            overflow=defaults.overflow if overflow is None else overflow,
            identity=identity,
            presence=listed_channels(channels, presence),
        )
        if last_event_id is not None and not isinstance(last_event_id, str):
            msg = f"last_event_id must be a str, not {type(last_event_id).__name__}"
            raise TypeError(msg)
        # Most readers have the hub's own, and need no copy of them.
        options = defaults if all(map(operator.is_, options, defaults)) else check_options(options)
        names = self._patterns.readable(check_channels(channels))
        subscription = Subscription(registry, names, last_event_id, options)
        subscription.since = time.monotonic() if since is None else since
        if presence and type(self.backend).attend is Backend.attend:
            raise NotImplementedError(NO_PRESENCE)
        if identity is not None or properties is not None:
            self._orders.start()
        return subscription

    def _subscribable(self) -> Registry:
        what = "cannot subscribe"
        registry = self._opened(what)
        if running_loop() is not None:
            registry.home.check(what)
        return registry

    def moment(self) -> float:
        """Return the time, for `subscribe(since=...)`, and listen for orders to disconnect from now on.

        Raises:
            HubClosedError: The hub is not open.
        """
        self._opened("cannot subscribe")
        self._orders.start()
        return time.monotonic()

    def subscriptions(self, channel: str | None = None) -> list[Subscription]:
        """Return the open subscriptions of this process; another thread waits for the hub's event loop.

        Args:
            channel: Only those that read it; None for all.

        Raises:
            HubClosedError: The hub is not open.
        """
        return self._ask("there are no subscriptions", lambda registry: registry.subscriptions(channel))

    def stats(self) -> Stats:
        """Return what there is in this process now, and what was counted since the hub was opened.

        Another thread waits for the hub's event loop.

        Raises:
            HubClosedError: The hub is not open.
        """
        return self._ask("nothing was counted", Registry.stats)

    def _ask(self, what: str, question: Callable[[Registry], T]) -> T:
        """Look at what changes in the hub's event loop."""
        registry = self._opened(what)
        if registry.home.is_here():
            return question(registry)

        async def answer() -> T:
            return question(registry)

        return registry.home.wait(answer)

    async def disconnect(
        self, properties: Any = None, *, identity: str | None = None, channels: str | Collection[str] | None = None
    ) -> None:
        """End the streams of some readers, in every process; their browsers come back, and are authorised afresh.

        Args:
            properties: Those whose properties are equal as JSON; of a mapping only the items that it names are
                compared, with those of a mapping or with the attributes of an object.
            identity: Those with this identity.
            channels: Only those that read one of these.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: Neither properties nor an identity is given, or one that nobody can have.
            TypeError: Properties that cannot be written as JSON.
            BackendError: The order was not stored.
        """
        home = self._opened("cannot disconnect").home
        if not home.is_here():
            await home.carry(partial(self.disconnect, properties, identity=identity, channels=channels))
            return
        names = (check_channel(channels),) if isinstance(channels, str) else channels and check_channels(channels)
        order = disconnect_order(properties, identity, names)
        await self.backend.publish((CONTROL,), order, key=None, idempotency_key=None)

    async def presence(self, channel: str) -> list[str]:
        """Return who reads a channel with `presence=True`, in any process: each identity once, sorted.

        `sse.join` and `sse.leave` are published to the channel as they come and go.

        Args:
            channel: Its name, or a Pattern of this hub.

        Raises:
            HubClosedError: The hub is not open.
            BackendError: The backend could not be asked, or not within five seconds.
        """
        registry = self._opened("cannot tell who is here")
        if not registry.home.is_here():
            return await registry.home.carry(partial(self.presence, channel))
        (name,) = self._patterns.readable((check_channel(channel),))
        with self._patience("who is here cannot be told"):
            return await registry.presence.present(name)

    @contextmanager
    def _patience(self, what: str) -> Iterator[None]:
        try:
            with anyio.fail_after(READ_SECONDS):
                yield
        except TimeoutError as error:
            msg = f"the backend was away for {READ_SECONDS:g} s: {what}{self._trouble()}"
            raise BackendError(msg) from error

    def _trouble(self) -> str:
        return f" ({self.backend.trouble})" if self.backend.trouble else ""
