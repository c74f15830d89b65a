"""Runs: those that this process produces, and the upkeep of all runs of the log.

One task of each process renews the leases of its runs, three times in a lease. It also ends the runs of processes whose
leases have run out. So the readers of a run learn within a lease and a third that its process is gone.

`cancel` ends a run in the log, in one step, also if another process produces it. The order to stop the source then
travels on the library's own channel, like those of `hub.disconnect`. If the order is lost, the source stops at its next
append, or when its lease is next renewed.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any

import anyio

from .._log.event import ServerSentEvent
from .._log.logged import about, one_line
from .._log.run import RUNNING, RunRecord, RunState, followers_channel
from .._loop.iterators import close_unused
from .._loop.tasks import Child, spawn
from .._loop.timer import shared_timer
from .._loop.wakeup import Wakeup, new_wakeup
from ..backends.base import Backend
from ..exceptions import HubClosedError, RunConflictError, RunLimitError, SSEError
from .orders import Orders
from .producer import Producer
from .registry import CONTROL, Registry
from .run_options import RunTerms, Source, SourceOrFunction, source_of

logger = logging.getLogger("sse_asgi.hub")

BEATS = 3
START_SECONDS = 5.0
END_SECONDS = 1.0
CLOSE_SECONDS = 5.0
CANCEL = "cancel"  # the type of an order


class Runs:
    """The runs of one hub in this process."""

    def __init__(self, backend: Backend, registry: Registry, orders: Orders, *, limit: int, lease: float) -> None:
        """Begin without runs.

        Args:
            backend: Keeps the runs.
            registry: Knows the readers.
            orders: Receives the orders to cancel.
            limit: The most runs that this process produces at once.
            lease: Seconds after which the runs of a silent process are lost.
        """
        self._backend = backend
        self._registry = registry
        self._orders = orders
        self._limit = limit
        self._lease = lease
        self._producers: dict[str, Producer] = {}  # by owner
        self._starting: dict[str, str] = {}  # the keys, by owner
        self._cancelled_early: set[str] = set()  # of these owners
        self._upkeep: Child | None = None
        self._closed = False
        self._waiting: list[Wakeup] = []
        orders.obey[CANCEL] = self._obey

    @property
    def running(self) -> int:
        """How many runs this process produces, those included whose sources clean up."""
        return len(self._producers)

    def producer(self, owner: str) -> Producer | None:
        """Return the producer of a run, if it is in this process."""
        return self._producers.get(owner)

    async def get(self, key: str) -> RunRecord | None:
        """Return the record of a run, or None."""
        self._keep_up()
        return await self.look_up(key)

    async def look_up(self, key: str) -> RunRecord | None:
        """Return the record of a run, or None; also while the hub is closed."""
        return await self._backend.get_run(key)

    async def start(
        self, key: str, source: SourceOrFunction, terms: RunTerms, fingerprint: str | None
    ) -> tuple[RunRecord, bool]:
        """Begin a run, or find the one that has this key.

        Args:
            key: The key.
            source: The source, or a function that returns it, which is called only if the run begins here.
            terms: The options.
            fingerprint: What the run is started for; None takes any run with this key.

        Returns:
            The record, and True if the run began here.

        Raises:
            RunConflictError: The run that has this key has another fingerprint.
            RunLimitError: This process has too many runs.
        """
        self._keep_up()
        self._orders.start()  # before the run is there, so that no order to cancel it is missed
        owner = secrets.token_hex(8)
        try:
            record = await self._begin(key, owner, terms, fingerprint or "")
            cancelled = owner in self._cancelled_early
        finally:
            self._cancelled_early.discard(owner)
        if record.owner == owner:
            try:
                self._keep_up()  # the hub may have been closed meanwhile
                made = source_of(source)
            except BaseException:
                await self._backend.end_run(key, "failed", owner=owner, ttl=terms.ttl)
                raise
            producer = self._produce(record, made, terms)
            if cancelled:
                await self._learn(producer)
        elif not callable(source):
            await close_unused(source)
        if fingerprint is not None and record.fingerprint != fingerprint:
            msg = f"the run {key!r} was started with another fingerprint: answer 409, or choose a key of its own"
            raise RunConflictError(msg)
        return record, record.owner == owner

    async def _begin(self, key: str, owner: str, terms: RunTerms, fingerprint: str) -> RunRecord:
        if len(self._producers) + len(self._starting) >= self._limit:
            record = await self._backend.get_run(key)
            if record is None:
                msg = f"this process has {self._limit} runs already: let some end, or give Hub a larger max_runs="
                raise RunLimitError(msg)
            return record
        self._starting[owner] = key
        try:
            with anyio.fail_after(START_SECONDS, shield=True):  # else a run could begin without a source
                return await self._backend.start_run(
                    key, owner, lease=self._lease, ttl=terms.ttl, fingerprint=fingerprint
                )
        finally:
            del self._starting[owner]

    def _produce(self, record: RunRecord, source: Source, terms: RunTerms) -> Producer:
        producer = self._producers[record.owner] = Producer(self._backend, record, terms)
        producer.begin(source, lambda: self._gone(record.owner))
        if terms.orphan_timeout is not None:
            spawn(lambda: self._watch(producer, terms.orphan_timeout or 0.0), context=Context())
        return producer

    def _gone(self, owner: str) -> None:
        self._registry.tally.runs[self._producers.pop(owner).record.state] += 1
        for wakeup in self._waiting:
            wakeup.set()

    async def cancel(self, key: str) -> bool:
        """End a run, and stop its source, in any process; return True if the run was running."""
        self._keep_up()
        ended = await self._backend.end_run(key, "cancelled")
        if ended and not self._stop(key, "cancelled"):
            order = ServerSentEvent({"run": key}, event=CANCEL)
            await self._backend.publish((CONTROL,), order, key=None, idempotency_key=None)
        return ended

    def _stop(self, key: str, state: RunState, reason: str = "") -> bool:
        """Stop the source of a run that has ended in the log; return True if it is in this process."""
        found = [one for one in self._producers.values() if one.record.key == key and one.record.state == RUNNING]
        for producer in found:
            producer.stop(state, reason)
        return bool(found)

    def _obey(self, order: Mapping[str, Any]) -> None:
        key = str(order["run"])
        self._stop(key, "cancelled")
        # The order may come before the reply to the start.
        self._cancelled_early.update(owner for owner, started in self._starting.items() if started == key)

    # Followers

    async def followers(self, key: str) -> int:
        """Return how many readers of a run are listed, in all processes."""
        return len(await self._registry.presence.present(followers_channel(key)))

    async def _watch(self, producer: Producer, patience: float) -> None:
        """Cancel a run that nobody has followed for `patience` seconds."""
        timer = shared_timer()
        followed = timer.now()
        while producer.record.state == RUNNING and not self._closed:
            await timer.sleep(min(patience / 4, self._lease / BEATS))
            try:
                if await self.followers(producer.record.key):
                    followed = timer.now()
            except SSEError:  # not known
                followed = timer.now()
            if timer.now() - followed >= patience and not self._closed:
                await self._end(producer, "cancelled", "orphan")

    async def _end(self, producer: Producer, state: RunState, reason: str) -> None:
        record = producer.record
        if await self._backend.end_run(record.key, state, reason=reason, owner=record.owner, ttl=producer.terms.ttl):
            logger.info("the run %s was ended: %s (%s)", one_line(record.key), state, reason, extra=about("run_ended"))
            producer.stop(state, reason)

    # Upkeep

    def _keep_up(self) -> None:
        if self._closed:
            what = "cannot use runs"
            raise HubClosedError(what)
        if self._upkeep is None:
            self._upkeep = spawn(self._tend, context=Context())  # empty: the task outlives the request that starts it

    async def _tend(self) -> None:
        failed, timer = False, shared_timer()
        while True:
            await timer.sleep(self._lease / BEATS)
            try:
                await self._renew()
                failed = False
            except Exception as error:
                if not failed:
                    unknown = not isinstance(error, SSEError)
                    logger.warning(
                        "renewing the leases of runs failed, will retry: %s",
                        error,
                        exc_info=unknown,
                        extra=about("run_renewal_failed"),
                    )
                failed = True

    async def _renew(self) -> None:
        """Renew the leases of our runs, and stop the sources of those that are not ours any more."""
        mine = {one.record.key: one for one in self._producers.values() if one.record.state == RUNNING}
        owners = [(key, producer.record.owner) for key, producer in mine.items()]
        for key in await self._backend.renew_runs(owners, lease=self._lease):
            await self._learn(mine[key])

    async def _learn(self, producer: Producer) -> None:
        """Stop the source of a run that is not ours any more."""
        key = producer.record.key
        record = await self._backend.get_run(key)
        if record is None or record.owner != producer.record.owner:
            logger.error("the log has lost the run %s: its source was stopped", one_line(key), extra=about("run_lost"))
            if record is None:  # its followers are told now, not at the next append
                await self._end(producer, "lost", "log")
            producer.stop("lost", "log")
        elif record.state in ("cancelled", "lost"):  # else its own end is on the way
            logger.warning(
                "the run %s has ended elsewhere (%s): its source was stopped",
                one_line(key),
                record.state,
                extra=about("run_ended_elsewhere"),
            )
            producer.stop(record.state, record.reason)

    # The end

    async def wait(self, seconds: float) -> None:
        """Wait until no run is left in this process, for `seconds` at most."""
        with anyio.move_on_after(seconds):
            await self._wait(lambda: bool(self._producers))

    async def wait_for(self, owner: str) -> None:
        """Wait until a run has ended that this process produces, and its source has cleaned up."""
        await self._wait(lambda: owner in self._producers)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        wakeup = new_wakeup()
        self._waiting.append(wakeup)
        try:
            while condition():
                await wakeup
        finally:
            self._waiting.remove(wakeup)

    async def close(self) -> None:
        """End the runs of this process as lost, stop their sources, and wait until they have cleaned up."""
        self._closed = True
        if self._upkeep is not None:
            self._upkeep.cancel()
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as tasks:
                for producer in self._producers.values():
                    tasks.start_soon(self._abandon, producer)
            await self.wait(CLOSE_SECONDS)

    async def _abandon(self, producer: Producer) -> None:
        """End a run as lost, and stop its source, also if the backend is away."""
        key = one_line(producer.record.key)
        if producer.record.state == RUNNING:
            logger.warning("the run %s is lost: its hub was closed", key, extra=about("run_lost"))
            try:
                with anyio.fail_after(END_SECONDS):
                    await self._end(producer, "lost", "shutdown")
            except (SSEError, TimeoutError) as error:
                logger.warning(
                    "the run %s ends with its lease: %s",
                    key,
                    str(error) or "the backend is away",
                    extra=about("run_not_stored"),
                )
        producer.stop("lost", "shutdown")
