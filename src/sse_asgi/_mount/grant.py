"""Grant: the properties and the identity of a reader, and the end of its permission."""

import math
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._hub.options import check_identity


@dataclass(frozen=True)
class Grant:
    """A value that `authorize` may return, to give more than a reader's properties.

    Attributes:
        properties: Anything that tells this reader from others, as in `Hub.subscribe`.
        expires_at: When the stream ends, so that the reconnect is authorised afresh: an aware datetime, or Unix
            seconds; None for never.
        identity: The reader's name, for `hub.presence` and `hub.disconnect(identity=...)`.

    Raises:
        TypeError: `expires_at` is not a time, or `identity` is not a str.
        ValueError: A datetime without a time zone, seconds that are not finite, or an identity that could not be the
            name of a channel.
    """

    properties: Any = None
    expires_at: datetime | float | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        """Check the identity and the time."""
        check_identity(self.identity)
        if self.expires_at is not None and not math.isfinite(_unix_seconds(self.expires_at)):
            msg = f"expires_at must be finite (got {self.expires_at}): None never expires"
            raise ValueError(msg)

    @property
    def seconds_left(self) -> float:
        """The seconds until the grant expires; below 0 afterwards."""
        return math.inf if self.expires_at is None else _unix_seconds(self.expires_at) - time.time()


def as_grant(value: Any) -> Grant:
    """Return the grant for a value that `authorize` returned: a Grant, a reader's name, or other properties."""
    if isinstance(value, Grant):
        return value
    return Grant(value, identity=value or None) if isinstance(value, str) else Grant(value)


def _unix_seconds(when: Any) -> float:
    if isinstance(when, datetime):
        if when.utcoffset() is None:
            msg = f"expires_at must have a time zone (got {when}): datetime.now(UTC) + timedelta(...) has one"
            raise ValueError(msg)
        return when.timestamp()
    if isinstance(when, bool) or not isinstance(when, int | float):
        msg = f"expires_at must be an aware datetime or Unix seconds (got {type(when).__name__})"
        raise TypeError(msg)
    return float(when)
