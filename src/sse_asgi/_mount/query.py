"""The query of a reader's request: how the reader wants its events."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .._hub.options import check_rewind
from .._stream.headers import header
from .._stream.response import MAX_PADDING

MAX_DIGITS = 16
PADDING = {"true": 2048, "1": 2048, "false": 0, "": 0}
PADDING_PARAMETERS = ("padding", "evs_preamble")  # polyfills send these


@dataclass(frozen=True)
class QueryLimits:
    """The most that a request may ask for; see EventSourceApp.

    Raises:
        TypeError: `max_rewind` is not a number.
        ValueError: `max_rewind` or `max_wait` is negative, or `max_wait` is infinite.
    """

    max_rewind: float
    max_wait: float

    def __post_init__(self) -> None:
        """Check both limits."""
        check_rewind("max_rewind", self.max_rewind)
        if not 0 <= self.max_wait < math.inf:
            msg = f"max_wait must be a finite number of seconds, at least 0 (got {self.max_wait}): 0 forbids waiting"
            raise ValueError(msg)


class Poll(NamedTuple):
    """How a request polls.

    Attributes:
        wait: Seconds to wait for the first event.
        as_stream: Whether the answer is an event stream that has ended, instead of JSON.
    """

    wait: float
    as_stream: bool


class Query(NamedTuple):
    """The wishes of one request.

    Attributes:
        padding: Bytes of a comment to begin with; None is the app's own number.
        rewind: How many of the newest events a fresh stream begins with; None is the app's own number.
        poll: None for a stream.
    """

    padding: int | None
    rewind: float | None
    poll: Poll | None


def read_query(request: Request, limits: QueryLimits) -> Query:
    """Read the query, and the Accept header, of a request.

    Raises:
        HTTPException: 400, a parameter has a bad value.
    """
    return Query(_padding(request), _rewind(request, limits.max_rewind), _poll(request, limits.max_wait))


def _first(request: Request, *names: str) -> str | None:
    """Return the first value of the first of these parameters that is there."""
    query = request.query_params
    return next((query.getlist(name)[0] for name in names if name in query), None) if query else None


def _padding(request: Request) -> int | None:
    text = _first(request, *PADDING_PARAMETERS)
    if text is None or text in PADDING:
        return None if text is None else PADDING[text]
    size = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PADDING)) else math.inf
    if size > MAX_PADDING:
        raise HTTPException(400, f"padding must be true, false, or a number of bytes up to {MAX_PADDING}")
    return int(size)


def _rewind(request: Request, most: float) -> float | None:
    text = _first(request, "rewind")
    if text is None:
        return None
    if text != "all" and not (text.isascii() and text.isdecimal()):
        raise HTTPException(400, f"rewind must be a number of events or all (got {text[:20]!r})")
    count = math.inf if text == "all" or len(text) > MAX_DIGITS else int(text)
    if count and not most:
        raise HTTPException(400, "rewind is not allowed here: the application sets max_rewind= to allow it")
    return min(count, most)


def _poll(request: Request, max_wait: float) -> Poll | None:
    accept = (header(request.scope, b"accept") or "").lower()
    as_stream = "text/event-stream" in accept
    polls = _first(request, "poll")
    if polls is None:
        polls = "1" if "application/json" in accept and not as_stream else "0"
    if polls not in ("0", "1"):
        raise HTTPException(400, f"poll must be 1 for a poll or 0 for a stream (got {polls[:20]!r})")
    return Poll(min(_wait(request), max_wait), as_stream) if polls == "1" else None


def _wait(request: Request) -> float:
    text = _first(request, "wait")
    if text is None:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise HTTPException(400, f"wait must be a number of seconds, at least 0 (got {text[:20]!r})")
    return seconds
