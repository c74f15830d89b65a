"""Runs in Redis: each transition of `_log/run.py` is one script."""

import asyncio
import secrets
import time
from collections.abc import Collection, Coroutine, Sequence
from typing import Any, NamedTuple, cast, get_args

from ..._log.event import ServerSentEvent
from ..._log.position import Position, new_epoch
from ..._log.run import RunRecord, RunState, end_event, run_channel
from ...exceptions import BackendError
from ._keeper import SessionKeeper
from ._link import LinkLostError
from ._message import payload
from ._resp import Argument
from ._scripts import Script, Storage
from ._session import CLOCK_WAS_SET, Session

STATES = get_args(RunState)
FIELDS = ("s", "o", "f", "b", "l", "n", "r")


class Via(NamedTuple):
    """The session that carries a call, and its keeper."""

    keeper: SessionKeeper
    session: Session


class RunStore:
    """The runs of one hub. Every call may be repeated."""

    def __init__(self, storage: Storage) -> None:
        """Keep the runs in this log."""
        self._storage = storage
        self._scripts = storage.scripts

    async def start(
        self,
        via: Via,
        key: str,
        owner: str,
        *,
        lease: float,
        ttl: float,
        fingerprint: str,
        deadline: float,
    ) -> RunRecord:
        """Begin a run before `deadline`, on the monotonic clock, unless there is one; return the record.

        Raises:
            BackendError: It is too late.
            LinkLostError: The session has ended; also if the clock of Redis was set, which the next session reads anew.
        """
        latest = f"{deadline + via.keeper.inbox.clock:.3f}"
        arguments: list[Argument] = [key, owner, fingerprint, str(lease), _milliseconds(ttl), latest]
        reply = await self._run(self._scripts.start_run, via, key, arguments)
        if reply is None and time.monotonic() < deadline:
            via.session.fail(CLOCK_WAS_SET)
            raise LinkLostError(CLOCK_WAS_SET)
        if reply is None:
            msg = "Redis has answered too late, and the run was not begun"
            raise BackendError(msg)
        record = _record(key, reply)
        via.keeper.acknowledge(via.session, record.last)
        return record

    async def append(
        self,
        via: Via,
        key: str,
        owner: str,
        after: int,
        events: Sequence[ServerSentEvent],
    ) -> RunRecord | None:
        """Append events, if the caller is the owner; return the record.

        Raises:
            BackendError: Redis refused to announce the events.
        """
        channels = (run_channel(key),)
        arguments: list[Argument] = [key, via.session.verbs[0], owner, after]
        arguments += [payload(event, channels, None) for event in events]
        reply = await self._run(self._scripts.append_run, via, key, arguments)
        if reply is None:
            return None
        record = _record(key, reply)
        via.keeper.acknowledge(via.session, record.last)
        if reply[8:]:
            msg = f"Redis stored events of the run, and refused to announce them: {reply[8].decode(errors='replace')}"
            raise BackendError(msg)
        return record

    async def end(
        self,
        via: Via,
        key: str,
        state: RunState,
        reason: str,
        *,
        owner: str | None,
        appended: int | None,
        ttl: float,
        call: str,
    ) -> bool:
        """End a run; return True if this call, which may be repeated, has ended it."""
        last = payload(end_event(state, reason), (run_channel(key),), None)
        arguments: list[Argument] = [
            key,
            via.session.verbs[0],
            state,
            reason,
            last,
            owner or "",
            _milliseconds(ttl),
            call,
            "" if appended is None else appended,
        ]
        return bool(await self._run(self._scripts.end_run, via, key, arguments))

    async def get(self, session: Session, key: str) -> RunRecord | None:
        """Return a record, or None."""
        keys, link = self._storage.keys, session.server.link
        epoch, fields = await asyncio.gather(
            link.call("HGET", keys.meta, "e"), link.call("HMGET", keys.run(key), *FIELDS)
        )
        return None if fields[0] is None else _record(key, [epoch or b"", *fields])

    async def renew(self, via: Via, owners: Collection[tuple[str, str]], lease: float) -> list[str]:
        """Renew leases, end runs whose leases have run out, forget old ones; return the keys that are gone."""
        keys = self._storage.keys
        lost = payload(end_event("lost", "lease"), (), None)
        names, patience = [keys.meta, keys.index, keys.schedule], max(0.1, lease / 4)

        def renew(mine: list[str]) -> Coroutine[Any, Any, Any]:
            # After an outage every owner has the length of a lease to renew its own. Where Redis only stood still, the
            # renewals of all processes wait there, and none of them may end runs: it is late.
            latest = time.monotonic() + via.keeper.inbox.clock + patience if lease <= via.session.age else 0.0
            arguments: list[Argument] = [*_begin(via.keeper), via.session.verbs[0], str(lease), f"{latest:.3f}", lost]
            return self._scripts.renew_runs.run(via.session.server.link, names, [*arguments, *mine])

        sent = time.monotonic()
        more, gone = await renew([text for pair in owners for text in pair])
        while more and time.monotonic() - sent < patience:  # a process that had many runs is gone
            sent = time.monotonic()
            more, _ = await renew([])
        return [key.decode() for key in gone]

    async def _run(self, script: Script, via: Via, key: str, arguments: list[Argument]) -> Any:
        keys = self._storage.keys
        names = [keys.meta, keys.index, keys.run(key), keys.stream(run_channel(key)), keys.schedule]
        return await script.run(via.session.server.link, names, [*_begin(via.keeper), *arguments])


def _begin(keeper: SessionKeeper) -> list[Argument]:
    """Return an epoch for a log that has none, and the one that this process knows."""
    known = keeper.inbox.position
    return [new_epoch(), "" if known is None else known.epoch]


def new_call() -> str:
    """Return a name for a call that may be repeated."""
    return secrets.token_hex(8)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _record(key: str, reply: list[bytes]) -> RunRecord:
    epoch, state, owner, fingerprint, begin, last, appended, reason = (
        "" if value is None else value.decode(errors="replace") for value in reply[:8]
    )
    try:
        positions = Position(epoch, int(begin)), Position(epoch, int(last))
        return RunRecord(key, owner, _state(state), *positions, int(appended), fingerprint, reason)
    except ValueError as error:
        msg = f"what Redis has under the run {key!r} is not of this library: {reply}"
        raise BackendError(msg) from error


def _state(text: str) -> RunState:
    if text not in STATES:
        raise ValueError(text)
    return cast("RunState", text)
