"""Producer: runs the source of one run in this process, from its first event to its end."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import anyio

from .._log.event import ServerSentEvent, as_published
from .._log.logged import about, one_line
from .._log.run import RUNNING, RunRecord, RunState
from .._loop.iterators import async_iterator, close_iterator
from .._loop.running import checkpoint
from .._loop.tasks import Child, spawn
from .._loop.timer import Alarm, shared_timer
from .._loop.turn import current_turn
from ..backends.base import Backend
from ..exceptions import SSEError
from .appender import Appender, OwnershipLostError
from .options import check_type
from .run_options import RunTerms, Source

logger = logging.getLogger("sse_asgi.hub")

TURN_SECONDS = 0.001  # a source that never waits lets the event loop turn so often
CLEANUP_SECONDS = 5.0


class _BoundError(Exception):
    """The source has yielded more than the run may have; the message names the option."""


class Producer:
    """Iterates over the source in a task of its own, and appends its events.

    The source decides how the run ends, unless the run is ended before, by `cancel_run` or a lost lease. Then `stop`
    cancels the task once, so that awaits in the source's `finally` work.

    Attributes:
        record: The last known record of the run.
        terms: The options of the run.
    """

    __slots__ = ("_appender", "_backend", "_bytes", "_done", "_patience", "_stopped", "_task", "record", "terms")

    def __init__(self, backend: Backend, record: RunRecord, terms: RunTerms) -> None:
        """Prepare to produce a run that was started in the log."""
        self.record: RunRecord = record
        self._backend = backend
        self.terms: RunTerms = terms
        self._appender = Appender(backend, record)
        self._bytes = 0
        self._stopped = False
        self._task: Child | None = None
        self._patience = Alarm()
        self._done: Callable[[], None]

    def begin(self, source: Source, done: Callable[[], None]) -> None:
        """Start the source.

        Args:
            source: Iterated once, and closed.
            done: Called when the source has ended and cleaned up.
        """
        self._done = done
        self._task = spawn(lambda: self._run(source), self._ended)

    def stop(self, state: RunState, reason: str = "") -> None:
        """Stop the source of a run that the log knows to have ended."""
        self._know(state, reason)
        if not self._stopped and self._task is not None:
            self._stopped = True
            self._patience = shared_timer().after(CLEANUP_SECONDS, self._insist)
            self._task.cancel()
            self._appender.stop()

    def _know(self, state: RunState, reason: str) -> None:
        if self.record.state == RUNNING:
            self.record = self.record._replace(state=state, reason=reason)

    def _insist(self) -> None:
        logger.warning(
            "the source of the run %r took more than %s s to clean up",
            self.record.key,
            CLEANUP_SECONDS,
            extra=about("run_cleanup_timed_out"),
        )
        assert self._task is not None  # the alarm is cancelled when the task has ended
        self._task.cancel()

    def _ended(self) -> None:
        self._patience.cancel()
        self._task = None
        self._done()

    async def _run(self, source: Source) -> None:
        key = one_line(self.record.key)
        state: RunState = "failed"
        reason, patience = "", math.inf
        try:
            await self._produce(source)
            state = "finished"
        except _BoundError as error:
            reason = str(error)
            _beyond(key, reason)
        except OwnershipLostError:
            await self._give_up()
        except Exception:
            told = "failed while it was cleaned up" if self._stopped else "failed"
            logger.exception("the source of the run %s %s", key, told, extra=about("run_failed"))
        except BaseException:
            if not self._stopped:  # from within, or the event loop ends
                logger.exception("the source of the run %s was cancelled", key, extra=about("run_failed"))
                patience = CLEANUP_SECONDS
        self._patience.cancel()
        if not self._stopped:
            with anyio.move_on_after(patience, shield=True):
                await self._end(state, reason)

    async def _produce(self, source: Source) -> None:
        iterator = async_iterator(source)
        turn = current_turn()
        looked, seen = time.monotonic(), turn.mark()
        try:
            async for item in iterator:
                if self._stopped:  # it yields while it is cleaned up
                    return
                if item is not None:
                    await self._put(item)
                if item is None or time.monotonic() - looked > TURN_SECONDS:
                    if item is None or turn.number == seen:  # a source that waits lets the event loop turn by itself
                        await checkpoint()
                    looked, seen = time.monotonic(), turn.mark()
        finally:
            await close_iterator(iterator)

    async def _put(self, item: Any) -> None:
        event = as_published(item, None, None)
        if not isinstance(event, ServerSentEvent):
            msg = f"the source of a run must yield events or data (got the function {item!r}): yield what it returns"
            raise TypeError(msg)
        check_type(event.event)
        self._bytes += len(event.encode())
        if self._appender.appended >= self.terms.max_events:
            bound = "max_events"
            raise _BoundError(bound)
        if self._bytes > self.terms.max_bytes:
            bound = "max_bytes"
            raise _BoundError(bound)
        await self._appender.put(event)

    async def _end(self, state: RunState, reason: str) -> None:
        """Append what waits, and end the run."""
        key, owner, appended = self.record.key, self.record.owner, None
        try:
            await self._appender.flush()
            appended = self._appender.appended
        except OwnershipLostError:
            await self._give_up()
            return
        except SSEError as error:
            _not_stored("the last events", key, error)
            state, reason = "failed", ""
        try:
            ended = await self._backend.end_run(
                key, state, reason=reason, owner=owner, appended=appended, ttl=self.terms.ttl
            )
        except SSEError as error:
            _not_stored("the end", key, error)
        else:
            if not ended:
                await self._give_up()
        self._know(state, reason)

    async def _give_up(self) -> None:
        """Stop, because the run is not ours any more; if the log has lost events of it, end it as lost."""
        self._stopped = True
        try:
            await self._learn_end()
        except SSEError as error:
            _not_stored("the end", self.record.key, error)
            self._know("lost", "log")

    async def _learn_end(self) -> None:
        record, key = await self._backend.get_run(self.record.key), one_line(self.record.key)
        if record is not None and (record.owner != self.record.owner or record.state != RUNNING):
            logger.warning(
                "the run %s has ended elsewhere (%s): its source was stopped",
                key,
                record.state,
                extra=about("run_ended_elsewhere"),
            )
            ours = record.owner == self.record.owner
            self._know(*((record.state, record.reason) if ours else ("lost", "log")))
            return
        logger.error("the log has lost events of the run %s: it has ended as lost", key, extra=about("run_lost"))
        owner, ttl = self.record.owner, self.terms.ttl
        await self._backend.end_run(self.record.key, "lost", reason="log", owner=owner, ttl=ttl)
        self._know("lost", "log")


def _beyond(key: str, bound: str) -> None:
    told = "the run %s failed: its source has yielded more than its %s allows"
    logger.error(told, key, bound, extra=about("run_failed"))


def _not_stored(what: str, key: str, error: SSEError) -> None:
    logger.error("%s of the run %s could not be stored: %s", what, one_line(key), error, extra=about("run_not_stored"))
