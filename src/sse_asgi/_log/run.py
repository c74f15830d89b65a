"""Runs: finite streams that are produced once, kept in the log, and followed by any number of requests.

The state of a run is a record beside its events. Its events are on a channel of their own. The last of them is
`sse.end`, which names the state, so that everybody who reads the channel to its end learns how the run ended.

    running     The owner appends events, and its process renews the lease.
    finished    The source has ended.
    failed      The source has raised, or is beyond `max_events` or `max_bytes`.
    cancelled   `cancel_run` was called, or nobody followed for `orphan_timeout`.
    lost        The lease has run out, or the owner was shut down, or the log has lost events of the run.

    (none)  -> running      start_run: the first caller is the owner. Later callers get the record.
    running -> running      append_run, by the owner only; renew_runs, by its process
    running -> an end       end_run: by the owner, or by `cancel_run` of any process
    running -> lost         renew_runs of any process, when the lease has run out
    an end  -> (none)       `ttl` seconds later: the record and the events are forgotten

Each transition is one atomic step of the backend, together with its event. An end is final. So an owner that was
blocked for longer than its lease finds its run ended, and cannot append to it any more.

An owner says with each append, and with the end, how many events it has appended before. So a repeated append stores
nothing twice, and an append or an end after a loss of the log is refused: the run is lost then, and never looks whole.

A follower that has read to the end of the log without `sse.end` looks at the record. So it is told of a run that the
log has lost or forgotten, and does not wait for ever.
"""

from typing import Literal, NamedTuple

from .event import ServerSentEvent
from .names import END, RESERVED
from .position import Position

RunState = Literal["running", "finished", "failed", "cancelled", "lost"]
RUNNING: RunState = "running"
PREFIX = f"{RESERVED}run:"
FOLLOWERS = f"{RESERVED}followers:"


class RunRecord(NamedTuple):
    """What a log knows of a run.

    Attributes:
        key: The key of the run.
        owner: Names the one that produces it, anew for each run.
        state: See the head of this module.
        begin: The position before its first event.
        last: The position of its last event.
        appended: How many events the owner has appended; its end is not one of them.
        fingerprint: Tells what the run was started for; empty if that was not said.
        reason: Why it ended, where the state does not say it: `max_events`, `max_bytes`, `orphan`, `lease`, `shutdown`,
            `log`.
    """

    key: str
    owner: str
    state: RunState
    begin: Position
    last: Position
    appended: int = 0
    fingerprint: str = ""
    reason: str = ""


def run_channel(key: str) -> str:
    """Return the channel of a run's events."""
    return PREFIX + key


def followers_channel(key: str) -> str:
    """Return the channel on which the readers of a run are listed."""
    return FOLLOWERS + key


def end_event(state: RunState, reason: str) -> ServerSentEvent:
    """Return the last event of a run."""
    return ServerSentEvent({"state": state, "reason": reason} if reason else {"state": state}, event=END)
