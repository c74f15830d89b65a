"""EventSourceMiddleware: opens the hub with the application, and guards all event streams of the application."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from contextvars import Context
from functools import partial
from typing import Any, Protocol

import anyio
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._hub.hub import Hub
from .._hub.options import check_drain_timeout, seconds_or_never
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from .._servers.server import Server
from .._servers.shutdown import ShutdownNotice, current_notice
from .._stream.ending import END_HEADERS, has_seen_the_end
from .._stream.foreign import Guard
from .._stream.limits import ConnectionLimit, as_limit
from .._stream.observed import StreamObserver
from .._stream.terms import GuardTerms
from ..exceptions import HubClosedError

NO_HUB = (
    "this application gives its requests no hub. Add one with `app.add_middleware(EventSourceMiddleware, hub=hub)`, or "
    "with `FastAPI(lifespan=hub.lifespan)`. A test client must run the application's lifespan: `with TestClient(app):`."
)


class Observer(StreamObserver, Protocol):
    """What a middleware asks of its telemetry."""

    def observe(self, hub: Hub) -> AbstractContextManager[None]:
        """Observe an open hub inside the block."""


class EventSourceMiddleware:
    """Opens a hub, and ends every event stream of the application when the server stops.

    Add it last, so that it is the outermost: `app.add_middleware(EventSourceMiddleware, hub=hub)`. It is plain ASGI,
    so it sees the application's lifespan. It changes only event streams, of this library and of others.

    A GET whose Last-Event-ID is `sse.end` does not reach the application: the client was told that its stream is over,
    and the answer 204 makes it stop asking. The application's `receive` is the server's own, unless the request may
    have a body: then a stream's content can read the body while the client is watched.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hub: Hub | None = None,
        ping_interval: float | None = 15.0,
        max_lifetime: float | None = None,
        max_connections: int | ConnectionLimit | None = None,
        drain_timeout: float = 0.0,
        telemetry: Observer | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            hub: Opened before the application starts and closed after it has stopped; `get_hub` finds it. None guards
                streams only.
            ping_interval: Seconds of silence after which an event stream that is not of this library is sent a ping;
                None sends no pings.
            max_lifetime: Seconds, give or take a fifth, after which such a stream is ended; None never ends it.
            max_connections: The most event streams of this process, of every kind, or a ConnectionLimit, which also
                limits the streams of one user, and counts them. The newest stream is refused.
            drain_timeout: Seconds for which runs, the streams of iterables, and those of other libraries, may go on to
                their own end after the server was told to stop. The server's own grace period must be longer.
                Subscriptions end at once. An EventSourceResponse may have its own.
            telemetry: A `sse_asgi.telemetry.Telemetry`, which observes the hub, and all event streams of the
                application.

        Raises:
            TypeError: `hub` is not a Hub, `max_connections` is not a limit, or `telemetry` is not a Telemetry.
            ValueError: A number that is not above 0, or a bad `drain_timeout`.
        """
        if hub is not None and not isinstance(hub, Hub):
            msg = f"hub must be a Hub, as create_hub() makes one (got {type(hub).__name__})"
            raise TypeError(msg)
        if telemetry is not None and not hasattr(telemetry, "observe"):
            msg = f"telemetry must be a sse_asgi.telemetry.Telemetry (got {telemetry!r}): write telemetry=Telemetry()"
            raise TypeError(msg)
        self.app = app
        self.hub = hub
        self._telemetry = telemetry
        self._terms = GuardTerms(
            seconds_or_never("ping_interval", ping_interval),
            seconds_or_never("max_lifetime", max_lifetime),
            as_limit(max_connections),
            check_drain_timeout(drain_timeout),
            telemetry,
        )
        self._supervisor: Child | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] == "http" and has_seen_the_end(scope):
            await _stop_client(scope, send)
            return
        if self.hub is not None:
            if self.hub.state == "closed":
                await self._open_without_lifespan(self.hub)
            scope.setdefault("state", {})["hub"] = self.hub
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        guard = Guard(self._terms, scope, receive, send)
        try:
            await guard.run(self.app)
            if guard.rest is not None:
                await guard.rest
        except BaseException as error:
            guard.fail(error)
            raise
        finally:
            guard.leave()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        notice = current_notice()
        server = notice.watch(scope)

        def look_away() -> None:
            notice.forget(server)
            notice.unwatch()

        async with AsyncExitStack() as stack:

            async def close_first(message: Message) -> None:
                # The server may stop the event loop as soon as it has this message.
                if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                    await self._finish_runs(notice)
                    await stack.aclose()
                await send(message)

            stack.callback(look_away)
            async with _starting("", receive, send):
                _prepare(scope.get("app", self.app))
            if self.hub is not None:
                async with _starting("the hub cannot be opened: ", receive, send):
                    await stack.enter_async_context(self._opened(self.hub))
                scope.setdefault("state", {})["hub"] = self.hub
            await self.app(scope, partial(_receive_when_quiet, receive, notice, server), close_first)

    async def _finish_runs(self, notice: ShutdownNotice) -> None:
        """Give the runs of this process the rest of `drain_timeout`, or until a signal comes again."""
        seconds = notice.left_of(self._terms.drain_timeout)
        if self.hub is None or not seconds:
            return
        news: list[None] = []
        with anyio.CancelScope() as scope:

            def hear() -> None:
                news.append(None)
                if len(news) > 1:  # the first call is the news of now
                    scope.cancel()

            notice.listen(hear)
            try:
                await self.hub.wait_for_runs(seconds)
            finally:
                notice.unlisten(hear)

    @asynccontextmanager
    async def _opened(self, hub: Hub) -> AsyncIterator[None]:
        """Open the hub, and have it observed until it is closed."""
        with ExitStack() as stack:
            async with hub:
                if self._telemetry is not None:
                    stack.enter_context(self._telemetry.observe(hub))
                yield

    async def _open_without_lifespan(self, hub: Hub) -> None:
        """Open the hub in a task that lives as long as the event loop, where the server has no lifespan."""
        opened = new_wakeup()

        async def supervise() -> None:
            async with self._opened(hub):
                opened.set()
                await anyio.sleep_forever()

        self._supervisor = spawn(supervise, opened.set, context=Context())  # not the context of this request
        await opened


@asynccontextmanager
async def _starting(what: str, receive: Receive, send: Send) -> AsyncIterator[None]:
    """Tell the server that the application cannot start, if the block fails."""
    try:
        yield
    except Exception as error:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": f"{what}{error}"})
        raise


def _prepare(app: ASGIApp) -> None:
    """Check and document the streams of an application of FastAPI, which is imported only if it is in use."""
    if "fastapi" in sys.modules:
        from ..fastapi import prepare  # noqa: PLC0415 - optional

        prepare(app)


async def _stop_client(scope: Scope, send: Send) -> None:
    """Answer a client that has seen the end of its stream; the application would begin the stream again.

    Pages of every origin may read the answer. It contains nothing, and a page that could not read it would ask again.
    """
    headers = [*END_HEADERS]
    for name, value in scope["headers"]:
        if name == b"origin":
            headers += [(b"access-control-allow-origin", value), (b"access-control-allow-credentials", b"true")]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})


async def _receive_when_quiet(receive: Receive, notice: ShutdownNotice, server: Server) -> Message:
    """Delay the shutdown message until all streams have ended: granian stops the event loop while they clean up."""
    message = await receive()
    if message["type"] == "lifespan.shutdown":
        notice.hear(server)
        quiet = new_wakeup()
        notice.when_quiet(quiet.set, server)
        await quiet
    return message


def get_hub(connection: HTTPConnection) -> Hub:
    """Return the hub of the application that serves this request: `hub: Annotated[Hub, Depends(get_hub)]`.

    Raises:
        HubClosedError: The application has neither EventSourceMiddleware with a hub nor a hub's lifespan, or its
            lifespan was not run.
    """
    hub: Any = connection.scope.get("state", {}).get("hub")
    if not isinstance(hub, Hub):
        what = "get_hub found no hub"
        raise HubClosedError(what, NO_HUB)
    return hub
