"""What comes last: the last bytes of a stream, and its background task."""

import logging
from collections.abc import Callable
from typing import Any

from starlette.background import BackgroundTask
from starlette.types import Scope

from .._log.event import ServerSentEvent, as_frame
from .._servers.shutdown import Notice, farewell
from ..encoder import encode
from .last_event_id import last_event_id

logger = logging.getLogger("sse_asgi")

OnError = Callable[[Exception], Any]

END_ID = "sse.end"
# A named event with data: Firefox, WebKit and most packages of npm take an id from nothing else.
FINAL = encode('{"state":"finished"}', event=END_ID, id=END_ID)
# Without this header, a cache may keep the 204 that answers a client which has seen the end, and give it to others.
END_HEADERS = [(b"cache-control", b"no-store")]
ERROR = ServerSentEvent({}, event="sse.error").encode()


def last_words(
    reason: str | None, error: Exception | None, notice: Notice, on_error: OnError | None, *, final_id: bool, route: str
) -> bytes:
    """Return what the client is told before the final body: what failed, when to come back, or that it need not.

    Args:
        reason: Why the stream ends.
        error: What the content raised.
        notice: Knows how many clients are to come back.
        on_error: See EventSourceResponse.
        final_id: Whether a stream that is finished is not to be asked for again.
        route: Names the stream.
    """
    if reason == "finished":
        return FINAL if final_id else b""
    if reason == "error" and error is not None:
        return _error_frame(error, on_error, route) + farewell(notice)
    return farewell(notice) if reason in ("shutdown", "lifetime", "slow", "revoked") else b""


def _error_frame(error: Exception, on_error: OnError | None, route: str) -> bytes:
    if on_error is None:
        return ERROR
    try:
        event = on_error(error)
        return b"" if event is None else as_frame(event)
    except Exception:
        logger.exception("on_error of the stream %s failed", route)
        return ERROR


async def run_background(background: BackgroundTask, route: str) -> None:
    """Run what a response was given to do after its stream; nobody is left who could be told that it failed."""
    try:
        await background()
    except Exception:
        logger.exception("the background task of the stream %s failed", route)


def has_seen_the_end(scope: Scope) -> bool:
    """Tell whether an EventSource asks again although it was told that its stream is over; 204 makes it stop."""
    return scope["method"] == "GET" and last_event_id(scope) == END_ID
