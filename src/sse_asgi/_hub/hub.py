"""Hub: the public interface for publishing events and subscribing to them."""

import operator
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from .._log.event import RenderedEvent, ServerSentEvent, as_published
from .._log.models import EventModels
from .._loop.running import running_loop
from ..backends.base import NO_PRESENCE, Backend
from ..backends.memory import MemoryBackend
from ..exceptions import BackendError
from .newest import newest_events
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
from .run_options import check_whole
from .running import RunningHub
from .stats import Stats
from .subscription import Subscription

DRAIN_SECONDS = 1.0
NO_OPTIONS = (None, (), 0, None, None, None, None, None, True)  # the defaults of Hub._reader_options, in its order

T = TypeVar("T")


class Hub(RunningHub):
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
        max_runs: int = 1000,
        events: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare a hub; it is opened by `async with`, by EventSourceMiddleware or by `hub.lifespan`.

        Args:
            backend: Carries and keeps the events; None is a MemoryBackend().
            buffer_size: The most live events that wait for one reader.
            buffer_bytes: The most bytes of events that wait for one reader.
            overflow: The rule for a reader whose buffer is full: `"replay"` catches it up from history, `"close"`
                ends its stream, `"drop_oldest"` drops events and announces a gap, `"latest"` keeps the newest event of
                each key.
            ping_interval: Seconds of silence after which a response of this hub sends a ping; None sends no pings.
            patterns: Names like `orders.*`. An event of a channel that matches also reaches the readers of
                `Pattern("orders.*")`, which is a channel with a history of its own. `*` is any run of characters. Give
                the same patterns to every process that publishes.
            presence_ttl: Seconds after which the readers of a silent process are no longer present, and its runs are
                lost, give or take a third.
            presence_grace: Seconds for which a reader that has left is still present. A page that is reloaded, or a
                server that restarts, then causes no `sse.leave`.
            max_runs: The most runs that this process produces at the same time.
            events: The type of each event's data, by the event's name: `{"token": Token}`, or `"message"` for events
                without a name. pydantic validates and writes what is published. Other names, and data that do not have
                the type, are a ValueError where they are published. None lets every event through as it is.

        Raises:
            ValueError: A bound is below 1, an overflow rule is unknown, a pattern has no `*`, or a number of seconds is
                bad, or the name of an event is.
            TypeError: `backend` is not a Backend, or pydantic cannot validate or write a type of `events`.
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
        self.events: EventModels | None = None if events is None else EventModels(events)
        check_seconds("presence_ttl", presence_ttl)
        if not presence_grace >= 0:
            msg = f"presence_grace must be 0 seconds or more (got {presence_grace})"
            raise ValueError(msg)
        check_whole("max_runs", max_runs)
        super().__init__(MemoryBackend() if backend is None else backend, presence_ttl, presence_grace, max_runs)

    # Opening and closing

    @property
    def state(self) -> str:
        """`"closed"`, `"up"`, or `"down"` while the backend cannot be reached."""
        if self._registry is None:
            return "closed"
        return "up" if self._registry.up else "down"

    @property
    def patterns(self) -> tuple[Pattern, ...]:
        """The patterns of this hub."""
        return self._patterns.names

    @property
    def keeps_history(self) -> bool:
        """Whether readers can resume, because the backend keeps history, even while it cannot be reached."""
        return self.backend.keeps_history

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[dict[str, Any]]:  # noqa: ARG002 - Starlette passes it
        """Open the hub while an application runs: `FastAPI(lifespan=hub.lifespan)`. `get_hub` finds it there too."""
        async with self:
            yield {"hub": self}

    async def drain(self) -> None:
        """End every subscription of this hub in this process. Pending events are sent, then each stream ends.

        The call returns when the readers have left, after a second at the latest.

        Raises:
            HubClosedError: The hub is not open.
        """
        registry = self._opened("cannot drain")
        if registry.home.is_here():
            await registry.drain(DRAIN_SECONDS)
        else:
            await registry.home.run(self.drain)

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
        """Publish one event. A reader of several of the channels gets it once.

        Args:
            channels: One name, or several.
            data: A str is sent as it is, bytes as UTF-8 text, a ServerSentEvent without an id as it is, anything else
                as JSON. On a MemoryBackend, data may also be a function of a reader's properties. Its result is that
                reader's data, and a falsy result skips the reader.
            event: The event's type.
            retry: The browser's reconnection time, in milliseconds.
            key: Names the value that this event updates. Readers with `overflow="latest"` keep the newest event of
                each key.
            idempotency_key: Publishing again with the same key within two minutes stores nothing, and returns the
                same id.

        Returns:
            The event's id, once it is stored; None where no history is kept.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: There is no data, or an id; a field, key or channel name is bad; a name or type begins with
                `sse.`; a channel is a pattern; the hub's `events` has no event of this type, or its data have another
                type.
            TypeError: The data cannot be written as JSON, a key is not a str, or the data is a function and the backend
                crosses processes.
            BackendError: The event was not stored.
            PublishUnknownError: The event may have been stored; publish again with an idempotency_key.
        """
        home = (self._registry or self._opened("cannot publish")).home  # `or` saves the call while the hub is open
        if not home.is_here():
            outgoing = self._outgoing(channels, data, event, retry, key, idempotency_key=idempotency_key)
            return await home.run(partial(self._publish_now, outgoing))
        names, message = self._checked(channels, data, event, retry, key)
        check_key("idempotency_key", idempotency_key)
        # The body of _publish_now, without the cost of an Outgoing and of a second coroutine for each event.
        await home.checkpoint()  # before the event is stored: a publisher that is cancelled here has published nothing
        registry = self._registry or self._opened("cannot publish")
        try:
            position = await registry.store(names, message, key=key, idempotency_key=idempotency_key)
        except Exception as error:
            registry.tally.errors[type(error).__name__] += 1
            raise
        registry.tally.published += 1
        return None if position is None else str(position)

    def _checked(
        self, channels: str | Collection[str], data: Any, event: str | None, retry: int | None, key: str | None
    ) -> tuple[tuple[str, ...], ServerSentEvent | RenderedEvent]:
        """Return the channels and the event to publish, or raise the errors of publish for bad arguments."""
        names = (check_channel(channels),) if isinstance(channels, str) else check_channels(channels)
        check_key("key", key)
        message = (as_published if self.events is None else self.events.as_published)(data, event, retry)
        if isinstance(message, RenderedEvent) and not self.backend.in_process:
            msg = "a function as data cannot leave this process: publish plain data and subscribe with transform="
            raise TypeError(msg)
        check_type(message.event)
        return self._patterns.gather(names), message

    def _outgoing(
        self,
        channels: str | Collection[str],
        data: Any,
        event: str | None,
        retry: int | None,
        key: str | None,
        *,
        idempotency_key: str | None = None,
    ) -> Outgoing:
        """Return a checked event that is published later, or in the hub's event loop."""
        names, message = self._checked(channels, data, event, retry, key)
        check_key("idempotency_key", idempotency_key)
        return Outgoing(names, message, key, idempotency_key)

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
        """Publish from another thread of this process, as from a `def` endpoint, and wait until the event is stored.

        An event loop that runs in the calling thread is blocked meanwhile; use `await hub.publish(...)` there.

        Args:
            channels: See publish, like all arguments below.
            data: See publish.
            event: See publish.
            retry: See publish.
            key: See publish.
            idempotency_key: See publish.

        Returns:
            The event's id, as publish does.

        Raises:
            RuntimeError: The hub's own event loop runs in the calling thread, so the call would wait for ever.
            SSEError: The errors of publish, like ValueError and TypeError.
        """
        home = self._opened("cannot publish").home
        if home.is_here():
            msg = (
                "publish_from_thread would block the event loop that it waits for: "
                "await hub.publish(...) here, or call hub.publish_soon(...) in a function that is not async"
            )
            raise RuntimeError(msg)
        outgoing = self._outgoing(channels, data, event, retry, key, idempotency_key=idempotency_key)
        return home.wait(partial(self._publish_now, outgoing))

    def publish_soon(
        self,
        channels: str | Collection[str],
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
    ) -> None:
        """Queue an event to be published, without waiting. It works in every thread, and in functions without async.

        These events are published one after another, in the order of the calls; a later `publish` may overtake them.
        Up to 10,000 events or 16 MiB wait, even while the backend is away. An event that finds no room, or that the
        backend refuses, is lost: `stats().unpublished` counts it. One warning is logged until every queued event is
        published again. Closing the hub publishes the queued events, for a second at most.

        Args:
            channels: See publish, like all arguments below.
            data: See publish.
            event: See publish.
            retry: See publish.
            key: See publish.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: Arguments are wrong, as for publish; TypeError likewise.
            RuntimeError: This process is a fork of the process that opened the hub.
        """
        self._opened("cannot publish")
        self._outbox.add(self._outgoing(channels, data, event, retry, key))

    async def history(self, *channels: str, limit: int = 100) -> list[ServerSentEvent]:
        """Return the newest events that the backend keeps of these channels, the oldest of them first.

        Args:
            channels: At least one name, or a Pattern of this hub.
            limit: The most events to return; `sse.join` and `sse.leave` events between them are returned uncounted.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: A channel name is bad, or the limit is negative.
            BackendError: The backend did not answer within five seconds.
        """
        registry = self._opened("cannot read history")
        if not registry.home.is_here():
            return await registry.home.run(partial(self.history, *channels, limit=limit))
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
        until: str | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
        identity: str | None = None,
        presence: bool | str | Collection[str] = False,
        since: float | None = None,
    ) -> Subscription:
        """Prepare to read channels. Reading begins when the subscription is entered, by `async with` or a response.

        Args:
            channels: At least one name, or a Pattern of this hub.
            last_event_id: The id to resume after. None is the request's own Last-Event-ID in an EventSourceResponse,
                and a fresh start elsewhere. `""` is always a fresh start.
            properties: Anything that distinguishes this reader; given to `transform` and to callable data.
            transform: A plain function `(event, properties)` that returns the event for this reader, or None to skip
                it.
            initial: Events for a fresh stream to begin with.
            rewind: The number of the newest kept events that a fresh stream gets after `initial`, in their order,
                before live events; `math.inf` is all. Older events are not announced as a gap. A resumed stream
                continues after its id instead.
            snapshot: An async function that returns the current state, for a reader that is fresh or has a gap. The
                state is sent as one event of type `snapshot` before any later event; a ServerSentEvent, or a list of
                them, is sent as it is. If the function takes an argument, it gets the Subscription, which has
                `channels` and `options.properties`. Write your state first, then publish: the snapshot may already
                contain a delta that follows it, so make deltas idempotent or versioned.
            until: The type of the event that ends the stream, as `finished`: the first event of this type that the
                reader gets, live, from history, or as its snapshot. A browser does not reconnect after it. `"message"`
                is an event without a type. None goes on for ever.
            buffer_size: The most live events that wait; None is the hub's.
            buffer_bytes: The most bytes of events that wait; None is the hub's.
            overflow: The rule for a full buffer; None is the hub's.
            position_frames: Whether `sse.position` events keep a quiet reader's position current. Without them the
                position may fall out of history.
            identity: The reader's name, for `presence` and `disconnect`; any text that could be the name of a channel.
            presence: True lists the identity on the channels while the reader is open, see `Hub.presence`. Names list
                it on these channels only. `sse.join` and `sse.leave` are published there, and push no event out of the
                history.
            since: A `moment` before the reader was authorized; None is now. Disconnect orders received after it apply
                to this reader.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: There is no channel; a name is bad, reserved, or a pattern of the hub that is not given as a
                Pattern; an option is bad; or both `rewind` and `snapshot` are given.
            TypeError: A channel or `until` is not a str, `rewind` is not a number, or `initial` is not a collection of
                events.
            NotImplementedError: `presence` is given, and the backend does not support it.
            RuntimeError: Another event loop than the hub's runs here. A thread without an event loop may call this, as
                a `def` endpoint does.
        """
        if last_event_id is not None and not isinstance(last_event_id, str):
            msg = f"last_event_id must be a str (got {type(last_event_id).__name__})"
            raise TypeError(msg)
        options = self._reader_options(
            transform=transform,
            initial=initial,
            rewind=rewind,
            snapshot=snapshot,
            until=until,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            overflow=overflow,
            position_frames=position_frames,
        ).for_reader(properties, identity, listed_channels(channels, presence))
        return self._subscribe(channels, last_event_id, options, since)

    def _reader_options(
        self,
        *,
        transform: Transform | None = None,
        initial: Iterable[Any] = (),
        rewind: float = 0,
        snapshot: Snapshot | None = None,
        until: str | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
    ) -> Options:
        """Check the options that readers of one kind share, and fill in the hub's defaults.

        The hub need not be open. Readers without options of their own share one object.
        """
        defaults = self._defaults
        given = (transform, initial, rewind, snapshot, until, buffer_size, buffer_bytes, overflow, position_frames)
        if all(map(operator.is_, given, NO_OPTIONS)):  # most readers; each connection comes here
            return defaults
        options = defaults._replace(
            transform=check_callable("transform", transform),
            initial=initial_events(initial),
            rewind=rewind,
            snapshot=snapshot,
            personal=is_personal(snapshot),
            until=until,
            position_frames=position_frames,
            buffer_size=defaults.buffer_size if buffer_size is None else buffer_size,
            buffer_bytes=defaults.buffer_bytes if buffer_bytes is None else buffer_bytes,
            overflow=defaults.overflow if overflow is None else overflow,
        )
        return check_options(options)

    def _subscribe(
        self, channels: Collection[str], last_event_id: str | None, options: Options, since: float | None
    ) -> Subscription:
        """Subscribe with options that are checked already."""
        registry = self._subscribable()
        names = self._patterns.readable(check_channels(channels))
        if options.presence and type(self.backend).attend is Backend.attend:
            raise NotImplementedError(NO_PRESENCE)
        subscription = Subscription(registry, names, last_event_id, options)
        subscription.since = time.monotonic() if since is None else since
        if options.identity is not None or options.properties is not None:
            self._orders.start()
        return subscription

    def _subscribable(self) -> Registry:
        what = "cannot subscribe"
        registry = self._opened(what)
        if running_loop() is not None:
            registry.home.check(what)
        return registry

    def moment(self) -> float:
        """Return the current time, for `subscribe(since=...)`, and receive disconnect orders from now on.

        Raises:
            HubClosedError: The hub is not open.
        """
        self._opened("cannot subscribe")
        self._orders.start()
        return time.monotonic()

    def subscriptions(self, channel: str | None = None) -> list[Subscription]:
        """Return the open subscriptions of this process; another thread waits for the hub's event loop.

        Args:
            channel: Return only the subscriptions that read this channel; None returns all.

        Raises:
            HubClosedError: The hub is not open.
        """
        return self._ask("there are no subscriptions", lambda registry: registry.subscriptions(channel))

    def stats(self) -> Stats:
        """Return the hub's state in this process, and its counters since it was opened.

        Another thread waits for the hub's event loop.

        Raises:
            HubClosedError: The hub is not open.
        """
        return self._ask("nothing was counted", lambda registry: registry.stats()._replace(runs=self._runs.running))

    def _ask(self, what: str, question: Callable[[Registry], T]) -> T:
        """Ask a question about the registry in the hub's event loop, where the registry changes."""
        registry = self._opened(what)
        if registry.home.is_here():
            return question(registry)

        async def answer() -> T:
            return question(registry)

        return registry.home.wait(answer)

    async def disconnect(
        self, properties: Any = None, *, identity: str | None = None, channels: str | Collection[str] | None = None
    ) -> None:
        """End the streams of some readers, in every process. Their browsers reconnect, and are authorized again.

        Every argument that is given must match.

        Args:
            properties: The properties of the readers, compared as JSON. Of a mapping, only the given items are
                compared, with the items of the reader's mapping or with the attributes of its object.
            identity: The identity of the readers.
            channels: The readers must read one of these channels.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: Neither properties nor an identity is given, or the identity cannot exist.
            TypeError: The properties cannot be written as JSON.
            BackendError: The order was not stored.
        """
        home = self._opened("cannot disconnect").home
        if not home.is_here():
            await home.run(partial(self.disconnect, properties, identity=identity, channels=channels))
            return
        names = (check_channel(channels),) if isinstance(channels, str) else channels and check_channels(channels)
        order = disconnect_order(properties, identity, names)
        await self.backend.publish((CONTROL,), order, key=None, idempotency_key=None)

    async def presence(self, channel: str) -> list[str]:
        """Return the identities that read a channel with `presence=True`, in any process: each once, sorted.

        `sse.join` and `sse.leave` are published to the channel as identities come and go.

        Args:
            channel: The channel's name, or a Pattern of this hub.

        Raises:
            HubClosedError: The hub is not open.
            BackendError: The backend did not answer within five seconds.
        """
        registry = self._opened("cannot read presence")
        if not registry.home.is_here():
            return await registry.home.run(partial(self.presence, channel))
        (name,) = self._patterns.readable((check_channel(channel),))
        with self._patience("presence cannot be read"):
            return await registry.presence.present(name)
