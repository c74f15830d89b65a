"""What is logged of an outage: once that it began, once what must be done, once that it is over."""

import logging
import time

from ._reasons import UnusableError

logger = logging.getLogger("sse_asgi.backends.redis")


class Outage:
    """The time from one session to the next.

    Attributes:
        began: When; None while there is none.
        reason: What the last attempt failed of; empty while there is none.
    """

    def __init__(self, shown: str) -> None:
        """Call the server this."""
        self.began: float | None = None
        self.reason = ""
        self._shown = shown
        self._seen: set[str] = set()
        self._warned = False

    def begin(self, error: UnusableError) -> bool:
        """Note a failure; tell whether it is the first since Redis was there."""
        self.reason = text = str(error)
        if error.advice and self.is_new(text):
            logger.error("Redis at %s cannot be used: %s", self._shown, text)
        if self.began is not None:
            return False
        self.began = time.monotonic()
        if not error.advice:
            logger.warning("Redis at %s: %s. Reconnecting; readers wait, and publishing fails", self._shown, text)
        return True

    def is_new(self, text: str) -> bool:
        """Tell whether this was not noted before in this outage, and note it."""
        new = text not in self._seen
        self._seen.add(text)
        return new

    def end(self, evicts: str | None) -> bool:
        """Note that it is there; tell whether it was not before."""
        if evicts is not None and not self._warned:
            self._warned = True
            logger.warning(
                "Redis at %s has maxmemory-policy %s and may evict a hub's own keys, which readers are not told: "
                "set noeviction, or volatile-ttl or another volatile one",
                self._shown,
                evicts,
            )
        self._seen.clear()
        began, self.began, self.reason = self.began, None, ""
        if began is None:
            return False
        logger.info("Redis at %s is back after %.1f s", self._shown, time.monotonic() - began)
        return True
