"""Grant: the values that it refuses."""

from datetime import datetime
from typing import Any

import pytest

from sse_asgi import (
    Grant,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"expires_at": datetime(2026, 1, 1)}, ValueError, "time zone"),  # noqa: DTZ001 - that is what is refused
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
