"""Run: what an application holds of a run, to follow it or to look at its state."""

import json
import secrets

from .._log.event import Entry, History
from .._log.names import END
from .._log.position import Position
from .._log.run import RUNNING, RunRecord, RunState, end_event, run_channel
from .._loop.wakeup import Signal
from .options import Options
from .runs import Runs
from .source import Source
from .subscription import Subscription
from .view import is_last


class Run:
    """A finite stream that outlives its request: return `EventSourceResponse(run)` to each client that follows it.

    Attributes:
        key: The key that it was started with. A key is not a credential, so authorize each request that follows a run.
        started: Whether this call of `start_run` started it; False if it was there already.
    """

    __slots__ = ("_options", "_producer", "_record", "_runs", "_source", "key", "started")

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
        self.key: str = record.key
        self.started: bool = started
        self._source = source
        self._record = record
        self._options = options
        self._runs = runs
        self._producer = runs.producer(record.owner)

    @property
    def state(self) -> RunState:
        """`running`, `finished`, `failed`, `cancelled` or `lost`, when it was looked up; now, if it runs here."""
        return self._latest().state

    @property
    def reason(self) -> str:
        """Why it ended, where the state does not say it; else empty.

        `max_events` or `max_bytes` (failed), `orphan` (cancelled), `lease`, `shutdown` or `log` (lost).
        """
        return self._latest().reason

    def _latest(self) -> RunRecord:
        return self._record if self._producer is None else self._producer.record

    def follow(self, last_event_id: str | None = None) -> "RunSubscription":
        """Prepare to read its events: first those that are kept, then live ones, and last `sse.end`.

        EventSourceResponse(run) does this by itself.

        Args:
            last_event_id: The id to go on after. None is the request's own in an EventSourceResponse, and elsewhere the
                beginning. `""` is always the beginning.
        """
        return RunSubscription(self, self._source, last_event_id, self._options)

    async def wait(self) -> RunState:
        """Wait until the run has ended, in any process, and return its state.

        Raises:
            RuntimeError: Another event loop than the hub's runs here.
        """
        if self._producer is not None:
            await self._runs.wait_for(self._record.owner)
            return self.state
        state: RunState = self._record.state
        if state == RUNNING:
            async with self.follow(str(self._record.last)) as subscription:
                async for event in subscription:
                    if event.event == END:
                        state = json.loads(event.data or "")["state"]
        return state

    async def followers(self) -> int:
        """Return how many readers follow it, in all processes; one that has left counts for `presence_grace` more.

        Raises:
            NotImplementedError: The backend does not support presence.
            BackendError: The backend did not answer within five seconds.
        """
        return await self._runs.followers(self.key)

    async def look_up(self) -> RunRecord | None:
        """Return its record as it is now; None if the log does not have this run any more."""
        record = await self._runs.look_up(self.key)
        return record if record is not None and record.owner == self._record.owner else None

    def resume_after(self, last_event_id: str | None) -> str:
        """Return the id after which a reader with this Last-Event-ID goes on."""
        begin = self._record.begin
        position = Position.parse(last_event_id or "")
        if not last_event_id or (position and position.epoch == begin.epoch and position < begin):
            return str(begin)
        return last_event_id

    def is_over(self, last_event_id: str | None) -> bool:
        """Return True if a reader with this Last-Event-ID has seen the end, as far as it was known at the look-up."""
        record = self._record
        position = Position.parse(last_event_id or "")
        return (
            record.state != RUNNING
            and position is not None
            and position.epoch == record.last.epoch
            and position >= record.last
        )


class RunSubscription(Subscription):
    """A reader of one run: it begins with the first event, unless it resumes, and ends after the last one.

    Attributes:
        run: The run.
    """

    __slots__ = ("run",)

    def __init__(self, run: Run, source: Source, last_event_id: str | None, options: Options) -> None:
        """Prepare to read; nothing happens before it is entered."""
        if options.presence:
            options = options._replace(identity=secrets.token_hex(8))  # each reader counts
        super().__init__(source, (run_channel(run.key),), last_event_id, options)
        self.run: Run = run

    def attach(self, news: Signal) -> None:
        """Claim the subscription for one task; see Subscription."""
        self.last_event_id: str | None = self.run.resume_after(self.last_event_id)
        super().attach(news)

    async def _history(self, upto: Position) -> History:
        """Read one page. Add the end to the last page if the log lacks it, because no later event would bring it."""
        page = await super()._history(upto)
        record = await self.run.look_up()  # after the page, so that the page is of this run if the record is
        if record is None:  # lost with the log, or forgotten; the page may be of a later run with this key
            return page._replace(entries=(Entry(end_event("lost", "log")),), next=None)
        has_end = bool(page.entries) and is_last(page.entries[-1].frame, self.options)
        is_behind = record.state != RUNNING and record.last.epoch == upto.epoch and record.last <= upto
        if page.next is None and is_behind and not has_end:
            return page._replace(entries=(*page.entries, Entry(end_event(record.state, record.reason))))
        return page
