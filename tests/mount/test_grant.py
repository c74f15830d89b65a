"""Grant: the values that it refuses."""

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sse_asgi import (
    Grant,
)
from sse_asgi._mount.grant import as_grant

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"expires_at": datetime(2026, 1, 1)}, ValueError, "time zone"),  # noqa: DTZ001 - it is refused
        ({"expires_at": float("nan")}, ValueError, "finite"),
        ({"expires_at": float("inf")}, ValueError, "finite"),
        ({"expires_at": "tomorrow"}, TypeError, "str"),
        ({"expires_at": True}, TypeError, "bool"),
        ({"identity": 7}, TypeError, "str"),
        ({"identity": ""}, ValueError, "empty"),
        ({"identity": "\ud800"}, ValueError, "surrogates"),
    ],
)
def test_a_grant_that_means_nothing_is_refused(options: dict[str, Any], error: type[Exception], match: str) -> None:
    """The error is raised when the grant is made."""
    with pytest.raises(error, match=match):
        Grant(**options)


@pytest.mark.parametrize("kind", ["seconds", "datetime"])
def test_a_grant_knows_how_long_it_is_valid(kind: str) -> None:
    """The time may be Unix seconds or an aware datetime."""
    when = datetime.now(UTC) + timedelta(seconds=60)
    grant = Grant(expires_at=when if kind == "datetime" else when.timestamp())
    assert 50 < grant.seconds_left <= 60
    assert Grant(expires_at=time.time() - 1).seconds_left < 0


def test_a_grant_without_a_time_does_not_expire() -> None:
    """It has infinitely many seconds left."""
    assert Grant().seconds_left == math.inf


@pytest.mark.parametrize(
    ("value", "grant"),
    [
        ("ada", Grant("ada", identity="ada")),
        ("", Grant("")),
        (None, Grant()),
        ({"tenant": 7}, Grant({"tenant": 7})),
        (Grant(identity="bob"), Grant(identity="bob")),
    ],
)
def test_every_value_is_a_grant(value: Any, grant: Grant) -> None:
    """A str is a name, a Grant is itself, and other values are properties."""
    assert as_grant(value) == grant
