"""The options of one stream and of a middleware: their types, and the checked values that their parts work with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

from starlette.background import BackgroundTask

from .._loop.running import LoopVar
from ..dialects import Dialect
from .limits import ConnectionLimit
from .observed import StreamObserver

MAX_SHARED = 64


class StreamOptions(TypedDict, total=False):
    """Those options of EventSourceResponse that do not depend on the request."""

    headers: Mapping[str, str] | None
    ping_interval: float | None
    retry: int | None
    start_timeout: float
    send_timeout: float | None
    cleanup_timeout: float
    on_error: Callable[[Exception], Any] | None
    reconnect_after_end: bool
    padding: int
    dialect: Dialect | None


class ResponseOptions(StreamOptions, total=False):
    """The options of EventSourceResponse that EventSourceApp passes on as they are."""

    status_code: int
    background: BackgroundTask | None


class Terms(NamedTuple):
    """The options that a connection needs, checked; see EventSourceResponse. An infinite time is never reached."""

    greeting: bytes
    ping_interval: float
    start_timeout: float
    send_timeout: float
    max_lifetime: float
    cleanup_timeout: float
    on_error: Callable[[Exception], Any] | None
    dialect: Dialect | None = None
    drain_timeout: float = 0.0
    always_complete: bool = False  # an answer that has all that it can have, whenever it ends


class GuardTerms(NamedTuple):
    """The options of a middleware, checked; see EventSourceMiddleware."""

    ping_interval: float
    max_lifetime: float
    limit: ConnectionLimit | None
    drain_timeout: float = 0.0
    observer: StreamObserver | None = None


_terms: LoopVar[dict[Terms, Terms]] = LoopVar(dict)


def shared_terms(terms: Terms) -> Terms:
    """Return the first equal terms of this event loop: thousands of connections use a few different ones."""
    if terms.on_error is not None or terms.dialect is not None:  # either may hold on to its request
        return terms
    known = _terms.get()
    if len(known) >= MAX_SHARED:
        known.clear()
    return known.setdefault(terms, terms)
