"""What a reader is allowed, until when, and how an open stream hears that it is no longer."""

import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from ._runtime import Alarm, Child, shared_timer, spawn
from ._subscription import Subscription

logger = logging.getLogger("sse_asgi")

LOOK_SECONDS = 3600.0
SERVER_ERROR = 500


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
        ValueError: A datetime without a time zone, seconds that are not finite, or an empty identity.
    """

    properties: Any = None
    expires_at: datetime | float | None = None
    identity: str | None = None

    def __post_init__(self) -> None:
        """Check what can be wrong."""
        if self.identity is not None and not isinstance(self.identity, str):
            msg = f"identity must be a str or None, not {type(self.identity).__name__}: str(user.id), for instance"
            raise TypeError(msg)
        if self.identity == "":
            msg = "identity must not be empty: None is a reader whom nobody knows"
            raise ValueError(msg)
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


class WatchedResponse:
    """A response whose stream ends, as `revoked`, when its grant expires or is not given again."""

    def __init__(
        self,
        response: ASGIApp,
        subscription: Subscription,
        grant: Grant,
        *,
        ask: Callable[[], Awaitable[Grant]],
        every: float | None,
    ) -> None:
        """Prepare.

        Args:
            response: What is served.
            subscription: What it streams.
            grant: What was allowed.
            ask: Authorises the request again.
            every: Seconds, give or take a fifth, after which that is asked; None never does.
        """
        self._response = response
        self._subscription = subscription
        self._grant = grant
        self._ask = ask
        self._every = every
        self._expiry = Alarm()
        self._question = Alarm()
        self._child: Child | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, and watch for as long as it takes."""
        self._path = scope["path"]
        self._timer = shared_timer()
        self._context = copy_context()  # an alarm rings in that of whoever set the timer, which is another request's
        self._look()
        self._ask_later()
        try:
            await self._response(scope, receive, send)
        finally:
            self._every = None
            self._expiry.cancel()
            self._question.cancel()
            if self._child is not None:
                self._child.cancel()

    def _look(self) -> None:
        """End the stream if it is time; look again then, or earlier, because clocks are set."""
        left = self._grant.seconds_left
        if left <= 0:
            self._revoke()
        elif left < math.inf:
            self._expiry = self._timer.after(min(left, LOOK_SECONDS), self._look)

    def _ask_later(self) -> None:
        if self._every is not None:
            delay = self._every * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret
            self._question = self._timer.after(delay, self._begin_check)

    def _begin_check(self) -> None:
        self._child = self._context.run(spawn, self._check)

    async def _check(self) -> None:
        try:
            grant = await self._ask()
        except Exception as error:
            if isinstance(error, HTTPException) and error.status_code < SERVER_ERROR:
                self._revoke()
                return
            logger.exception("the stream %s could not be authorised again, and goes on", self._path)
        else:
            self._adopt(grant)
        self._ask_later()

    def _adopt(self, grant: Grant) -> None:
        self._grant = grant
        self._subscription.options = self._subscription.options._replace(properties=grant.properties)
        self._expiry.cancel()
        self._look()

    def _revoke(self) -> None:
        if self._subscription.joined:
            self._subscription.end("revoked")
        else:  # there is nobody to wake yet: the response looks at it when it has joined
            self._subscription.ended = "revoked"
