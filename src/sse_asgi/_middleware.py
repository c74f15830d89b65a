"""EventSourceMiddleware: opens the hub with the application, and guards its event streams."""

from contextlib import AsyncExitStack
from typing import Any

import anyio
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._guard import Guard
from ._hub import Hub
from ._runtime import Child, new_wakeup, spawn
from ._shutdown import current_notice
from .exceptions import HubClosedError


class EventSourceMiddleware:
    """Keeps event streams, whoever makes them, from keeping the server from stopping, and opens a hub.

    Add it first of all: `app.add_middleware(EventSourceMiddleware, hub=hub)`. It is plain ASGI, so that it sees the
    application's lifespan, and nothing but event streams is touched.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hub: Hub | None = None,
        ping_interval: float | None = 15.0,
        max_lifetime: float | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            hub: Opened before the application starts and closed after it has stopped; `get_hub` finds it. None only
                guards.
            ping_interval: Seconds of silence after which an event stream that is not of this library is sent a ping;
                None sends none.
            max_lifetime: Seconds, give or take a fifth, after which such a stream is ended; None lets it run.

        Raises:
            TypeError: `hub` is no Hub.
        """
        if hub is not None and not isinstance(hub, Hub):
            msg = f"hub must be a Hub, as create_hub() makes one, not {type(hub).__name__}"
            raise TypeError(msg)
        self.app = app
        self.hub = hub
        self._ping_interval = ping_interval
        self._max_lifetime = max_lifetime
        self._supervisor: Child | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if self.hub is not None:
            if self.hub.state == "closed":
                await self._open_without_lifespan(self.hub)
            scope.setdefault("state", {})["hub"] = self.hub
        if scope["type"] == "http":
            await Guard(send, self._ping_interval, self._max_lifetime).run(self.app, scope, receive)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:

            async def close_first(message: Message) -> None:
                # The server may stop the event loop as soon as it has this message.
                if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                    await stack.aclose()
                await send(message)

            notice = current_notice()
            listener = _Listener()
            notice.listen(listener)
            stack.callback(notice.unlisten, listener)
            if self.hub is not None:
                try:
                    await stack.enter_async_context(self.hub)
                except Exception as error:
                    await receive()
                    await send({"type": "lifespan.startup.failed", "message": f"the hub cannot be opened: {error}"})
                    raise
                scope.setdefault("state", {})["hub"] = self.hub
            await self.app(scope, receive, close_first)

    async def _open_without_lifespan(self, hub: Hub) -> None:
        """Open the hub in a task that lives as long as the event loop, where the server has no lifespan."""
        opened = new_wakeup()

        async def supervise() -> None:
            async with hub:
                opened.set()
                await anyio.sleep_forever()

        self._supervisor = spawn(supervise, opened.set)
        await opened


class _Listener:
    """Keeps the notice listening while no stream is open; one for each application in an event loop."""

    def __call__(self) -> None:
        """Do nothing: each stream hears for itself."""


def get_hub(connection: HTTPConnection) -> Hub:
    """Return the hub of the application that serves this request: `hub: Annotated[Hub, Depends(get_hub)]`.

    Raises:
        HubClosedError: The application has neither EventSourceMiddleware with a hub nor a hub's lifespan, or its
            lifespan was not run.
    """
    hub: Any = connection.scope.get("state", {}).get("hub")
    if not isinstance(hub, Hub):
        what = "this application has no hub"
        raise HubClosedError(what)
    return hub
