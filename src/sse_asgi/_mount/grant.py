"""Grant: what a reader is allowed, and until when."""

import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._hub.options import check_identity


@dataclass(frozen=True)
class Grant:
    """What `authorize` may return to say more than a reader's properties.

    Attributes:
        properties: Anything that tells this reader from others, as in `Hub.subscribe`.
        expires_at: When the stream ends, so that the reconnect is authorised afresh: an aware datetime, or Unix
            seconds; None for never.
        identity: Who the reader is, for `hub.presence` and `hub.disconnect(identity=...)`.

    Raises:
        TypeError: `expires_at` is no time, or `identity` is no str.
        ValueError: A datetime without a time zone, seconds that are not finite, or an identity that could not be the
            name of a channel.
    """

    properties: Any = None
    expires_at: datetime | float | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        """Check what can be wrong."""
        check_identity(self.identity)
        if self.expires_at is not None and not math.isfinite(_unix_seconds(self.expires_at)):
            msg = f"expires_at={self.expires_at} must be finite: None never expires"
            raise ValueError(msg)

    @property
    def seconds_left(self) -> float:
        """How long it holds, below 0 when it has expired."""
        return math.inf if self.expires_at is None else _unix_seconds(self.expires_at) - time.time()


def as_grant(value: Any) -> Grant:
    """Make a grant of what `authorize` returned: itself, a reader's name, or any other properties."""
    if isinstance(value, Grant):
        return value
    return Grant(value, identity=value or None) if isinstance(value, str) else Grant(value)


def _unix_seconds(when: Any) -> float:
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            msg = f"expires_at={when} has no time zone: datetime.now(UTC) + timedelta(...) has one"
            raise ValueError(msg)
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, int | float):
        msg = f"expires_at must be an aware datetime or Unix seconds, not {type(when).__name__}"
        raise TypeError(msg)
    return float(when)
