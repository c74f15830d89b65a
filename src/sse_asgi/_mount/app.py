"""EventSourceApp: the channels of a hub as a mountable ASGI application."""

import inspect
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Unpack

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from .._hub.hub import Hub
from .._hub.options import NOT_GIVEN, NotGiven, Overflow, Snapshot, Transform, check_callable, check_known
from .._hub.subscription import Subscription
from .._stream.response import ENDS_FOR_GOOD, EventSourceResponse
from .._stream.terms import ResponseOptions
from .access import Access, Authorize, verdict
from .channels import Channels, ServedChannels
from .client import FOR_EVERYONE, ClientScript
from .cors import CrossOrigin
from .problem import plain_response, problem_response, with_headers
from .publishing import Publishing, check_max_body_bytes
from .query import QueryLimits
from .reading import Reading
from .tickets import ChannelSigner

MAX_LIFETIME = 1800.0
CLIENT = "client.js"

Handler = Callable[[Request, dict[str, str]], Awaitable[ASGIApp]]


class EventSourceApp:
    """Streams channels of a hub over HTTP: `app.mount("/events", EventSourceApp(hub, ...))`.

    `GET /events/?channel=a&channel=b` streams two channels. Without any option only the default channel is served.
    `GET /events/client.js` is the module that a page reads with.

    Attributes:
        hub: The hub.
        routes: The app's routes by name, for `url_path_for("events:stream")` and `url_path_for("events:client")` where
            it is mounted as `events`.
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
        until: str | None = None,
        transform: Transform | None = None,
        buffer_size: int | None = None,
        buffer_bytes: int | None = None,
        overflow: Overflow | None = None,
        position_frames: bool = True,
        max_lifetime: float | NotGiven | None = NOT_GIVEN,
        **response_options: Unpack[ResponseOptions],
    ) -> None:
        """Check the options.

        Args:
            hub: Opened by EventSourceMiddleware, by `hub.lifespan`, or by this app when it is the outermost.
            channels: The channels that a request may name by `?channel=`. None is the default channel; with
                `authorize`, it is every channel that the function allows. `"*"` is every channel. A collection is
                these channels, and all of them for a request without `?channel=`; in it `room:{room}` is filled from
                the path parameters, and `orders.*` allows every name that matches. A function of the request, sync or
                async, returns the channels instead, and the query does not count.
            default_channel: The channel of a request that names none.
            max_channels: The most channels in one request.
            authorize: A function of the request and the channels, sync or async, called before anything is
                subscribed, on resuming as well. It raises HTTPException to refuse. It returns the subscription's
                `properties`, or a Grant. A str is the reader's identity as well.
            revalidate: Seconds, give or take a fifth, after which `authorize` is called again for an open stream. The
                stream ends if it refuses.
            tickets: Accepts `?ticket=...`, signed by this signer, in place of `channels` and `authorize`.
            cors_origins: Other origins that may read, like `https://example.com`; `"*"` lets every origin read,
                without credentials.
            cors_headers: Headers that pages of other origins may send besides those that this app reads, like
                `X-Api-Key`.
            presence: Whether readers are listed by their identity, see `Hub.presence`.
            on_disconnect: A function of the request, its subscription and the reason, sync or async, called when the
                stream has ended, also when a limit refused it; for the reasons see `EventSourceResponse.reason`.
            stats: A function of the request, sync or async, that raises HTTPException to refuse. With it the hub's
                statistics are served at `stats` below this app.
            publish: A function of the request and the channels, sync or async, called before anything is published by a
                POST. It raises HTTPException to refuse, and may read the request's body. None publishes nothing.
            max_body_bytes: The most bytes of a POST.
            max_wait: The most seconds that `?wait=` lets a poll wait for its first event.
            initial: See Hub.subscribe.
            rewind: See Hub.subscribe; for requests without `?rewind=`.
            max_rewind: The most events that a fresh stream may ask for by `?rewind=`, as a number or `all`; a greater
                number gets as many. `math.inf` is no bound; 0 answers `?rewind=` with 400.
            snapshot: See Hub.subscribe, like the next six; not together with `rewind` or `max_rewind`.
            until: See Hub.subscribe; for every stream and poll of this app.
            transform: See Hub.subscribe.
            buffer_size: See Hub.subscribe.
            buffer_bytes: See Hub.subscribe.
            overflow: See Hub.subscribe.
            position_frames: See Hub.subscribe.
            max_lifetime: Seconds, give or take a fifth, after which a browser is made to reconnect; None never does.
                The default is 1800 if reconnecting loses no events, because the hub keeps history, or if there is
                `authorize` or `tickets`; otherwise it is None.
            **response_options: Other options of EventSourceResponse, such as ping_interval, retry, send_timeout,
                headers and padding.

        Raises:
            TypeError: An unknown option, or an option of a wrong type, or a function with other parameters.
            ValueError: A bad channel name, origin, header or option, or an option that needs another.
        """
        self.hub: Hub = _checked_hub(hub)
        self._cross_origin = CrossOrigin(cors_origins, cors_headers)
        self._stats = check_callable("stats", stats, "request")
        served = ServedChannels(channels, default=default_channel, limit=max_channels, gathered=hub.patterns)
        access = Access(served, authorize, revalidate=revalidate, tickets=tickets, presence=presence)
        _check_rewinding(snapshot, rewind, max_rewind)
        options = hub._reader_options(  # noqa: SLF001 - one library
            transform=check_callable("transform", transform, "event", "properties"),
            initial=initial,
            rewind=rewind,
            snapshot=snapshot,
            until=until,
            buffer_size=buffer_size,
            buffer_bytes=buffer_bytes,
            overflow=overflow,
            position_frames=position_frames,
        )
        if max_lifetime is NOT_GIVEN:
            max_lifetime = MAX_LIFETIME if hub.keeps_history or access.restricts else None
        _check_response_options(max_lifetime, response_options)
        if until is not None and response_options.get("reconnect_after_end"):
            raise ValueError(ENDS_FOR_GOOD)
        limits = QueryLimits(max_rewind, max_wait)
        self._reading = Reading(
            hub, access, limits, options, response_options, max_lifetime=max_lifetime, on_disconnect=on_disconnect
        )
        check_max_body_bytes(max_body_bytes)
        self._publishing = None if publish is None else Publishing(hub, served, publish, max_body_bytes)
        self.routes: list[Route]
        self._handlers, self.routes = self._table()

    def _table(self) -> tuple[dict[str, dict[str, Handler]], list[Route]]:
        """Return the handlers, by the path below this app and by the method, and the routes."""
        read = self._reading.respond
        script = ClientScript().respond
        handlers: dict[str, dict[str, Handler]] = {
            "": {"GET": read, "HEAD": read},
            CLIENT: {"GET": script, "HEAD": script},
        }
        routes = [Route("/", self, name="stream"), Route(f"/{CLIENT}", self, name="client")]
        if self._publishing is not None:
            handlers[""]["POST"] = self._publishing.respond
        if self._stats is not None:
            handlers["stats"] = {"GET": self._report, "HEAD": self._report}
            routes.append(Route("/stats", self, name="stats"))
        return handlers, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan where this app is the outermost."""
        if scope["type"] == "lifespan":
            await Router(lifespan=self.hub.lifespan).lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await (await self._answer(scope, send))(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, send: Send) -> ASGIApp:
        request = Request(scope)  # without receive(), which has one owner: the response
        cors: dict[str, str] = {}
        try:
            place = self._place(scope)
            cors = FOR_EVERYONE if place == CLIENT else self._cross_origin.headers(request, send)
            return await self._handle(request, place, cors)
        except HTTPException as error:
            if request.method == "POST" and self._publishing is not None:
                return problem_response(error, cors)
            refused = with_headers(error, cors)
            if "starlette.exception_handlers" in scope:
                raise refused from error
            return plain_response(refused)

    async def _handle(self, request: Request, place: str, cors: dict[str, str]) -> ASGIApp:
        handlers = self._handlers.get(place)
        if handlers is None:
            raise HTTPException(404)
        handler = handlers.get(request.method)
        if handler is not None:
            return await handler(request, cors)
        methods = ", ".join(sorted((*handlers, "OPTIONS")))
        if request.method == "OPTIONS":
            return self._cross_origin.preflight(cors, methods)
        raise HTTPException(405, headers={"Allow": methods})

    def _place(self, scope: Scope) -> str:
        """Return the path below this app; it is empty if a Route leads here, because the whole path is the route's."""
        if isinstance(scope.get("route"), Route) or self._is_routed(scope):
            return ""
        path: str = scope["path"]
        root: str = scope.get("root_path", "")
        if not path.startswith(root):  # behind a proxy that strips the prefix which FastAPI(root_path=...) adds
            root = root.removeprefix(scope.get("app_root_path", ""))
        return path.removeprefix(root).strip("/")

    def _is_routed(self, scope: Scope) -> bool:
        """Return True if a Route leads here, under a Starlette that is too old to name the route in the scope."""
        routes = getattr(scope.get("router"), "routes", ())
        return "route" not in scope and scope.get("endpoint") is self and not _is_mounted(self, routes)

    async def _report(self, request: Request, cors: dict[str, str]) -> ASGIApp:
        assert self._stats is not None
        await verdict("stats", self._stats(request))
        content = {**self.hub.stats()._asdict(), "hub": self.hub.state}
        return JSONResponse(content, headers={**cors, "Cache-Control": "no-store"})


def _is_mounted(app: ASGIApp, routes: Iterable[BaseRoute]) -> bool:
    """Return True if an app is mounted somewhere in these routes."""
    mounts = (one for one in routes if isinstance(one, Mount | Host))
    return any(one.app is app or _is_mounted(app, one.routes) for one in mounts)


# Options


def _checked_hub(hub: Any) -> Hub:
    if not isinstance(hub, Hub):
        msg = f"hub must be a Hub, as create_hub() makes one (got {type(hub).__name__})"
        raise TypeError(msg)
    return hub


def _check_rewinding(snapshot: Snapshot | None, rewind: float, max_rewind: float) -> None:
    if snapshot is not None and (rewind or max_rewind):
        msg = "snapshot stands for all events before it: leave out either snapshot, or rewind and max_rewind"
        raise ValueError(msg)


def _check_response_options(max_lifetime: float | None, options: ResponseOptions) -> None:
    own = inspect.signature(EventSourceApp).parameters.keys() - {"hub", "response_options"}
    check_known("EventSourceApp", options, own | ResponseOptions.__annotations__.keys())
    EventSourceResponse((), max_lifetime=max_lifetime, **options)
