"""The life of a hub: opening it once, counting nested entries, and closing it with its first opener."""

import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Self

import anyio

from .._loop.running import checkpoint
from ..backends.base import Backend
from ..exceptions import CLOSED, NOT_OPEN, BackendError, HubClosedError
from .home import Home
from .orders import Orders
from .outbox import Outbox, Outgoing
from .presence import Presence
from .registry import Registry
from .runs import Runs

FLUSH_SECONDS = 1.0
CLOSE_SECONDS = 5.0
READ_SECONDS = 5.0


class _Borrowed:
    """Counts how often an open hub was entered again. An exit may run in another task than its enter."""

    def __init__(self) -> None:
        self.by_owner = 0
        self.by_others = 0

    def gives_back(self, *, by_owner: bool) -> bool:
        """Count one exit, and return True, unless this exit closes the hub."""
        if by_owner and self.by_owner:
            self.by_owner -= 1
        elif not by_owner and self.by_others:
            self.by_others -= 1
        else:
            return False
        return True


class OpenHub:
    """The life of a hub in the event loop that opens it.

    Attributes:
        backend: Carries and keeps the events.
    """

    def __init__(self, backend: Backend, presence_ttl: float, presence_grace: float, max_runs: int) -> None:
        """Store the arguments; the hub is closed until it is entered."""
        self.backend = backend
        self._max_runs = max_runs
        self._presence_seconds = presence_ttl, presence_grace
        self._registry: Registry | None = None
        self._was_open = False
        self._orders: Orders
        self._runs: Runs
        self._outbox: Outbox
        self._connection = AsyncExitStack()
        self._home: Home | None = None
        self._claiming = threading.Lock()
        self._opening: anyio.Event | None = None
        self._owner = 0
        self._borrowed = _Borrowed()

    async def __aenter__(self) -> Self:
        """Open the hub. If it is open already, only count this entry.

        Raises:
            RuntimeError: The hub is open in another event loop.
        """
        self._claim()
        while self._opening is not None:
            await self._opening.wait()
        if self._registry is None:
            await self._open(self._claim())
        elif self._owner == _current_task():
            self._borrowed.by_owner += 1
        else:
            self._borrowed.by_others += 1
        return self

    def _claim(self) -> Home:
        """Make the running event loop the hub's, unless it has one; raise in another loop than the hub's."""
        with self._claiming:
            if self._home is None:
                self._home = Home()
            home = self._home
        home.check("cannot open the hub")
        return home

    async def _open(self, home: Home) -> None:
        opening = self._opening = anyio.Event()
        registry = Registry(self.backend, Presence(self.backend, *self._presence_seconds), home)
        try:
            await self._connection.enter_async_context(self.backend.connect(registry))
            registry.tally.reconnects = 0  # the first connection is not one of them
            self._orders = Orders(registry)
            lease = self._presence_seconds[0]
            self._runs = Runs(self.backend, registry, self._orders, limit=self._max_runs, lease=lease)
            self._outbox = Outbox(home, registry.tally, self._publish_now)
            self._registry, self._owner = registry, _current_task()
            self._was_open = True
        finally:
            if self._registry is None:
                self._home = None
            self._opening = None
            opening.set()

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the hub, if this is the exit of its first opener: every subscription ends.

        Each step runs even if the step before it fails, or if the task is cancelled a second time.

        Raises:
            RuntimeError: Another event loop than the hub's runs here.
        """
        if self._home is not None:
            self._home.check("cannot close the hub")
        if self._borrowed.gives_back(by_owner=self._owner == _current_task()) or self._registry is None:
            return
        try:
            await self._outbox.close(FLUSH_SECONDS)
        finally:
            await self._close()

    async def _close(self) -> None:
        registry, self._registry, self._home = self._registry, None, None
        connection, self._connection = self._connection, AsyncExitStack()
        if registry is None:  # another task closed it while this one waited
            return
        async with AsyncExitStack() as steps:  # the last of them comes first
            steps.push_async_callback(_close_connection, connection)
            steps.push_async_callback(registry.presence.close)
            steps.push_async_callback(registry.close)
            steps.push_async_callback(self._runs.close)

    def _opened(self, what: str) -> Registry:
        if self._registry is None:
            raise HubClosedError(what, CLOSED if self._was_open else NOT_OPEN)
        return self._registry

    async def _publish_now(self, outgoing: Outgoing) -> str | None:
        """Publish a checked event in the hub's event loop, and return its id."""
        await checkpoint()
        registry = self._opened("cannot publish")
        try:
            position = await registry.store(
                outgoing.channels, outgoing.event, key=outgoing.key, idempotency_key=outgoing.idempotency_key
            )
        except Exception as error:
            registry.tally.errors[type(error).__name__] += 1
            raise
        registry.tally.published += 1
        return None if position is None else str(position)

    @contextmanager
    def _patience(self, what: str) -> Iterator[None]:
        """Raise BackendError if the block takes longer than READ_SECONDS."""
        try:
            with anyio.fail_after(READ_SECONDS):
                yield
        except TimeoutError as error:
            msg = f"the backend was away for {READ_SECONDS:g} s: {what}{self._trouble()}"
            raise BackendError(msg) from error

    def _trouble(self) -> str:
        return f" ({self.backend.trouble})" if self.backend.trouble else ""


async def _close_connection(connection: AsyncExitStack) -> None:
    with anyio.move_on_after(CLOSE_SECONDS, shield=True):
        await connection.aclose()


def _current_task() -> int:
    return anyio.get_current_task().id
