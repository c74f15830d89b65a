"""The numbers that a hub counts."""

import json

from sse_asgi._hub.stats import Stats, Tally


def test_counters_start_at_zero() -> None:
    """Each is increased by itself."""
    tally = Tally()
    tally.drops += 1
    assert (tally.drops, tally.published, tally.unpublished, tally.delivered, tally.size) == (1, 0, 0, 0, 0)
    assert (tally.replayed, tally.overflows, tally.reconnects, tally.gaps.total()) == (0, 0, 0, 0)


def test_statistics_can_be_written_as_json() -> None:
    """The field names are the keys."""
    stats = Stats(1, {"a": 1}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {"trimmed": 1})
    assert json.loads(json.dumps(stats._asdict()))["channels"] == {"a": 1}
