"""The table of runs in memory: each transition of a run, and what it does to the memory."""

from typing import Any

import pytest

from sse_asgi import BackendError, ServerSentEvent
from sse_asgi._log.position import Position
from sse_asgi._log.run import RunRecord
from sse_asgi.backends._runs import RunTable
from sse_asgi.backends._shelf import RECORD_BYTES, Bounds, Shelf

EVENT = ServerSentEvent("x")
SIZE = len(EVENT.encode()) + RECORD_BYTES
BEGIN = Position("00000000", 0)


class Log:
    """A table with a log of its own, in which each call has the time of `now`."""

    def __init__(self, bound: int = 10**6) -> None:
        self.now = 0.0
        self.last = 0
        self.events: list[str] = []
        self.others = Shelf(Bounds(100, 10**6, 10**6, 100))
        self.table = RunTable(self.store, self.others, bound)

    def store(self, shelf: Shelf, channels: tuple[str, ...], event: ServerSentEvent) -> Position:
        self.last += 1
        shelf.keep(self.last, self.now, event.encode(), channels, None)
        self.events.append(f"{channels[0]} {event.event or ''} {event.data}")
        return Position("00000000", self.last)

    def start(self, key: str = "a", owner: str = "me", ttl: float = 10) -> RunRecord:
        return self.table.start(key, owner, "print", BEGIN, now=self.now, lease=5, ttl=ttl)

    def append(self, after: int, events: int = 1, key: str = "a", owner: str = "me") -> RunRecord | None:
        return self.table.append(key, owner, after, [EVENT] * events, now=self.now)

    def end(self, state: Any = "finished", key: str = "a", owner: str | None = "me", reason: str = "") -> bool:
        return self.table.end(key, state, reason, owner, begin=BEGIN, now=self.now, ttl=10)

    def renew(self, *owners: tuple[str, str]) -> list[str]:
        return self.table.renew(owners, now=self.now, lease=5)

    def state(self, key: str = "a") -> str | None:
        record = self.table.get(key, self.now)
        return record and f"{record.state} {record.reason}".strip()


def test_whoever_comes_first_is_the_owner() -> None:
    log = Log()
    first = log.start()
    assert first == RunRecord("a", "me", "running", BEGIN, BEGIN, 0, "print")
    assert log.start(owner="you") == first
    assert log.append(0, owner="you") == first
    assert log.events == []


def test_the_owner_appends_in_order_and_once() -> None:
    log = Log()
    begun = log.start()
    assert log.append(0, 2) == begun._replace(appended=2, last=Position("00000000", 2))
    again = log.append(0, 2)  # as a call is repeated whose answer was lost
    assert again == log.append(3)  # as if the log had lost an event
    assert again is not None
    assert again.appended == 2
    assert log.events == ["sse.run:a  x"] * 2


@pytest.mark.parametrize("owner", ["me", None])
def test_a_run_ends_once_for_its_owner_or_for_anybody(owner: str | None) -> None:
    log = Log()
    log.start()
    assert not log.end(owner="you")
    assert log.end("failed", owner=owner, reason="max_bytes")
    assert not log.end("cancelled", owner=owner)
    assert log.state() == "failed max_bytes"
    assert log.events == ['sse.run:a sse.end {"state":"failed","reason":"max_bytes"}']
    ended = log.append(0)
    assert ended is not None
    assert ended.state == "failed"


def test_a_run_that_the_log_lost_is_ended_by_its_owner() -> None:
    log = Log()
    assert not log.end("cancelled", owner=None)
    assert log.append(0) is None
    assert log.end("lost", reason="log")
    assert log.state() == "lost log"


def test_a_run_is_lost_when_nobody_renews_its_lease() -> None:
    log = Log()
    log.start()
    log.start("b", "other")
    log.now = 4
    assert log.renew(("a", "me")) == []
    log.now = 5
    assert log.renew(("a", "me")) == []
    assert (log.state("a"), log.state("b")) == ("running", "lost lease")
    assert log.events == ['sse.run:b sse.end {"state":"lost","reason":"lease"}']


def test_an_owner_that_is_late_and_first_keeps_its_run() -> None:
    log = Log()
    log.start()
    log.now = 100
    assert log.renew(("a", "me")) == []
    assert log.state() == "running"


def test_the_runs_that_are_not_ours_are_told() -> None:
    log = Log()
    log.start()
    log.start("b", "other")
    log.start("c")
    log.end("cancelled", key="c")
    assert log.renew(("a", "me"), ("b", "me"), ("c", "me"), ("d", "me")) == ["b", "c", "d"]


def test_an_ended_run_is_forgotten_after_its_time() -> None:
    log = Log()
    log.start(ttl=10)
    log.append(0, 3)
    assert log.others.total == log.table.shelf.total == 3 * SIZE
    log.end()
    log.now = 9.9
    log.renew()
    assert log.state() == "finished"
    log.now = 10
    log.renew()
    assert log.state() is None
    assert log.others.total == log.table.shelf.total == 0
    assert log.start().state == "running"


def test_an_old_run_is_not_there_even_before_it_is_forgotten() -> None:
    log = Log()
    log.start()
    log.end()
    log.now = 10
    assert log.state() is None
    log.start(owner="you")
    assert log.state() == "running"


def test_the_oldest_ended_runs_make_room() -> None:
    """No more of them than it takes; and all of them before an append is refused."""
    log = Log(bound=5 * SIZE)
    for key in "abc":
        log.start(key)
        log.append(0, key=key)
    log.end(key="b")
    log.end(key="a")
    assert log.append(1, key="c") is not None
    assert [log.state(key) for key in "abc"] == ["finished", None, "running"]
    with pytest.raises(BackendError, match="total_bytes"):
        log.append(2, 4, key="c")
    assert [log.state(key) for key in "abc"] == [None, None, "running"]
    assert log.append(2, 3, key="c") is not None
