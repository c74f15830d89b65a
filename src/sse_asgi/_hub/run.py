"""Run: what an application holds of a run, to follow it or to look at its state."""

import secrets

from .._log.position import Position
from .._log.run import RUNNING, RunRecord, RunState, run_channel
from .options import Options
from .runs import Runs
from .source import Source
from .subscription import Subscription


class Run:
    """A finite stream that outlives its request: return `EventSourceResponse(run)` to whoever follows it.

    Attributes:
        key: The key that it was started with. It is no credential: authorize each request that follows a run.
        started: Whether this call of `start_run` started it; False if it was there already.
    """

    __slots__ = ("_options", "_record", "_runs", "_source", "key", "started")

    def __init__(
        self,
        source: Source,
        runs: Runs,
        record: RunRecord,
        options: Options,
        *,
        started: bool,
    ) -> None:
        """Made by `Hub.start_run` and `Hub.get_run`."""
        self.key = record.key
        self.started = started
        self._source = source
        self._record = record
        self._options = options
        self._runs = runs

    @property
    def state(self) -> RunState:
        """`running`, `finished`, `failed`, `cancelled` or `lost`, when it was looked up; now, if it runs here."""
        return self.record.state

    @property
    def reason(self) -> str:
        """Why it ended, where the state does not say it; else empty.

        `max_events` or `max_bytes` (failed), `orphan` (cancelled), `lease`, `shutdown` or `log` (lost).
        """
        return self.record.reason

    @property
    def record(self) -> RunRecord:
        """What the log knows of it."""
        return self._runs.latest(self._record)

    def follow(self, last_event_id: str | None = None) -> Subscription:
        """Prepare to read its events: first those that are kept, then live ones, and last `sse.end`.

        EventSourceResponse(run) does this with the request's own Last-Event-ID.

        Args:
            last_event_id: The id to go on after. None and `""` begin with the first event.
        """
        identity = secrets.token_hex(8) if self._options.presence else None
        options = self._options._replace(identity=identity)
        return Subscription(self._source, (run_channel(self.key),), self.resume_after(last_event_id), options)

    async def followers(self) -> int:
        """Return how many readers follow it, in all processes; one that has left counts for `presence_grace` more.

        Raises:
            NotImplementedError: The backend does not support presence.
            BackendError: The backend did not answer within five seconds.
        """
        return await self._runs.followers(self.key)

    def resume_after(self, last_event_id: str | None) -> str:
        """Return the id after which a reader with this Last-Event-ID goes on."""
        begin = self._record.begin
        position = Position.parse(last_event_id or "")
        if not last_event_id or (position and position.epoch == begin.epoch and position < begin):
            return str(begin)
        return last_event_id

    def is_over(self, last_event_id: str | None) -> bool:
        """Return True if a reader with this Last-Event-ID has seen the end."""
        record = self.record
        position = Position.parse(last_event_id or "")
        return (
            record.state != RUNNING
            and position is not None
            and position.epoch == record.last.epoch
            and position >= record.last
        )
