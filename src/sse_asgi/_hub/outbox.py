"""Outbox: the bounded queue of `publish_soon`, which the hub's event loop publishes in order.

A full queue drops the newest event. The thread that adds an event never waits and never logs, because it may be inside
a logging.Handler, whose lock every log line needs. A loss is logged once, in the hub's event loop.
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
from .._log.logged import about
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from ..exceptions import CLOSED, HubClosedError, SSEError
from .home import Home
from .stats import Tally

logger = logging.getLogger("sse_asgi.hub")

MAX_EVENTS = 10_000
MAX_BYTES = 16 << 20


class Outgoing(NamedTuple):
    """A checked event to be published, with the checked options of `Hub.publish`."""

    channels: tuple[str, ...]
    event: ServerSentEvent | RenderedEvent
    key: str | None
    idempotency_key: str | None = None


class Outbox:
    """The queue of events of an open hub that wait to be published."""

    def __init__(self, home: Home, tally: Tally, publish: Callable[[Outgoing], Awaitable[object]]) -> None:
        """Start with an empty queue.

        Args:
            home: The hub's event loop.
            tally: Counts the events that could not be published.
            publish: Publishes one event.
        """
        self._home = home
        self._tally = tally
        self._publish = publish
        self._lock = threading.RLock()  # a signal handler may interrupt this thread, and publish as well
        self._waiting: deque[Outgoing] = deque()
        self._bytes = 0
        self._awake = self._closed = self._losing = self._reported = False
        self._task: Child | None = None
        self._idle = new_wakeup()

    def add(self, outgoing: Outgoing) -> None:
        """Queue an event, or count it as lost if too many wait. It works in every thread.

        Raises:
            HubClosedError: The hub was closed.
            RuntimeError: This process is a fork of the process that opened the hub.
        """
        self._home.check_process()  # before the lock: a thread of the parent process may have held it at the fork
        size = len(outgoing.event.encode())
        with self._lock:
            if self._closed:
                what = "cannot publish"
                raise HubClosedError(what, CLOSED)
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
                self._tally.unpublished += len(self._waiting) - 1  # the caller gets an error for its own event
                self._waiting.clear()
            raise

    # In the hub's event loop

    def _begin(self) -> None:
        self._task = spawn(self._run, context=Context())  # empty: the task outlives the request that starts it

    async def _run(self) -> None:
        while (outgoing := self._next()) is not None:
            try:
                await self._publish(outgoing)
            except Exception as error:  # noqa: BLE001 - the event is counted as lost, and logged once
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
        """Log that events were lost, once until the queue is empty again.

        If the application publishes its log, this line becomes an event itself.
        """
        if not self._losing or self._reported:
            return
        self._reported = True
        with suppress(Exception):  # an error of a log handler must not stop the queue
            told = "publish_soon lost events, which hub.stats() counts as unpublished: %s"
            logger.warning(told, why, exc_info=error, extra=about("events_unpublished"))

    async def close(self, patience: float) -> None:
        """Publish the queued events, for `patience` seconds at most; count the rest as lost, and refuse new events."""
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
