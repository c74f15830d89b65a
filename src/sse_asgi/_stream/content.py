"""Content: runs a feed in a task of its own, and keeps the exception that it raised."""

import logging
from typing import Any

from starlette.types import Scope

from .._log.logged import about, named
from .._loop.tasks import Child, spawn
from .._loop.timer import Timer
from .._loop.wakeup import Wakeup
from .feeds import Feed

logger = logging.getLogger("sse_asgi.stream")


class Content:
    """Runs a feed in a task of its own whenever the feed has something to do, one run at a time.

    Attributes:
        error: The exception that the feed raised before it was stopped; None if it raised none.
    """

    __slots__ = ("_child", "_feed", "_scope", "_stopped", "_wakeup", "error")

    def __init__(self, feed: Feed, scope: Scope, wakeup: Wakeup) -> None:
        """Prepare; the feed is not touched.

        Args:
            feed: The feed to run.
            scope: The request's; it names the stream in the log.
            wakeup: Set when a run has ended.
        """
        self._feed = feed
        self._scope = scope
        self._wakeup = wakeup
        self._child: Child | None = None
        self._stopped = False
        self.error: Exception | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of a subscription."""
        return self._feed.channels

    @property
    def runs(self) -> bool:
        """True if the feed runs now."""
        return self._child is not None

    def _about(self, event: str) -> dict[str, Any]:
        return about(event, self._scope, self.channels)

    def fetch(self) -> None:
        """Run the feed, unless it runs already."""
        if self._child is None:
            self._child = spawn(self._run, self._done)

    async def _run(self) -> None:
        try:
            if self._feed.needs_run:  # else it was ended before this task began
                await self._feed.run()
        except Exception as error:
            if self._stopped:
                told = "the content of the stream %s failed while it was cleaned up"
                logger.exception(told, named(self._scope), extra=self._about("cleanup_failed"))
            else:
                self.error = error
        except BaseException:
            if not self._stopped:
                self.error = RuntimeError("it was cancelled from within")
            raise

    def _done(self) -> None:
        self._child = None
        self._wakeup.set()

    def stop(self) -> None:
        """Stop the feed, and cancel its run once, so that awaits in its `finally` work; not if it is finished."""
        self._stopped = True
        self._feed.stop()
        if self._child is not None and self._feed.ended != "finished":
            self._child.cancel()

    def last_words(self, words: bytes) -> bytes:
        """Return the bytes before the final body, given the last words of the stream."""
        return self._feed.last_words(words)

    async def close(self, timer: Timer, patience: float) -> None:
        """Wait for `patience` seconds at most until a stopped run has ended, then close the feed."""
        if self._child is not None:
            with timer.move_on_after(patience):
                while self._child is not None:
                    await self._wakeup
        if self._child is not None:
            told = "the content of the stream %s took more than %s s to clean up"
            logger.warning(told, named(self._scope), patience, extra=self._about("cleanup_timed_out"))
            self._child.cancel()
        await self._feed.close()
