"""Appender: stores the events of one run in the order of the source, and stops at the end of the ownership.

In the memory backend an append does not wait, so `put` appends each event itself. With any other backend a task
appends. The events that the source yields meanwhile are joined into the next append. `put` waits while WAITING events
or WAITING_BYTES wait, as they do when the backend is away.
"""

from collections.abc import Awaitable, Callable

from .._log.event import ServerSentEvent
from .._log.run import RUNNING, RunRecord
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from ..backends.base import Backend

WAITING = 256
WAITING_BYTES = 256 * 1024


class OwnershipLostError(Exception):
    """The run has ended elsewhere, or the log has lost it: nothing can be appended any more."""


class Appender:
    """Appends events to one run."""

    __slots__ = ("_backend", "_error", "_news", "_owned", "_pending", "_size", "_task")

    def __init__(self, backend: Backend, record: RunRecord) -> None:
        """Append behind a new run's beginning.

        Args:
            backend: Keeps the run.
            record: The record of the run. Its owner is the one that appends.
        """
        self._owned = record
        self._backend = backend
        self._pending: list[ServerSentEvent] = []
        self._size = 0
        self._task: Child | None = None
        self._error: Exception | None = None
        self._news = new_wakeup()

    @property
    def appended(self) -> int:
        """How many events were given: those that are stored, and those that wait."""
        return self._owned.appended + len(self._pending)

    def put(self, event: ServerSentEvent) -> Awaitable[None]:
        """Append an event, now or soon, while this is awaited.

        Raises:
            OwnershipLostError: The run is not ours any more.
            BackendError: The backend has refused this event or one before it.
        """
        return self._append([event]) if self._backend.in_process else self._append_soon(event)

    async def _append_soon(self, event: ServerSentEvent) -> None:
        self._pending.append(event)
        self._size += len(event.encode())
        self._start()
        await self._wait(lambda: len(self._pending) >= WAITING or self._size >= WAITING_BYTES)

    async def flush(self) -> None:
        """Wait until all events are stored; raises what `put` raises."""
        await self._wait(lambda: bool(self._pending))

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while self._error is None and condition():
            self._start()
            await self._news
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Append nothing more, because the run has ended."""
        if self._task is not None:
            self._task.cancel()

    def _start(self) -> None:
        if self._task is None and self._error is None:
            self._task = spawn(self._append_in_task, self._news.set)

    async def _append_in_task(self) -> None:
        try:
            while events := self._pending[:WAITING]:
                await self._append(events)
                del self._pending[: len(events)]
                self._size = sum(len(event.encode()) for event in self._pending)
                self._news.set()
        except Exception as error:  # noqa: BLE001 - raised in the source's task
            self._error = error
        finally:
            self._task = None

    async def _append(self, events: list[ServerSentEvent]) -> None:
        """Append events in one call."""
        owned = self._owned
        record = await self._backend.append_run(owned.key, owned.owner, owned.appended, events)
        wanted = owned.appended + len(events)
        if record is None or record.appended != wanted or record.owner != owned.owner or record.state != RUNNING:
            raise OwnershipLostError
        self._owned = record
