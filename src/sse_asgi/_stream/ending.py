"""Ending: the last words of a stream, the end of its body, its cleanup, and its background task.

An EventSource reconnects after every end, so its body is always complete. A client of another kind (fetch, curl, httpx)
takes a complete body for a finished stream. So the body of a stream that was cut off stays incomplete there: it ends
with the connection. `Ending._last_words` decides both, the words and whether the body is completed. A stream that is
cut off before its head gets a 503 in place of it. A dialect has words for an interruption, so its bodies are complete.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
from starlette.background import BackgroundTask
from starlette.types import Receive, Scope

from .._log.event import ServerSentEvent, as_frame
from .._log.last_event_id import last_event_id
from .._log.logged import about, named
from .._log.names import END
from .._loop.running import checkpoint
from .._loop.timer import shared_timer
from .._servers.shutdown import ShutdownNotice, farewell
from ..encoder import encode
from .content import Content
from .event_source import is_event_source
from .guarded import can_be_interrupted, end_incomplete
from .limits import refusal
from .spoken import last_words
from .terms import Terms
from .writer import Writer

logger = logging.getLogger("sse_asgi.stream")

FAREWELL_SECONDS = 0.4
# Observed: when a connection breaks, fetch in Chromium drops the bytes that it has not yet given to the page. So a
# client that reads gets this time for the last bytes before its connection is closed.
READ_SECONDS = 0.2
# A named event with data: Firefox, WebKit and most npm packages take an id from nothing else.
FINAL = encode('{"state":"finished"}', event=END, id=END)
# Without this header, a cache may keep the 204 for a client that has seen the end, and give it to other clients.
END_HEADERS = [(b"cache-control", b"no-store")]
ERROR = ServerSentEvent({}, event="sse.error").encode()


class Ending:
    """Sends the last words of one stream, and cleans up after its content."""

    def __init__(
        self,
        writer: Writer,
        content: Content,
        terms: Terms,
        notice: ShutdownNotice,
        request: tuple[Scope, Receive],
        *,
        final_id: bool,
    ) -> None:
        """Prepare to end a stream.

        Args:
            writer: Sends the last words.
            content: Stopped and awaited.
            terms: See EventSourceResponse.
            notice: Knows how many clients will come back.
            request: The scope of the request, and its `receive`.
            final_id: True if the client of a finished stream is told not to ask again.
        """
        self._writer = writer
        self._content = content
        self._terms = terms
        self._notice = notice
        self._scope, self._receive = request
        self._final_id = final_id
        self._timer = shared_timer()

    async def close(self, reason: str | None, cut_off: Callable[[], None]) -> None:
        """Stop the content, send the last words meanwhile, and clean up.

        Args:
            reason: The reason why the stream ends.
            cut_off: Aborts the connection of a client that does not take the last words.
        """
        self._writer.close()
        self._content.stop()
        if self._writer.started or reason in ("finished", "shutdown", "lifetime", "revoked"):
            with self._timer.move_on_after(FAREWELL_SECONDS) as limit:
                await self._part(reason)
            if limit.cancelled_caught:
                cut_off()
                await checkpoint()  # the server sees that before the stream returns
        await self.clean_up()

    async def clean_up(self) -> None:
        """Wait until the content has ended, for `cleanup_timeout` at most."""
        await self._content.close(self._timer, self._terms.cleanup_timeout)

    async def _part(self, reason: str | None) -> None:
        writer = self._writer
        words, complete = self._last_words(reason)
        try:
            if not (complete or writer.started):
                await writer.decline(partial(refusal, self._scope))
                return
            body = b"" if writer.sending else self._content.last_words(words)
            if body or not writer.started:
                await writer.emit(body)
            if complete:
                await writer.finish()
            else:
                if reason != "slow":
                    await anyio.sleep(READ_SECONDS)
                await end_incomplete(self._scope, self._receive, writer.server_send, writer.finish)
        except OSError:
            pass
        except Exception:
            logger.exception(
                "the end of the stream %s could not be sent",
                named(self._scope),
                extra=self._about("stream_end_failed"),
            )

    def _last_words(self, reason: str | None) -> tuple[bytes, bool]:
        """Return the bytes before the end of the body, and True if the body is completed.

        The bytes are the error, the time to come back, or the word not to come back.
        """
        if (dialect := self._terms.dialect) is not None:  # the words are its own, and its end is one of them
            return last_words(dialect, reason, self._content.error, self._scope), True
        if reason == "finished":
            return (FINAL if self._final_id else b""), True
        words = b""
        if reason == "error" and self._content.error is not None:
            words = self._error_frame(self._content.error) + farewell(self._notice)
        elif reason in ("shutdown", "lifetime", "slow", "revoked"):
            words = farewell(self._notice)
        return words, reason == "client" or self._must_complete()

    def _must_complete(self) -> bool:
        """Return True if the client comes back after every end, or cannot see that a body is incomplete."""
        if self._terms.always_complete or is_event_source(self._scope):
            return True
        return not can_be_interrupted(self._scope, self._receive)

    def _about(self, event: str) -> dict[str, Any]:
        return about(event, self._scope, self._content.channels)

    def _error_frame(self, error: Exception) -> bytes:
        if self._terms.on_error is None:
            return ERROR
        try:
            event = self._terms.on_error(error)
            return b"" if event is None else as_frame(event)
        except Exception:
            logger.exception(
                "on_error of the stream %s failed", named(self._scope), extra=self._about("on_error_failed")
            )
            return ERROR


async def run_background(background: BackgroundTask, scope: Scope) -> None:
    """Run the background task of a response. A failure is logged, because the client has its answer already."""
    try:
        await background()
    except Exception:
        logger.exception(
            "the background task of the stream %s failed", named(scope), extra=about("background_failed", scope)
        )


def end_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer to a client that has seen the end, given those of the stream.

    Pages of other origins may read the answer if they may read the stream; else their browsers would ask again.
    """
    return [*END_HEADERS, *(header for header in headers if header[0] not in (b"content-type", b"cache-control"))]


def has_seen_the_end(scope: Scope) -> bool:
    """Return True if an EventSource asks again for a finished stream; the answer 204 makes it stop."""
    return scope["method"] == "GET" and last_event_id(scope) == END
