"""The logs of many channels in memory: their records, and the records that they dropped."""

import itertools
from random import Random

import pytest

from sse_asgi import ServerSentEvent
from sse_asgi._log.event import RenderedEvent
from sse_asgi.backends import _shelf
from sse_asgi.backends._shelf import RECORD_BYTES, Bounds, Shelf, content_size

ROOM = Bounds(1000, 1 << 20, 1 << 30, 1000)


class Log:
    """A shelf to which events are published, each with the next sequence."""

    def __init__(self, bounds: Bounds = ROOM) -> None:
        self.shelf = Shelf(bounds)
        self.sequences = itertools.count(1)

    def put(self, *channels: str, size: int = 10, key: str | None = None, at: float = 0.0) -> int:
        sequence = next(self.sequences)
        self.shelf.keep(sequence, at, b"x" * size, channels, key)
        return sequence

    def held(self, name: str) -> list[int]:
        log = self.shelf.logs.get(name)
        return [] if log is None else [record[0] for record in log.items[log.start :] if record is not None]


def test_a_channel_keeps_its_newest_events() -> None:
    """By number and by bytes; keys count; the last one that is gone is known, with the reason."""
    log = Log(ROOM._replace(size=3))
    for _ in range(5):
        log.put("a")
    assert log.held("a") == [3, 4, 5]
    assert log.shelf.loss(("a",), 0) == (2, "trimmed")
    assert log.shelf.loss(("a",), 2) == (0, "")
    log = Log(ROOM._replace(channel_bytes=100))
    for _ in range(5):
        log.put("a", size=20, key="k" * 10)
    assert log.held("a") == [3, 4, 5]
    assert log.shelf.logs["a"].size == 90


def test_an_event_beyond_the_bounds_is_not_kept() -> None:
    """Its channels have lost it, whether they hold others or never had one; the others stay."""
    log = Log(ROOM._replace(channel_bytes=100))
    log.put("a")
    log.put("a", "b", size=101)
    assert log.held("a") == [1]
    assert [log.shelf.loss((name,), 0) for name in "abc"] == [(2, "trimmed"), (2, "trimmed"), (0, "")]
    log.put("b")
    assert log.shelf.loss(("b",), 1) == (2, "trimmed")
    assert log.shelf.loss(("b",), 2) == (0, "")


def test_all_channels_share_a_bound() -> None:
    """The channel that was published to least recently drops first; bytes that are kept elsewhere count too."""
    log = Log(ROOM._replace(total_bytes=4 * (10 + RECORD_BYTES)))
    for name in "aabb":
        log.put(name)
    log.put("c")
    assert [log.held(name) for name in "abc"] == [[2], [3, 4], [5]]
    log.shelf.reserve(2 * (10 + RECORD_BYTES))
    assert [log.held(name) for name in "abc"] == [[], [4], [5]]
    log.shelf.reserve(1 << 20)
    assert log.shelf.logs == {}
    log.put("a")
    assert log.held("a") == []
    log.shelf.reserve(-(1 << 20) - 2 * (10 + RECORD_BYTES))
    log.put("a")
    assert log.held("a") == [7]
    assert log.shelf.loss(("a",), 0) == (6, "trimmed")


def test_a_removed_channel_leaves_nothing() -> None:
    """Its bytes are given back; removing a channel that was never there, or has dropped all it had, does nothing."""
    log = Log()
    log.put("a")
    log.put("b")
    kept = log.shelf.total
    for _ in range(2):
        log.shelf.remove("a")
        assert log.shelf.total == kept / 2
        assert (log.held("a"), log.held("b")) == ([], [2])


def test_channels_are_bounded() -> None:
    """A channel that was emptied knows its past when it is used again; of too many only the common past is known."""
    log = Log(ROOM._replace(channels=1))
    for name in "abab":
        log.put(name)
    assert log.shelf.logs.keys() == {"b"}
    assert log.shelf.loss(("a",), 0) == (3, "evicted")
    assert log.shelf.loss(("b",), 2) == (0, "")


def test_the_past_of_emptied_channels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond it, every channel may have lost the forgotten records."""
    monkeypatch.setattr(_shelf, "MAX_EMPTIED", 1)
    log = Log(ROOM._replace(channels=1))
    for name in "abcd":
        log.put(name)
    assert log.shelf.loss(("never used",), 0) == (2, "evicted")
    log.put("a")
    assert log.shelf.loss(("a",), 1) == (2, "evicted")


def test_a_shared_event_is_lost_when_its_last_channel_drops_it() -> None:
    """Until then only the readers of the channels that dropped it have lost it."""
    log = Log(ROOM._replace(size=1))
    log.put("a", "b")
    log.put("a")
    assert log.shelf.loss(("a",), 0) == (1, "trimmed")
    assert log.shelf.loss(("a", "b"), 0) == (0, "")
    log.shelf.judged(("a", "b"), 0)
    assert log.shelf.loss(("a", "b"), 0) == (0, "")
    total = log.shelf.total
    log.put("b")
    assert log.shelf.loss(("a", "b"), 0) == (1, "trimmed")
    assert log.shelf.total == total + (10 + RECORD_BYTES) - (10 + 2 * RECORD_BYTES)


def test_an_emptied_channel_remembers_what_others_still_hold() -> None:
    """Of its shared events the last one that is not lost to all counts as well, once its past is forgotten."""
    log = Log(ROOM._replace(channels=2))
    log.put("a", "b")
    log.put("b")
    log.put("c")
    assert log.shelf.logs.keys() == {"b", "c"}
    past = log.shelf._emptied["a"]
    assert (past.sequence, past.last) == (0, 1)


def test_what_is_known_of_a_replay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten; where no event was shared, nothing is remembered."""
    monkeypatch.setattr(_shelf, "MAX_JUDGED", 1)
    log = Log(ROOM._replace(size=1))
    log.put("a")
    log.shelf.judged(("a",), 0)
    assert log.shelf._judged == {}
    log.put("a", "b")
    log.put("a")
    for name in "ab":
        log.shelf.judged((name,), 0)
    assert list(log.shelf._judged) == [(("b",), 0)]


def test_old_records_expire() -> None:
    """Those of the channels that are asked for, and every channel whose newest record is old."""
    log = Log()
    for at, name in enumerate("abbc"):
        log.put(name, at=float(at))
    log.shelf.expire(2.0, ("b", "unknown"))
    assert [log.held(name) for name in "abc"] == [[], [3], [4]]
    assert log.shelf.loss(("a", "b"), 0) == (2, "expired")
    log.shelf.expire(9.0, ("b",))
    log.shelf.expire(9.0, ("b",))
    assert log.shelf.logs == {}


def test_a_log_is_read_between_two_sequences() -> None:
    """And backward; only the logs with later records are named."""
    log = Log()
    for name in "abababab":
        log.put(name)
    (one,) = log.shelf.logs_after(("a", "never"), 6)
    assert [record[0] for record in one.between(1, 5)] == [3, 5]
    assert (list(one.between(7, 9)), list(one.between(-1, 0))) == ([], [])
    assert [record[0] for record in one.back_from(6)] == [5, 3, 1]
    assert (one.holds(1), one.first[0], one.newest[0]) == (True, 1, 7)
    assert log.shelf.logs_after(("a",), 7) == []
    assert Shelf(ROOM).logs_after(("a",), 0) == []


def test_the_places_of_dropped_records_are_given_back() -> None:
    """A log has at most about twice as many places as records."""
    log = Log(ROOM._replace(size=10))
    for _ in range(1000):
        log.put("a")
    assert log.held("a") == list(range(991, 1001))
    assert len(log.shelf.logs["a"].items) < 10 + 2 * _shelf.FEWEST_DROPPED


def test_the_size_of_an_event_is_that_of_its_frame_and_key() -> None:
    """In bytes; an event that is rendered for each reader has no frame."""
    assert content_size(b"frame") == 5
    assert content_size(b"frame", "\u00e4") == 7
    assert content_size(ServerSentEvent("x")) == len(b"data: x\n\n")
    assert content_size(RenderedEvent(str, None, None)) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_is_that_of_all_records(seed: int) -> None:
    """However events are dropped, the total counts each record that is held once, for all its channels."""
    chosen = Random(seed)
    log = Log(Bounds(5, 200, 20 * RECORD_BYTES, 4))
    for _ in range(300):
        names = chosen.sample("abcdef", chosen.choice([1, 1, 2, 3]))
        log.put(*names, size=chosen.choice([1, 50, 150]), key=chosen.choice([None, "k" * 30]))
        records = {record[0]: record for one in log.shelf.logs.values() for record in one.items if record is not None}
        sizes = [content_size(record[2], record[4]) + RECORD_BYTES * len(record[3]) for record in records.values()]
        assert log.shelf.total == sum(sizes) <= 20 * RECORD_BYTES
