"""The log lines of an outage: one at its beginning, one for each advice, one at its end."""

import logging
import time

from ..._log.logged import about
from ._reasons import UnusableError

logger = logging.getLogger("sse_asgi.backends.redis")


class Outage:
    """The time from one session to the next.

    Attributes:
        began: When the outage began, on the monotonic clock; None while there is no outage.
        reason: The reason why the last attempt failed; empty while there is no outage.
    """

    def __init__(self, shown: str) -> None:
        """Name the server like this in logs."""
        self.began: float | None = None
        self.reason = ""
        self._shown = shown
        self._seen: set[str] = set()
        self._warned = False

    def begin(self, error: UnusableError) -> bool:
        """Note a failure. Return True if it is the first one since Redis was there."""
        self.reason = text = str(error)
        if error.advice and self.is_new(text):
            logger.error("Redis at %s cannot be used: %s", self._shown, text, extra=about("redis_unusable"))
        if self.began is not None:
            return False
        self.began = time.monotonic()
        if not error.advice:
            told = "Redis at %s: %s. Reconnecting; readers wait, and publishing fails"
            logger.warning(told, self._shown, text, extra=about("redis_lost"))
        return True

    def is_new(self, text: str) -> bool:
        """Note a text. Return True if it is new in this outage."""
        new = text not in self._seen
        self._seen.add(text)
        return new

    def warn(self, evicts: str | None) -> None:
        """Warn once of a server that may evict keys; see `Server.evicts`."""
        if evicts is not None and not self._warned:
            self._warned = True
            logger.warning(
                "Redis at %s has maxmemory-policy %s and may evict a hub's own keys, and readers get no gap for that: "
                "set noeviction, or volatile-ttl or another volatile one",
                self._shown,
                evicts,
                extra=about("redis_evicts"),
            )

    def end(self) -> bool:
        """Note that Redis is there. Return True if there was an outage."""
        self._seen.clear()
        began, self.began, self.reason = self.began, None, ""
        if began is None:
            return False
        seconds = time.monotonic() - began
        logger.info("Redis at %s is back after %.1f s", self._shown, seconds, extra=about("redis_back"))
        return True
