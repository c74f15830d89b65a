"""A load on a hub: three processes' worth of backends, publishers that know what was stored, readers that move about.

Readers are browsers as the response sees them: they remember the last id, also of events without data, and half of them
leave all the time and come back to another of the hubs with it.
"""

import asyncio
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from starlette.types import Receive, Scope, Send

from real_redis.checker import Event, Finding, Seen, check
from sse_asgi import BackendError, EventSourceResponse, Hub, PublishUnknownError
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.testing import EventStream, EventStreamClient

HUBS = 3
PATIENCE = 20.0
CHANNELS = ["a", "b", "c", "d", "e", "f"]
WIDE = ("e", "f")  # the channels of one of the publishers
STAY = 0.15
PAUSE = 0.01


class Publisher:
    """Publishes numbers, one after the other.

    Attributes:
        channels: Where to.
        stored: The numbers that were acknowledged, and when their publishing began.
        unknown: How many may have been stored.
        refused: How many were not.
    """

    def __init__(self, number: int, hub: Hub, channels: tuple[str, ...], *, keyed: bool) -> None:
        self.channels = channels
        self.stored: dict[int, float] = {}
        self.unknown: list[int] = []
        self.refused: list[int] = []
        self.stopping = False
        self._keyed = keyed
        self._number = number
        self._count = itertools.count(1)
        self._hub = hub

    async def run(self) -> None:
        """Publish until `stopping` is set, and then until one more number is stored."""
        while not self.stopping:
            await self._publish()
            await asyncio.sleep(PAUSE)
        with anyio.fail_after(PATIENCE):
            while not await self._publish():
                pass

    async def _publish(self) -> bool:
        number = next(self._count)
        event, began = str(Event(self._number, number)), time.monotonic()
        try:
            await self._hub.publish(self.channels, event, idempotency_key=event if self._keyed else None)
        except PublishUnknownError:
            self.unknown.append(number)
        except BackendError:
            self.refused.append(number)
        else:
            self.stored[number] = began
            return True
        return False


class Browser:
    """Reads channels; if it moves, then from one hub to the next.

    Attributes:
        channels: Their names.
        first: The hub that it begins at.
        moves: Whether it leaves.
        log: What it saw.
        stream: The connection that is on.
    """

    def __init__(self, hubs: Sequence[Hub], first: int, channels: tuple[str, ...], *, moves: bool) -> None:
        self.channels = channels
        self.log: list[Seen] = []
        self.stream: EventStream | None = None
        self._clients = [EventStreamClient(_app(hub)) for hub in hubs]
        self.first = first
        self.moves = moves
        self._id: str | None = None

    @property
    def is_placed(self) -> bool:
        """Whether it knows its first position: nothing that is published from here on may pass it by."""
        return self.stream is not None and self.stream.last_event_id != ""

    @property
    def gaps(self) -> int:
        return sum(1 for one in self.log if one.event is None)

    async def run(self) -> None:
        """Read until it is cancelled."""
        for connection in itertools.count():
            hub = (self.first + connection) % HUBS
            async with self._clients[hub].stream("/" + ",".join(self.channels), last_event_id=self._id) as stream:
                self.stream = stream
                with anyio.move_on_after(random.uniform(STAY / 2, STAY * 2) if self.moves else None):
                    async for event in stream:
                        self._note(connection, hub, event)
                # Everything that has arrived was seen; later bytes were not.
                for event in stream._events:
                    self._note(connection, hub, event)
                stream.disconnect()
                self._id = stream.last_event_id or self._id

    def _note(self, connection: int, hub: int, event: Any) -> None:
        now = time.monotonic()
        if event.event == "sse.gap":
            self.log.append(Seen(now, hub, connection, event.id, None, json.loads(event.data)["reason"]))
        elif event.event == "message":
            self.log.append(Seen(now, hub, connection, event.id, Event.read(event.data)))


def _app(hub: Hub) -> Callable[[Scope, Receive, Send], Any]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(hub.subscribe(*scope["path"][1:].split(",")))(scope, receive, send)

    return app


class Crowd:
    """The whole load.

    Attributes:
        hubs: Each with a backend of its own, as in processes of their own.
        publishers: Two on each hub, one of them with idempotency keys.
        browsers: Half of them move.
        losses: How often the log was lost on purpose.
    """

    def __init__(self, hubs: Sequence[Hub], browsers: int) -> None:
        self.hubs = hubs
        self.publishers = [
            Publisher(at, hubs[at % HUBS], WIDE if name == WIDE[1] else (name,), keyed=at % 2 == 0)
            for at, name in enumerate(CHANNELS)
        ]
        self.browsers = [
            Browser(hubs, at % HUBS, self._channels(at), moves=at // HUBS % 2 == 1) for at in range(browsers)
        ]
        self.losses = 0
        self.since = 0.0
        self.seconds = 0.0
        self.found: list[Finding] = []

    def _channels(self, at: int) -> tuple[str, ...]:
        """Read one to three channels; some of the browsers that stay read all, so that nothing is unheard."""
        return tuple(CHANNELS) if at < HUBS else tuple(random.Random(at).sample(CHANNELS, 1 + at % 3))

    @property
    def stored(self) -> int:
        return sum(len(one.stored) for one in self.publishers)

    @property
    def unknown(self) -> int:
        return sum(len(one.unknown) for one in self.publishers)

    @property
    def refused(self) -> int:
        return sum(len(one.refused) for one in self.publishers)

    def gaps(self, *, moves: bool, hub: int | None = None) -> list[int]:
        """Count the gaps of the moving readers, or of those that stay at a hub and read other publishers' events."""
        own = {publisher.channels for at, publisher in enumerate(self.publishers) if at % HUBS == hub}
        return [
            browser.gaps
            for browser in self.browsers
            if browser.moves is moves and hub in (None, browser.first) and {(name,) for name in browser.channels} - own
        ]

    async def flow(self, count: int = 200) -> None:
        """Wait until so many more were stored, by all the publishers together."""
        target = self.stored + count
        await until(lambda: self.stored >= target)

    async def state(self, state: str) -> None:
        await until(lambda: {hub.state for hub in self.hubs} == {state})

    def heals(self) -> None:
        """Note that the fault is over from here on."""
        self.since = time.monotonic()

    async def live(self) -> float:
        """Wait until each hub handed over something that was published after the fault; return how long that took."""
        await until(lambda: None not in self._first_arrivals())
        return max(one or 0 for one in self._first_arrivals()) - self.since

    def _first_arrivals(self) -> list[float | None]:
        return [
            next((one.at for one in browser.log if one.at >= self.since and self._is_later(one.event)), None)
            for browser in self.browsers[:HUBS]
        ]

    def _is_later(self, event: Event | None) -> bool:
        return event is not None and self.publishers[event.publisher].stored.get(event.number, 0) >= self.since

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read, then publish; at the end stop publishing, and wait until every reader has the last of everything."""
        async with asyncio.TaskGroup() as readers:
            tasks = [readers.create_task(browser.run()) for browser in self.browsers]
            await until(lambda: all(browser.is_placed for browser in self.browsers))
            async with asyncio.TaskGroup() as publishers:
                for publisher in self.publishers:
                    publishers.create_task(publisher.run())
                try:
                    yield
                finally:
                    for publisher in self.publishers:
                        publisher.stopping = True
            await self._complete()
            for task in tasks:
                task.cancel()

    async def _complete(self) -> None:
        await until(lambda: all(self._is_complete(browser) for browser in self.browsers))

    def _is_complete(self, browser: Browser) -> bool:
        seen = {one.event for one in browser.log}
        return all(Event(at, max(self.publishers[at].stored)) in seen for at in self._read_by(browser))

    def _read_by(self, browser: Browser) -> list[int]:
        return [at for at, one in enumerate(self.publishers) if set(one.channels) & set(browser.channels)]

    async def findings(self) -> list[Finding]:
        """Judge the events of all readers."""
        kept = {name: await self.hubs[0].history(name, limit=100_000) for name in CHANNELS}
        held = {name: [Event.read(str(event.data)) for event in events] for name, events in kept.items()}
        return [self._find(one, {event for name in one.channels for event in held[name]}) for one in self.browsers]

    def _find(self, browser: Browser, kept: set[Event]) -> Finding:
        publishers = {at: self.publishers[at] for at in self._read_by(browser)}
        stored = {at: one.stored for at, one in publishers.items()}
        unknown = {Event(at, number) for at, one in publishers.items() for number in one.unknown}
        return check(browser.log, stored, kept, self.losses, unknown)


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Wait for a fact."""
    with anyio.fail_after(patience):
        while not condition():
            await anyio.sleep(0.005)


@asynccontextmanager
async def crowd(urls: Sequence[str], name: str, *, browsers: int = 24, **options: Any) -> AsyncIterator[Crowd]:
    """Run the load while the block runs: one hub for each URL, or three for one."""
    async with AsyncExitStack() as stack:
        backends = [RedisBackend(url, name=name, **options) for _, url in zip(range(HUBS), itertools.cycle(urls))]
        hubs = [await stack.enter_async_context(Hub(backend, ping_interval=0.3)) for backend in backends]
        one = Crowd(hubs, browsers)
        await one.state("up")
        async with one.running():
            await one.flow()
            yield one
            one.seconds = await one.live()
            await one.flow()
        one.found = await one.findings()
