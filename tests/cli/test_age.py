"""When an event was published."""

import time

import pytest

from sse_asgi._cli.age import lag, published_at
from sse_asgi.decoder import DecodedEvent


def event(data: str = "", id: str = "") -> DecodedEvent:  # noqa: A002 - the standard's name
    return DecodedEvent("message", data, id)


@pytest.mark.parametrize(
    ("id", "seconds"), [("0a1b2c3d-1790000000000000", 1.79e9), ("0a1b2c3d-17", None), ("17", None), ("", None)]
)
def test_an_id_of_a_hub_on_redis_has_the_time(id: str, seconds: float | None) -> None:  # noqa: A002
    """In microseconds; other ids are not taken for times."""
    assert published_at(event(id=id)) == seconds


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        ('{"at": 1790000000}', 1.79e9),
        ('{"at": 1790000000.5}', 1790000000.5),
        ('{"at": 1790000000000}', 1.79e9),
        ('{"at": "2026-09-21T14:13:20+00:00"}', 1790000000.0),
        ('{"at": "yesterday"}', None),
        ('{"at": true}', None),
        ('{"at": null}', None),
        ('{"other": 1}', None),
        ("[1]", None),
        ("17", None),
        ("not JSON", None),
    ],
)
def test_a_field_has_the_time(data: str, seconds: float | None) -> None:
    """Seconds, milliseconds or ISO 8601; anything else is no time."""
    assert published_at(event(data), "at") == seconds


def test_the_lag_is_counted_from_then() -> None:
    """In seconds; None stays None."""
    seconds = lag(event(f'{{"at": {time.time() - 5}}}'), "at")
    assert seconds is not None
    assert 5 <= seconds < 6
    assert lag(event()) is None
