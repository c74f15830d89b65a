"""What `publish_soon` keeps until the hub's event loop publishes it: bounded, in order, and without a wait.

The thread that adds an event logs nothing and waits for nothing, because it may be in a logging.Handler, whose lock
every log line needs.
"""

import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import NamedTuple

import anyio

from .._log.event import RenderedEvent, ServerSentEvent
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from ..exceptions import HubClosedError, SSEError
from .home import Home
from .stats import Tally

logger = logging.getLogger("sse_asgi")

MAX_EVENTS = 10_000
MAX_BYTES = 16 << 20


class Outgoing(NamedTuple):
    """An event that was checked, and where it is to be published."""

    channels: tuple[str, ...]
    event: ServerSentEvent | RenderedEvent
    key: str | None


class Outbox:
    """The events of an open hub that wait to be published."""

    def __init__(self, home: Home, tally: Tally, publish: Callable[[Outgoing], Awaitable[None]]) -> None:
        """Begin empty.

        Args:
            home: The hub's event loop.
            tally: Counts what could not be published.
            publish: Publishes one event.
        """
        self._home = home
        self._tally = tally
        self._publish = publish
        self._lock = threading.RLock()  # a signal handler may come in between, and publish as well
        self._waiting: deque[Outgoing] = deque()
        self._bytes = 0
        self._awake = self._closed = self._losing = self._reported = False
        self._task: Child | None = None
        self._idle = new_wakeup()

    def add(self, outgoing: Outgoing) -> None:
        """Have an event published, or count it where too many wait; it works in every thread.

        Raises:
            HubClosedError: The hub was closed.
            RuntimeError: The process is a fork of the hub's.
        """
        self._home.check_process()  # before the lock, which a thread of the parent may have held
        size = len(outgoing.event.encode())
        with self._lock:
            if self._closed:
                what = "cannot publish"
                raise HubClosedError(what)
            if len(self._waiting) >= MAX_EVENTS or (self._waiting and self._bytes + size > MAX_BYTES):
                self._tally.unpublished += 1
                self._losing = True
                return
            self._waiting.append(outgoing)
            self._bytes += size
            if self._awake:
                return
            self._awake = True
        try:
            self._home.soon(self._begin)
        except HubClosedError:
            with self._lock:
                self._closed = True
                self._tally.unpublished += len(self._waiting) - 1  # the caller is told of its own
                self._waiting.clear()
            raise

    # In the hub's event loop

    def _begin(self) -> None:
        self._task = spawn(self._run, context=Context())  # it outlives the request that comes first

    async def _run(self) -> None:
        while (outgoing := self._next()) is not None:
            try:
                await self._publish(outgoing)
            except Exception as error:  # noqa: BLE001 - counted, and logged once
                self._lose(1)
                self._report(str(error), None if isinstance(error, SSEError) else error)
            else:
                self._report(f"more than {MAX_EVENTS} events or {MAX_BYTES} bytes were waiting")
                if not self._waiting:
                    self._losing = self._reported = False
        self._idle.set()

    def _next(self) -> Outgoing | None:
        with self._lock:
            if not self._waiting:
                self._task = None
                self._awake = False
                self._bytes = 0
                return None
            outgoing = self._waiting.popleft()
            self._bytes -= len(outgoing.event.encode())
            return outgoing

    def _lose(self, count: int) -> None:
        with self._lock:
            self._tally.unpublished += count
            self._losing = True

    def _report(self, why: str, error: Exception | None = None) -> None:
        """Log that events were lost, once until everything that waited is published again.

        The line may itself come back as an event, where the application publishes its log.
        """
        if not self._losing or self._reported:
            return
        self._reported = True
        with suppress(Exception):  # a handler's, which must not keep the next event from being published
            logger.warning(
                "events of publish_soon were lost, and hub.stats() counts them as unpublished: %s", why, exc_info=error
            )

    async def close(self, patience: float) -> None:
        """Publish what waits, for so many seconds at most; count the rest, and refuse what comes from now on."""
        try:
            with anyio.move_on_after(patience, shield=True):
                while self._awake:
                    await self._idle
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            self._closed = True
            lost = len(self._waiting) + (self._task is not None)
            self._waiting.clear()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
        if lost:
            self._lose(lost)
            self._report("the hub was closed")
