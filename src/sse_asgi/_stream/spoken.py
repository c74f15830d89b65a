"""Streams in a dialect: a subscription as a feed of its events alone, and the last words of a stream.

A protocol of its own has no words for the library's events. So a subscription is iterated as an application would do
it: no positions are written, joins and leaves are left out, and a gap interrupts the stream.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.types import Scope

from .._hub.subscription import Subscription
from .._log.event import ServerSentEvent
from .._log.logged import about, named
from .._log.names import END, RESERVED
from ..dialects import Dialect
from ..exceptions import SlowReaderError
from .feeds import IterableFeed
from .framing import DialectFraming

logger = logging.getLogger("sse_asgi.stream")

INTERRUPTIONS = frozenset({"shutdown", "lifetime", "revoked", "slow", "gap", "refused", "cancelled", "lost"})
MEMBERS = ("headers", "item", "failed", "interrupted", "end")


class SpokenSubscription(IterableFeed):
    """The events of a subscription, written in a dialect.

    Its end is the subscription's: only `subscription.end("finished")` finishes the stream, and all else interrupts it.
    """

    immediate = True
    kind = "subscription"

    def __init__(self, subscription: Subscription, cleanup_timeout: float, dialect: Dialect) -> None:
        """Touch nothing yet; for the arguments see EventSourceResponse."""
        super().__init__(self._events(), cleanup_timeout, DialectFraming(dialect))
        self._subscription = subscription
        self.channels = subscription.channels
        self._reason = "finished"

    @property
    def joined(self) -> bool:
        """Whether an event that is published from now on reaches the client."""
        return self._subscription.joined

    def reason_of_end(self) -> str:
        """Return why the subscription has ended."""
        return self._reason

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        subscription = self._subscription
        try:
            async with subscription:
                self._news.set()
                async for event in subscription:
                    kind = event.event or ""
                    if kind == "sse.gap":
                        self._reason = "gap"
                        return
                    if kind == END:  # of a run
                        self._reason = json.loads(event.data or "")["state"]
                        return
                    if not kind.startswith(RESERVED):
                        yield event
        except SlowReaderError:
            self._reason = "slow"
        else:
            self._reason = subscription.ended or "shutdown"


def check_dialect(dialect: Any) -> None:
    """Accept None, and an object with the five members of a dialect; raise TypeError for anything else."""
    if dialect is None:
        return
    missing = [name for name in MEMBERS if not hasattr(dialect, name)]
    if isinstance(dialect, type) or missing:
        lacks = f", which has no {', '.join(missing)}" if missing else ", a class: make an object of it"
        msg = f"dialect must be one of sse_asgi.dialects or an object like them (got {dialect!r}{lacks})"
        raise TypeError(msg)


class PassedOn:
    """A dialect for a stream that is passed on, and has its own end: the dialect's follows an error only."""

    def __init__(self, dialect: Dialect) -> None:
        """Say errors and interruptions in this dialect."""
        self._dialect = dialect

    @property
    def headers(self) -> Mapping[str, str]:
        """The dialect's."""
        return self._dialect.headers

    def item(self, value: Any) -> bytes:
        """Return what the dialect does."""
        return self._dialect.item(value)

    def failed(self, error: Exception) -> bytes:
        """Return what the dialect does, and its end."""
        return self._dialect.failed(error) + self._dialect.end()

    def interrupted(self, reason: str) -> bytes:
        """Return what the dialect does, and its end."""
        return self._dialect.interrupted(reason) + self._dialect.end()

    def end(self) -> bytes:
        """Return no bytes."""
        return b""


def last_words(dialect: Dialect, reason: str | None, error: Exception | None, scope: Scope) -> bytes:
    """Return what a dialect ends a stream with.

    Args:
        dialect: Finds the words.
        reason: Why the stream ends; for a run, how it has ended.
        error: The exception of its content, if it failed.
        scope: The request's; it names the stream in the log.
    """
    try:
        if reason == "failed":  # a run, maybe of another process
            error = RuntimeError("the source of the run failed")
        if error is not None and reason in ("error", "failed"):
            return dialect.failed(error) + dialect.end()
        if reason == "finished":
            return dialect.end()
        return dialect.interrupted(reason) + dialect.end() if reason in INTERRUPTIONS else b""
    except Exception:
        logger.exception(
            "the dialect of the stream %s failed to end it", named(scope), extra=about("dialect_failed", scope)
        )
        return b""
