"""EventSourceResponse: the content and the options of one stream, as a Starlette response."""

import inspect
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Self, Unpack

import anyio
from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .._hub.feed import SubscriptionFeed
from .._hub.options import NOT_GIVEN, NotGiven, check_drain_timeout, check_known, seconds_or_never
from .._hub.run import Run, RunSubscription
from .._hub.run_feed import RunFeed
from .._hub.subscription import Subscription
from .._log.event import ServerSentEvent
from .._log.last_event_id import last_event_id
from ..dialects import Dialect
from ..encoder import encode
from .connection import Connection
from .ending import end_headers, has_seen_the_end, run_background
from .feeds import Feed, IterableFeed
from .framing import ChunkFraming, DialectFraming
from .guarded import admit, default_drain_timeout
from .limits import refusal
from .spoken import PassedOn, SpokenSubscription, check_dialect, last_words
from .terms import StreamOptions, Terms, shared_terms
from .yielding import FirstFraming, LateHeaders, replace_defaults, unwrapped

Content = Run | Subscription | AsyncIterable[Any] | Iterable[Any]

HEADERS = (
    # No charset: the standard says UTF-8, and some proxies match the type exactly.
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
DEFAULT_NAMES = frozenset(name for name, _ in HEADERS)
PING_SECONDS = 15.0
MAX_PADDING = 8192
ENDS_FOR_GOOD = "until and reconnect_after_end exclude each other: what ends with an event is over; choose one of them"


class RouteOptions(StreamOptions, total=False):
    """The options that a response class can have: all but content, status_code and background."""

    max_lifetime: float | None
    drain_timeout: float
    encoded: bool


class EventSourceResponse(Response):
    """Streams a subscription, a run or an iterable, until the content, the client, the server or a limit ends it.

    It is also the response class of FastAPI's endpoints that yield: `@app.get("/x", response_class=...)`.

    Attributes:
        options: Those that `having` was given.
    """

    media_type = "text/event-stream"
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    _late: LateHeaders | None = None
    _reason: str | None = None  # of an answer without a connection; a class attribute saves memory of idle streams

    def __init__(
        self,
        content: Content,
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        ping_interval: float | NotGiven | None = NOT_GIVEN,
        retry: int | None = None,
        start_timeout: float = 1.0,
        send_timeout: float | None = 30.0,
        max_lifetime: float | None = None,
        cleanup_timeout: float = 5.0,
        on_error: Callable[[Exception], Any] | None = None,
        reconnect_after_end: bool = False,
        padding: int = 0,
        drain_timeout: float | NotGiven = NOT_GIVEN,
        dialect: Dialect | None = None,
        encoded: bool = False,
    ) -> None:
        """Check the options. The content is not touched before the response is called.

        Args:
            content: `hub.subscribe(...)`, a Run, or an async or sync iterable of ServerSentEvent or of values that one
                takes as data. A run is streamed from the request's Last-Event-ID, or else from its first event. None
                items are skipped. An async generator runs in one task and one context from first to last, and is closed
                in that task; a sync one runs in a thread of its own. Iterators with `aclose()` or `close()` are treated
                the same, and are closed even if nothing of them is streamed. An async one may read the body of the
                request.
            status_code: The status of a stream that starts.
            headers: Added to the default headers, which keep caches and proxies from holding events back; a header of
                the same name replaces the default.
            background: Runs after the stream was cleaned up, also if the request was answered without the content
                (HEAD, 204, or refused by a limit). It does not run if the content failed before the head was sent.
            ping_interval: Seconds of silence after which a comment is sent; None sends none. The default is 15 seconds,
                or for a subscription its hub's interval.
            retry: Milliseconds that the browser waits before it reconnects, sent at the start.
            start_timeout: Seconds that an iterable has to yield or raise before the head is sent. An exception in that
                time becomes a real error response.
            send_timeout: Seconds after which a client that does not read is cut off; None never cuts it off.
            max_lifetime: Seconds, give or take a fifth, after which the browser has to reconnect; None sets no limit.
            cleanup_timeout: Seconds that the content has to end after it was cancelled.
            on_error: A plain function of the exception of a stream that had started. It returns the event to send in
                place of `sse.error`, or None to send none.
            reconnect_after_end: True lets the browser ask again after the iterable has finished, which runs the
                iterable again. Not for a subscription with `until`.
            padding: Bytes of a comment at the start, at most 8192, for browsers and proxies that hold back first bytes.
            drain_timeout: Seconds for which an iterable or a run may go on to its own end after the server was told to
                stop. A second signal, a second later or more, ends it at once. A subscription ends at once. The
                default is the middleware's, or 0.
            dialect: A protocol on top of SSE, of `sse_asgi.dialects` or your own: it frames the items, and says errors,
                interruptions and the end in its own words. None of the library's own events is written then.
            encoded: Whether the content's chunks, bytes or str, already are an event stream, cut anywhere. They are
                passed on byte for byte; a frame that is not finished is not sent.

        Raises:
            TypeError: The content cannot be streamed; the message names the fix. Or `dialect` is not a dialect.
            ValueError: A number of seconds that is not above 0, a bad `retry`, `padding` or `drain_timeout`, `on_error`
                together with `dialect`, or `reconnect_after_end` together with a subscription's `until`.
        """
        content = unwrapped(content)
        if isinstance(content, Run):
            content = content.follow()
        self.content = content
        self.status_code = status_code
        self.background = background
        if reconnect_after_end and isinstance(content, Subscription) and content.options.until is not None:
            raise ValueError(ENDS_FOR_GOOD)
        spoken = _spoken(dialect, on_error, encoded=encoded)
        self.raw_headers: list[tuple[bytes, bytes]] = _merged(headers, spoken)
        self._feed = _feed(content, cleanup_timeout, spoken, encoded=encoded)
        if ping_interval is NOT_GIVEN:
            ping_interval = content.options.ping_interval if isinstance(content, Subscription) else PING_SECONDS
        self._terms = Terms(
            greeting=_comment(padding) + (b"" if retry is None else encode(retry=retry)[:-1]),
            ping_interval=seconds_or_never("ping_interval", ping_interval),
            start_timeout=max(0.0, start_timeout),
            send_timeout=seconds_or_never("send_timeout", send_timeout),
            max_lifetime=seconds_or_never("max_lifetime", max_lifetime),
            cleanup_timeout=cleanup_timeout,
            on_error=on_error,
            dialect=spoken,
        )
        self._drain_timeout = drain_timeout if drain_timeout is NOT_GIVEN else check_drain_timeout(drain_timeout)
        self._reconnect_after_end = reconnect_after_end
        self._connection: Connection | None = None

    @classmethod
    def having(cls, **options: Unpack[RouteOptions]) -> type[Self]:
        """Return a response class with these options, for `response_class=` of FastAPI.

        Args:
            **options: See the constructor; all but `content`, `status_code` and `background`.

        Raises:
            TypeError: An unknown option, or one of a wrong type.
            ValueError: A bad value.
        """
        check_known(f"{cls.__name__}.having", options, RouteOptions.__annotations__.keys())
        cls((), **options)

        def __init__(  # noqa: N807 - of the new class
            self: Any, content: Any, *, status_code: int = 200, background: Any = None, **more: Unpack[RouteOptions]
        ) -> None:
            given: RouteOptions = {**options, **more}
            cls.__init__(self, content, status_code=status_code, background=background, **given)

        members = {
            "__init__": __init__,
            "__doc__": cls.__doc__,
            "options": MappingProxyType({**cls.options, **options}),
        }
        return type(cls.__name__, (cls,), {**members, "__module__": cls.__module__})

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Serve one request. The returned coroutine is the connection's own, without another one around it."""
        if hasattr(route := scope.get("route"), "dependant"):
            self._fit(route)
        if scope["method"] == "HEAD":
            return self._answer(scope, send, self.status_code, self.raw_headers, "finished")
        if self._is_over(scope):
            return self._answer(scope, send, 204, end_headers(self.raw_headers), "finished")
        if isinstance(self.content, Subscription) and self.content.last_event_id is None:
            self.content.last_event_id = last_event_id(scope)
        if not admit(scope, self._feed.kind):
            return self._refuse(scope, send)
        self._terms = shared_terms(self._with_drain(scope))
        final_id = scope["method"] == "GET" and not (
            self._reconnect_after_end or isinstance(self.content, RunSubscription)  # which has an end of its own
        )
        self._connection = Connection(
            self._feed, self._terms, scope, receive, send, head=self._head(), final_id=final_id
        )
        return self._connection.run(self.background)

    def _fit(self, route: Any) -> None:
        """Take what a route of FastAPI says about the items that its endpoint yields, and about the head."""
        from ..fastapi import framing_of  # noqa: PLC0415 - imported if it is in use

        framing = framing_of(route)
        if framing is not None and isinstance(self._feed, IterableFeed):
            self._feed.framing = framing
        self._late = LateHeaders.of(route, self.content, self.raw_headers, DEFAULT_NAMES)
        replace_defaults(self.raw_headers, DEFAULT_NAMES)

    def _head(self) -> Message:
        """Return the message before the body; it is sent with the first bytes."""
        head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        if self._late is not None and isinstance(self._feed, IterableFeed):
            self._feed.framing = FirstFraming(self._feed.framing, partial(self._late.complete, head))
        return head

    @property
    def reason(self) -> str | None:
        """The reason why the stream ended or is about to end; None before.

        `client` (it disconnected), `shutdown` (of the server or the hub), `slow` (the client did not read), `lifetime`,
        `revoked` (`subscription.end("revoked")`), `error` (in the content), `refused` (by a limit) or `finished`. A
        request without anything to stream has `finished` too: HEAD, and a client that has seen the end.
        """
        return self._reason if self._connection is None else self._connection.reason

    @property
    def disconnected(self) -> bool:
        """True if the client has disconnected or was cut off, so that no later event reaches it."""
        return self.reason in ("client", "slow")

    def _is_over(self, scope: Scope) -> bool:
        """Return True if the client has seen the end of this stream."""
        if isinstance(self.content, RunSubscription):
            return self.content.run.is_over(self.content.last_event_id or last_event_id(scope))
        if isinstance(self.content, Subscription) and self.content.options.until is None:
            return False
        return not self._reconnect_after_end and has_seen_the_end(scope)

    def _with_drain(self, scope: Scope) -> Terms:
        """Return the terms with the time for which the content may go on when the server stops."""
        drain = default_drain_timeout(scope) if self._drain_timeout is NOT_GIVEN else self._drain_timeout
        is_endless = isinstance(self.content, Subscription) and not isinstance(self.content, RunSubscription)
        if not drain or is_endless:
            return self._terms
        return self._terms._replace(drain_timeout=drain)

    def _refuse(self, scope: Scope, send: Send) -> Coroutine[Any, Any, None]:
        dialect = self._terms.dialect
        if dialect is None:
            status, headers, body = refusal(scope, self.raw_headers)
        else:
            status, headers, body = 200, self.raw_headers, last_words(dialect, "refused", None, scope)
        return self._answer(scope, send, status, headers, "refused", body=body)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        status: int,
        headers: list[tuple[bytes, bytes]],
        reason: str,
        *,
        body: bytes = b"",
    ) -> None:
        """Answer without streaming the content; close it, because the endpoint has made it; run the background task."""
        self._reason = reason
        patience: float | None = self._terms.cleanup_timeout
        try:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body, "more_body": False})
            patience = None
        except OSError:  # the client has disconnected
            patience = None
        finally:
            await self._feed.close()
            if self.background is not None:  # after a cancellation it has `patience` seconds
                with anyio.move_on_after(patience, shield=patience is not None):
                    await run_background(self.background, scope)


def _merged(headers: Mapping[str, str] | None, dialect: Dialect | None) -> list[tuple[bytes, bytes]]:
    given = _raw(headers or {})
    names = {name for name, _ in given}
    defaults = HEADERS if dialect is None else (*HEADERS, *_raw(dialect.headers))
    return [*(header for header in defaults if header[0] not in names), *given]


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def _spoken(dialect: Dialect | None, on_error: Any, *, encoded: bool) -> Dialect | None:
    """Return the dialect of a stream that has these options, or None."""
    check_dialect(dialect)
    if dialect is not None and on_error is not None:
        msg = "on_error and dialect exclude each other: the words for an error are the dialect's failed()"
        raise ValueError(msg)
    return PassedOn(dialect) if dialect is not None and encoded else dialect


def _comment(size: int) -> bytes:
    """Return a comment line of `size` bytes."""
    if not 0 <= size <= MAX_PADDING:
        msg = f"padding must be 0 to {MAX_PADDING} bytes (got {size})"
        raise ValueError(msg)
    return b":" + b" " * (size - 2) + b"\n" if size else b""


def _feed(content: Any, cleanup_timeout: float, dialect: Dialect | None, *, encoded: bool) -> Feed:
    if isinstance(content, Subscription):
        if encoded:
            msg = "encoded=True is for chunks of a stream, and a subscription has events: leave it out"
            raise TypeError(msg)
        if dialect is not None:
            return SpokenSubscription(content, cleanup_timeout, dialect)
        return RunFeed(content) if isinstance(content, RunSubscription) else SubscriptionFeed(content)
    refused = isinstance(content, str | bytes | bytearray | memoryview | Mapping | type)
    if isinstance(content, AsyncIterable | Iterable) and not refused:
        framing = ChunkFraming() if encoded else None if dialect is None else DialectFraming(dialect)
        return IterableFeed(content, cleanup_timeout, framing)
    if inspect.iscoroutine(content):
        content.close()
    msg = f"EventSourceResponse cannot stream {type(content).__name__}: {_advice(content)}"
    raise TypeError(msg)


def _advice(content: Any) -> str:
    if callable(content):
        return "call the function and pass what it returns, as in EventSourceResponse(events())"
    if inspect.isawaitable(content):
        return "await it first, or put a `yield` into the async function so that it becomes a generator"
    if isinstance(content, str | bytes | bytearray | memoryview | Mapping | ServerSentEvent):
        return "put single events into a list, as in EventSourceResponse([event])"
    return "pass hub.subscribe(...), a Run, an async or sync generator, or another iterable of events"
