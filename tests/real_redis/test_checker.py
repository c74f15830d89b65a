"""The checker finds each fault."""

from collections.abc import Collection

import pytest

from real_redis.checker import Event, Seen, check

GAP = None


def log(*numbers: int | None, connection: int = 0) -> list[Seen]:
    """Write down events of one publisher, whose ids are their numbers, and gaps."""
    return [
        Seen(0, 0, connection, f"0000000f-{number}", None if number is GAP else Event(0, number)) for number in numbers
    ]


@pytest.mark.parametrize(
    ("seen", "stored", "losses", "faults"),
    [
        (log(1, 2, 3), {1, 2, 3}, 0, set()),
        (log(1, 3), {1, 3}, 0, set()),
        (log(1, 3), {1, 2, 3}, 0, {"lost"}),
        (log(2, 3), {1, 2, 3}, 0, {"lost"}),
        (log(1, GAP, 3), {1, 2, 3}, 1, {"told"}),
        (log(1, 3, GAP, 4), {1, 2, 3, 4}, 1, {"lost"}),
        (log(1, GAP, 2, 4), {1, 2, 3, 4}, 1, {"lost"}),
        (log(1, 2, 2), {1, 2}, 0, {"twice", "disorder"}),
        (log(1, 3, 2), {1, 2, 3}, 0, {"lost", "disorder"}),
        (log(1, GAP, GAP, 2), {1, 2}, 1, {"repeated"}),
        (log(1, GAP, GAP, 2), {1, 2}, 2, set()),
        (log(1, GAP) + log(GAP, 2, connection=1), {1, 2}, 1, set()),
    ],
)
def test_what_is_found(seen: list[Seen], stored: Collection[int], losses: int, faults: set[str]) -> None:
    """Each kind of fault is found as itself."""
    found = check(seen, {0: stored}, [], losses)
    assert {name for name, value in found._asdict().items() if value and name != "gaps"} == faults


@pytest.mark.parametrize(
    ("reason", "numbers", "alarms"),
    [
        ("trimmed", (1, GAP, 2), ["trimmed"]),
        ("evicted", (GAP, 1), ["evicted"]),
        ("expired", (1, 2, GAP), ["expired"]),
        ("trimmed", (1, GAP, 3), []),
        ("trimmed", (GAP, 3), []),
        ("trimmed", (1, GAP, 5), []),
        ("trimmed", (5, GAP, 7), ["trimmed"]),
        ("epoch", (1, GAP, 2), []),
    ],
)
def test_a_false_alarm(reason: str, numbers: tuple[int | None, ...], alarms: list[str]) -> None:
    """A gap of history needs a missing event in its place: one that was stored, or may have been."""
    seen = [one._replace(reason=reason if one.event is None else "") for one in log(*numbers)]
    assert check(seen, {0: {1, 2, 3}}, [], 1, {Event(0, 4)}).alarms == alarms


def test_what_is_kept_must_be_seen() -> None:
    """A gap does not excuse an event that Redis still has."""
    assert check(log(1, GAP, 3), {0: {1, 2, 3}}, [Event(0, 2), Event(0, 3)], 1).kept == [Event(0, 2)]
