"""EventSourceApp: the channels of a hub as a mountable ASGI application."""

import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from .._hub.hub import Hub
from .._hub.options import (
    Overflow,
    Snapshot,
    Transform,
    check_callable,
    check_known,
    check_rewind,
    initial_events,
    is_personal,
)
from .._hub.subscription import Subscription
from .._stream.last_event_id import last_event_id
from .._stream.response import MAX_PADDING, EventSourceResponse
from .access import Access, Admission, Authorize, verdict
from .channels import Channels, ServedChannels
from .cors import CrossOrigin
from .polling import PollResponse, check_max_wait, requested_poll
from .publishing import PublishResponse, check_max_body_bytes, problem_response
from .tickets import ChannelSigner

MAX_LIFETIME = 1800.0
MAX_DIGITS = 16
BODILESS = (204, 304)
PADDING = {"true": 2048, "1": 2048, "false": 0, "": 0}
PADDING_PARAMETERS = ("padding", "evs_preamble")

Handler = Callable[[Request, dict[str, str]], Awaitable[ASGIApp]]


class EventSourceApp:
    """Streams channels of a hub over HTTP: `app.mount("/events", EventSourceApp(hub, ...))`.

    `GET /events/?channel=a&channel=b` streams two channels. Without any option only the default channel is served.

    Attributes:
        routes: What there is, by name, for `url_path_for("events:stream")` where it is mounted as `events`.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        channels: Channels | None = None,
        default_channel: str = "default",
        max_channels: int = 100,
        authorize: Authorize | None = None,
        revalidate: float | None = None,
        tickets: ChannelSigner | None = None,
        cors_origins: Collection[str] = (),
        cors_headers: Collection[str] = (),
        presence: bool = False,
        on_disconnect: Callable[[Request, Subscription, str], Any] | None = None,
        stats: Callable[[Request], Any] | None = None,
        publish: Callable[[Request, tuple[str, ...]], Any] | None = None,
        max_body_bytes: int = 65536,
        max_wait: float = 30.0,
        initial: Iterable[Any] = (),
        rewind: float = 0,
        max_rewind: float = 0,
        snapshot: Snapshot | None = None,
        transform: Transform | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
        max_lifetime: float | None = MAX_LIFETIME,
        **response_options: Any,
    ) -> None:
        """Say what is served, and to whom.

        Args:
            hub: Opened by EventSourceMiddleware, by `hub.lifespan`, or by this app when it is the outermost.
            channels: What a request may ask for by `?channel=`: None is the default channel, or whatever `authorize`
                lets through; `"*"` is any name; a collection is these names, and all of them for a request without
                `?channel=`. In a collection `room:{room}` is filled from the path parameters, and `orders.*` allows
                every name that matches. A function of the request, sync or async, decides instead of the query.
            default_channel: The channel of a request that names none.
            max_channels: The most channels in one request.
            authorize: A function of the request and the channels, sync or async, called before anything is
                subscribed, on resuming as well. It raises HTTPException to refuse; what it returns is the
                subscription's `properties`, or a Grant. A str is the reader's identity as well.
            revalidate: Seconds, give or take a fifth, after which `authorize` is asked again for an open stream, which
                ends when it refuses.
            tickets: Accepts `?ticket=...`, signed by this, in place of `channels` and `authorize`.
            cors_origins: Other origins that may read, like `https://example.com`; `"*"` lets any read, without
                credentials.
            cors_headers: Headers that pages of other origins may send besides those that this app reads, like
                `X-Api-Key`.
            presence: Whether readers are listed by their identity, see `Hub.presence`.
            on_disconnect: A function of the request, its subscription and the reason, sync or async, called when the
                stream has ended, also one that a limit refused; for the reasons see `EventSourceResponse.reason`.
            stats: A function of the request, sync or async, that raises HTTPException to refuse; with it the hub's
                statistics are served at `stats` below this app.
            publish: A function of the request and the channels, sync or async, called before anything is published by a
                POST; it raises HTTPException to refuse, and may read the request's body. None publishes nothing.
            max_body_bytes: The most bytes of a POST.
            max_wait: The most seconds that `?wait=` lets a poll wait for its first event.
            initial: See Hub.subscribe.
            rewind: See Hub.subscribe; for requests without `?rewind=`.
            max_rewind: The most events that a fresh stream may ask for by `?rewind=`, as a number or `all`; a greater
                number gets as many. `math.inf` is no bound; 0 answers `?rewind=` with 400.
            snapshot: See Hub.subscribe, like the next five; not together with `rewind` or `max_rewind`.
            transform: See Hub.subscribe.
            buffer_size: See Hub.subscribe.
            buffer_bytes: See Hub.subscribe.
            overflow: See Hub.subscribe.
            position_frames: See Hub.subscribe.
            max_lifetime: Seconds, give or take a fifth, after which a browser is made to reconnect, without a loss
                where history is kept. Where none is, and there is neither `authorize` nor `tickets`, the default is
                None, which never does.
            **response_options: Options of EventSourceResponse: ping_interval, retry, send_timeout, headers, padding.

        Raises:
            TypeError: An unknown option, or something that should be a function, or one of other arguments.
            ValueError: A bad channel name, origin, header or option, or one that needs another.
        """
        if presence and authorize is None and tickets is None:
            msg = "presence=True needs authorize= or tickets=, which say who the readers are"
            raise ValueError(msg)
        self._hub = _checked_hub(hub)
        self._served = ServedChannels(channels, default=default_channel, limit=max_channels, gathered=hub.patterns)
        self._access = Access(self._served, authorize, revalidate=revalidate, tickets=tickets)
        self._cross_origin = CrossOrigin(cors_origins, cors_headers)
        self._asks = authorize is not None
        self._presence = presence
        self._on_disconnect = check_callable("on_disconnect", on_disconnect, "request", "subscription", "reason")
        self._stats = check_callable("stats", stats, "request")
        self._publish = check_callable("publish", publish, "request", "channels")
        self._max_rewind = _check_reading(transform, snapshot, rewind, max_rewind)
        self._max_body_bytes = check_max_body_bytes(max_body_bytes)
        self._max_wait = check_max_wait(max_wait)
        self._subscribe_options: dict[str, Any] = {
            "initial": initial_events(initial),
            "rewind": rewind,
            "snapshot": snapshot,
            "transform": transform,
            "buffer_size": buffer_size,
            "buffer_bytes": buffer_bytes,
            "overflow": overflow,
            "position_frames": position_frames,
        }
        self._response_options = response_options
        bounded = max_lifetime is not MAX_LIFETIME or hub.keeps_history or authorize is not None or tickets is not None
        self._max_lifetime = max_lifetime if bounded else None
        _check_response_options({"max_lifetime": max_lifetime, **response_options})
        self._handlers, self.routes = self._table()

    def _table(self) -> tuple[dict[str, dict[str, Handler]], list[Route]]:
        """Say what is answered by whom: by the path below this app, then by the method."""
        handlers: dict[str, dict[str, Handler]] = {"": {"GET": self._stream, "HEAD": self._stream}}
        routes = [Route("/", self, name="stream")]
        if self._publish is not None:
            handlers[""]["POST"] = self._post
        if self._stats is not None:
            handlers["stats"] = {"GET": self._report, "HEAD": self._report}
            routes.append(Route("/stats", self, name="stats"))
        return handlers, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan where this app is the outermost."""
        if scope["type"] == "lifespan":
            await Router(lifespan=self._hub.lifespan).lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await (await self._answer(scope))(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope) -> ASGIApp:
        request = Request(scope)  # without receive(), which has one owner: the response
        cors: dict[str, str] = {}
        try:
            cors = self._cross_origin.headers(request)
            return await self._handle(request, cors)
        except HTTPException as error:
            if request.method == "POST" and self._publish is not None:
                return problem_response(error, cors)
            refused = _with_headers(error, cors)
            if "starlette.exception_handlers" in scope:
                raise refused from error
            return _plain(refused)

    async def _handle(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        handlers = self._handlers.get(self._place(request.scope))
        if handlers is None:
            raise HTTPException(404)
        methods = ", ".join(sorted((*handlers, "OPTIONS")))
        if request.method == "OPTIONS":
            return self._cross_origin.preflight(cors, methods)
        if request.method not in handlers:
            raise HTTPException(405, headers={"Allow": methods})
        return await handlers[request.method](request, cors)

    def _place(self, scope: Scope) -> str:
        """Return the path below this app: none where a Route leads here, because all of the path is its own."""
        if isinstance(scope.get("route"), Route) or self._is_routed(scope):
            return ""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if not path.startswith(root):  # behind a proxy that strips what FastAPI(root_path=...) says
            root = root.removeprefix(scope.get("app_root_path", ""))
        return path.removeprefix(root).strip("/")

    def _is_routed(self, scope: Scope) -> bool:
        """Tell whether a Route leads here, where the Starlette is so old that it does not name the route."""
        routes = getattr(scope.get("router"), "routes", ())
        return "route" not in scope and scope.get("endpoint") is self and not _is_mounted(self, routes)

    # Streaming

    async def _stream(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        padding = _padding(request)
        rewind = _rewind(request, self._max_rewind)
        again = {} if rewind is None else {"rewind": rewind}
        poll = requested_poll(request, self._max_wait)
        since = self._hub.moment() if self._asks else None
        admission = await self._access.admit(request)
        options = self._response_options
        headers = {**(options.get("headers") or {}), **cors}
        if poll is not None:
            subscription = self._subscribe(request, admission, since=since, position_frames=True, **again)
            answer = PollResponse(subscription, **poll._asdict(), retry=options.get("retry"), headers=headers)
            return self._access.watch(answer, subscription, admission)
        subscription = self._subscribe(request, admission, since=since, **again)
        own = {"headers": headers} if padding is None else {"headers": headers, "padding": padding}
        response = EventSourceResponse(subscription, max_lifetime=self._max_lifetime, **{**options, **own})
        if self._on_disconnect is not None and request.method != "HEAD":
            response.background = BackgroundTask(self._left, request, subscription, response)
        return self._access.watch(response, subscription, admission)

    def _subscribe(self, request: Request, admission: Admission, **options: Any) -> Subscription:
        return self._hub.subscribe(
            *admission.channels,
            last_event_id=last_event_id(request.scope),
            properties=admission.grant.properties,
            identity=admission.grant.identity,
            presence=self._presence and admission.grant.identity is not None,
            **{**self._subscribe_options, **options},
        )

    async def _left(self, request: Request, subscription: Subscription, response: EventSourceResponse) -> None:
        assert self._on_disconnect is not None
        await _result(self._on_disconnect(request, subscription, response.reason))

    # Publishing

    async def _post(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        return PublishResponse(
            self._hub,
            request,
            channels=self._writable,
            authorize=self._publish,
            limit=self._max_body_bytes,
            headers=cors,
        )

    async def _writable(self, request: Request, asked: Sequence[str]) -> tuple[str, ...]:
        names = await self._served.of(request, asked, unsaid_is_any=True)
        if len(names) > 1 and not (asked or self._served.chosen):
            raise HTTPException(400, "say to which of the channels, as in ?channel=...: there are several")
        if any(name in self._hub.patterns for name in names):
            raise HTTPException(403, "say to which channel, as in ?channel=...: a pattern only gathers what they get")
        return names

    # Statistics

    async def _report(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        assert self._stats is not None
        await verdict("stats", self._stats(request))
        content = {**self._hub.stats()._asdict(), "hub": self._hub.state}
        return JSONResponse(content, headers={**cors, "Cache-Control": "no-store"})


def _is_mounted(app: ASGIApp, routes: Iterable[BaseRoute]) -> bool:
    """Tell whether an app is mounted somewhere in these routes."""
    mounts = (one for one in routes if isinstance(one, Mount | Host))
    return any(one.app is app or _is_mounted(app, one.routes) for one in mounts)


def _check_reading(transform: Transform | None, snapshot: Snapshot | None, rewind: float, max_rewind: float) -> float:
    """Check what readers get, and return the most events that a request may ask for."""
    check_callable("transform", transform, "event", "properties")
    is_personal(snapshot)
    check_rewind("rewind", rewind)
    check_rewind("max_rewind", max_rewind)
    if snapshot is not None and (rewind or max_rewind):
        msg = "snapshot stands for all events before it: leave out either snapshot, or rewind and max_rewind"
        raise ValueError(msg)
    return max_rewind


def _first(request: Request, names: Iterable[str]) -> str | None:
    """Return the first value of the first parameter that is there."""
    return next((value for name in names for value in request.query_params.getlist(name)), None)


def _rewind(request: Request, most: float) -> float | None:
    """Return how many events a request asks for, or None if it does not say.

    Raises:
        HTTPException: It is not a number of events, or this app does not allow any.
    """
    text = next(iter(request.query_params.getlist("rewind")), None)
    if text is None:
        return None
    if text != "all" and not (text.isascii() and text.isdecimal()):
        raise HTTPException(400, f"rewind must be a number of events or all (got {text[:20]!r})")
    count = math.inf if text == "all" or len(text) > MAX_DIGITS else int(text)
    if count and not most:
        raise HTTPException(400, "rewind is not allowed here: the application sets max_rewind= to allow it")
    return min(count, most)


def _padding(request: Request) -> int | None:
    text = _first(request, PADDING_PARAMETERS)
    if text is None or text in PADDING:
        return None if text is None else PADDING[text]
    size = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_PADDING)) else math.inf
    if size > MAX_PADDING:
        raise HTTPException(400, f"padding is true, false, or a number of bytes up to {MAX_PADDING}")
    return int(size)


def _with_headers(error: HTTPException, headers: dict[str, str]) -> HTTPException:
    """Copy what an application may raise to many requests, with headers that are this request's."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error), headers={**headers, **(error.headers or {})})
    return twin


def _plain(error: HTTPException) -> Response:
    if error.status_code in BODILESS:
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(str(error.detail), error.status_code, error.headers)


def _checked_hub(hub: Any) -> Hub:
    if not isinstance(hub, Hub):
        msg = f"hub must be a Hub, as create_hub() makes one (got {type(hub).__name__})"
        raise TypeError(msg)
    return hub


def _check_response_options(options: dict[str, Any]) -> None:
    own, of_response = (inspect.signature(one).parameters for one in (EventSourceApp, EventSourceResponse))
    check_known("EventSourceApp", options, {*own, *of_response} - {"hub", "content", "response_options", "encoded"})
    EventSourceResponse((), **options)


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
