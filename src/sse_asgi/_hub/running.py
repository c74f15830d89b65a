"""RunningHub: the methods of a hub that start, find and cancel runs."""

from functools import partial

from .._log.names import END
from .._log.run import RunRecord, followers_channel
from ..backends.base import NO_PRESENCE, NO_RUNS, Backend
from .opening import OpenHub
from .options import Options
from .registry import Registry
from .run import Run
from .run_options import RunTerms, SourceOrFunction, check_run, check_run_key


class RunningHub(OpenHub):
    """A hub that can run sources which outlive their requests."""

    _defaults: Options

    async def start_run(
        self,
        key: str,
        source: SourceOrFunction,
        *,
        ttl: float = 3600.0,
        max_events: int = 10_000,
        max_bytes: int = 16 << 20,
        orphan_timeout: float | None = None,
        fingerprint: str | None = None,
    ) -> Run:
        """Run a source once, in a task of this hub, and keep its events for everybody who follows it.

        A second start with the same key returns the same run, also in another process, and after the run has ended.
        Return `EventSourceResponse(run)` to a client. Its disconnect does not stop the run; `cancel_run` does.

        Args:
            key: Names the run in all processes, such as `"chat:42"`, by the rules of a channel's name. It is not a
                credential.
            source: An async or sync generator function without arguments, or an iterable of what `publish` takes as
                data. None items are skipped. A sync one runs in a thread of its own.
            ttl: Seconds that the run is kept after its end. Then its key is free.
            max_events: The most events of the run. Beyond it the run fails.
            max_bytes: The most bytes of its events, as frames. Beyond it the run fails.
            orphan_timeout: Seconds after which a run that nobody follows is cancelled; None lets it go on.
            fingerprint: Tells what the run is for, such as a hash of the question. A run that has this key and another
                fingerprint is a RunConflictError.

        Raises:
            HubClosedError: The hub is not open.
            RunConflictError: The key has a run with another fingerprint.
            RunLimitError: This process has `max_runs` runs.
            ValueError: The key or a number is bad, or the backend keeps no history.
            TypeError: The source cannot be iterated.
            NotImplementedError: The backend does not support runs, or has no presence for `orphan_timeout`.
            BackendError: The backend did not answer within five seconds.
        """
        registry = self._with_runs("cannot start a run")
        terms = RunTerms(ttl, max_events, max_bytes, orphan_timeout, self._presence_seconds[0])
        check_run(key, source, terms, fingerprint)
        if orphan_timeout is not None and type(self.backend).attend is Backend.attend:
            raise NotImplementedError(NO_PRESENCE)

        async def start() -> Run:
            with self._patience("the run cannot be started"):
                record, started = await self._runs.start(key, source, terms, fingerprint)
            return self._run(registry, record, started=started)

        return await (start() if registry.home.is_here() else registry.home.run(start))

    async def get_run(self, key: str) -> Run | None:
        """Return a run of any process, or None: it was never started, or `ttl` is over.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: The key is bad.
            NotImplementedError: The backend does not support runs.
            BackendError: The backend did not answer within five seconds.
        """
        registry = self._with_runs("cannot get a run")
        if not registry.home.is_here():
            return await registry.home.run(partial(self.get_run, key))
        check_run_key(key)
        with self._patience("the run cannot be read"):
            record = await self._runs.get(key)
        return None if record is None else self._run(registry, record)

    async def cancel_run(self, key: str) -> bool:
        """End a run as cancelled, and stop its source, in any process.

        Its readers get its last event at once. What it has yielded so far stays readable for its `ttl`.

        Returns:
            True if it was running.

        Raises:
            HubClosedError: The hub is not open.
            ValueError: The key is bad.
            NotImplementedError: The backend does not support runs.
            BackendError: The backend did not answer within five seconds, so the run may be cancelled or not.
        """
        registry = self._with_runs("cannot cancel a run")
        if not registry.home.is_here():
            return await registry.home.run(partial(self.cancel_run, key))
        check_run_key(key)
        with self._patience("the run may be cancelled or not"):
            return await self._runs.cancel(key)

    async def wait_for_runs(self, seconds: float) -> None:
        """Wait until the runs that this process produces have ended, for `seconds` at most.

        EventSourceMiddleware does this for its `drain_timeout` before it closes the hub, which ends them as lost.

        Raises:
            HubClosedError: The hub is not open.
        """
        registry = self._opened("cannot wait for runs")
        if registry.home.is_here():
            await self._runs.wait(seconds)
        else:
            await registry.home.run(partial(self._runs.wait, seconds))

    def _with_runs(self, what: str) -> Registry:
        """Return the registry of an open hub whose backend supports runs."""
        registry = self._opened(what)
        if type(self.backend).start_run is Backend.start_run:
            raise NotImplementedError(NO_RUNS)
        if not self.backend.keeps_history:
            msg = "a run is kept in the history, and this backend keeps none: give it a history_size above 0"
            raise ValueError(msg)
        return registry

    def _run(self, registry: Registry, record: RunRecord, *, started: bool = False) -> Run:
        listed = () if type(self.backend).attend is Backend.attend else (followers_channel(record.key),)
        # The log has every event of a run, so that no rule needs to lose one.
        options = self._defaults._replace(position_frames=False, presence=listed, until=END, overflow="replay")
        return Run(registry, self._runs, record, options, started=started)
