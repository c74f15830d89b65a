"""EventSourceApp: the channels of a hub as a mountable ASGI application."""

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from ._hub import Hub
from ._options import Overflow, Snapshot, Transform, check_callable, check_channels
from ._polling import PollResponse, check_max_wait, requested_poll
from ._publishing import PublishResponse, check_max_body_bytes, refusal
from ._response import EventSourceResponse

METHODS = "GET, HEAD, OPTIONS"
REQUEST_HEADERS = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Requested-With"
MAX_LIFETIME = 1800.0
RESERVED = "sse."

Channels = Collection[str] | Callable[[Request], Any]


class EventSourceApp:
    """Streams channels of a hub over HTTP: `app.mount("/events", EventSourceApp(hub, ...))`.

    `GET /events/?channel=a&channel=b` streams two channels. Without any option only the default channel is served.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        channels: Channels | None = None,
        default_channel: str = "default",
        authorize: Callable[[Request, tuple[str, ...]], Any] | None = None,
        cors_origins: Collection[str] = (),
        max_channels: int = 100,
        initial: Iterable[Any] = (),
        snapshot: Snapshot | None = None,
        transform: Transform | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
        max_lifetime: float | None = MAX_LIFETIME,
        publish: Callable[[Request, tuple[str, ...]], Any] | None = None,
        max_body_bytes: int = 65536,
        max_wait: float = 30.0,
        **response_options: Any,
    ) -> None:
        """Say what is served, and to whom.

        Args:
            hub: Opened by EventSourceMiddleware, by `hub.lifespan`, or by this app when it is the outermost.
            channels: What a request may ask for by `?channel=`: None is the default channel, or whatever `authorize`
                lets through; `"*"` is any name; a collection is these names, and all of them for a request without
                `?channel=`. A function of the request, sync or async, decides instead of the query.
            default_channel: The channel of a request that names none.
            authorize: A function of the request and the channels, sync or async, called before anything is
                subscribed, on resuming as well. It raises HTTPException to refuse; what it returns is the
                subscription's `properties`.
            cors_origins: Other origins that may read, like `https://example.com`; `"*"` lets any read, without
                credentials.
            max_channels: The most channels in one request.
            initial: See Hub.subscribe, like the next six.
            snapshot: See Hub.subscribe.
            transform: See Hub.subscribe.
            buffer_size: See Hub.subscribe.
            buffer_bytes: See Hub.subscribe.
            overflow: See Hub.subscribe.
            position_frames: See Hub.subscribe.
            max_lifetime: Seconds, give or take a fifth, after which a browser is made to reconnect, without a loss;
                not applied where the hub keeps no history. None never does.
            publish: A function of the request and the channels, sync or async, called before anything is published by a
                POST; it raises HTTPException to refuse, and may read the request's body. None publishes nothing.
            max_body_bytes: The most bytes of a POST.
            max_wait: The most seconds that `?wait=` lets a poll wait for its first event.
            **response_options: Options of EventSourceResponse: ping_interval, retry, send_timeout, headers.

        Raises:
            TypeError: An unknown option.
            ValueError: A bad channel name or option.
        """
        self._hub = hub
        fixed = channels is not None and channels != "*" and not callable(channels)
        self._channels = _served((channels,) if isinstance(channels, str) else channels) if fixed else channels
        self._default = _served((default_channel,))
        self._authorize = check_callable("authorize", authorize)
        self._origins = frozenset((cors_origins,) if isinstance(cors_origins, str) else cors_origins)
        self._max_channels = max_channels
        self._subscribe_options: dict[str, Any] = {
            "initial": tuple(initial),
            "snapshot": snapshot,
            "transform": transform,
            "buffer_size": buffer_size,
            "buffer_bytes": buffer_bytes,
            "overflow": overflow,
            "position_frames": position_frames,
        }
        self._response_options = response_options
        self._max_lifetime = max_lifetime
        self._publish = check_callable("publish", publish)
        self._max_body_bytes = check_max_body_bytes(max_body_bytes)
        self._max_wait = check_max_wait(max_wait)
        self._methods = METHODS if publish is None else f"{METHODS}, POST"
        EventSourceResponse((), max_lifetime=max_lifetime, **response_options)

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
            _check_target(request, self._methods)
            cors = self._cors_headers(request)
            if request.method == "OPTIONS":
                return _preflight(cors, self._methods)
            return self._post(request, cors) if request.method == "POST" else await self._get(request, cors)
        except HTTPException as error:
            if request.method == "POST" and self._publish is not None:
                return refusal(error, cors)
            error.headers = {**cors, **(error.headers or {})}
            if "starlette.exception_handlers" in scope:
                raise
            return PlainTextResponse(error.detail, error.status_code, error.headers)

    def _post(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        return PublishResponse(
            self._hub,
            request,
            channels=partial(self._requested, serves=self._may_publish_to),
            authorize=self._publish,
            limit=self._max_body_bytes,
            headers=cors,
        )

    async def _get(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        poll = requested_poll(request, self._max_wait)
        channels = await self._requested(request, request.query_params.getlist("channel"), serves=self._serves)
        properties = None if self._authorize is None else await _result(self._authorize(request, channels))
        subscription = self._hub.subscribe(
            *channels,
            last_event_id=_queried_id(request),
            properties=properties,
            **self._subscribe_options | ({} if poll is None else {"position_frames": True}),
        )
        options = self._response_options
        headers = {**(options.get("headers") or {}), **cors}
        if poll is not None:
            return PollResponse(subscription, **poll._asdict(), retry=options.get("retry"), headers=headers)
        lossless = self._max_lifetime is not MAX_LIFETIME or self._hub.keeps_history
        lifetime = self._max_lifetime if lossless else None
        return EventSourceResponse(subscription, max_lifetime=lifetime, **{**options, "headers": headers})

    # Which channels

    async def _requested(
        self, request: Request, asked: Sequence[str], *, serves: Callable[[str], bool]
    ) -> tuple[str, ...]:
        allowed = self._channels
        if callable(allowed):
            chosen = await _result(allowed(request))
            names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
            if not names or any(name.startswith(RESERVED) for name in names):
                raise HTTPException(403, "there is no channel here for this request")
            return check_channels(names)
        if not asked:
            return self._default if allowed is None or allowed == "*" else tuple(allowed)
        if len(asked) > self._max_channels:
            raise HTTPException(400, f"at most {self._max_channels} channels in one request, not {len(asked)}")
        try:
            names = check_channels(asked)
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        for name in names:
            if not serves(name):
                raise HTTPException(403, f"the channel {name!r} is not served here")
        return names

    def _serves(self, name: str) -> bool:
        if name.startswith(RESERVED):
            return False
        if self._channels is None:
            return self._authorize is not None or name in self._default
        return self._channels == "*" or (not callable(self._channels) and name in self._channels)

    def _may_publish_to(self, name: str) -> bool:
        return self._serves(name) or (self._channels is None and not name.startswith(RESERVED))

    # Which origins

    def _cors_headers(self, request: Request) -> dict[str, str]:
        origin = request.headers.get("origin")
        vary = {"Vary": "Origin"} if self._origins else {}
        if origin in self._origins:
            return {**vary, "Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
        if origin is not None and "*" in self._origins:
            return {**vary, "Access-Control-Allow-Origin": "*"}
        if origin is None or _is_same_origin(origin, request.headers.get("host", "")):
            return vary
        raise HTTPException(403, f"the origin {origin!r} is not allowed here")


def _served(names: Any) -> tuple[str, ...]:
    """Check names that are to be served to everybody who may ask."""
    checked = check_channels(names)
    if any(name.startswith(RESERVED) for name in checked):
        msg = f"channels beginning with {RESERVED!r} are the library's own, and never served"
        raise ValueError(msg)
    return checked


def _check_target(request: Request, methods: str) -> None:
    below = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    if below.strip("/"):
        raise HTTPException(404)
    if request.method not in methods.split(", "):
        raise HTTPException(405, headers={"Allow": methods})


def _queried_id(request: Request) -> str | None:
    """Return the id that the query gives, unless there is the header, which the response reads itself."""
    if "last-event-id" in request.headers:
        return None
    return request.query_params.get("last_event_id", request.query_params.get("lastEventId"))


def _preflight(cors: dict[str, str], methods: str) -> Response:
    headers = {**cors, "Allow": methods}
    if "Access-Control-Allow-Origin" in cors:
        headers["Access-Control-Allow-Methods"] = methods
        headers["Access-Control-Allow-Headers"] = REQUEST_HEADERS
        headers["Access-Control-Max-Age"] = "600"
    return Response(status_code=204, headers=headers)


def _is_same_origin(origin: str, host: str) -> bool:
    """Compare host and port; a proxy may have taken the TLS off, so the scheme only says the default port."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"//{host}")
        default = {"http": 80, "https": 443}.get(page.scheme)
        return bool(page.hostname) and (page.hostname, page.port or default) == (here.hostname, here.port or default)
    except ValueError:  # a port that is no number
        return False


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
