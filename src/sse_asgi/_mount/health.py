"""HealthApp: whether this process lives, and whether it should get requests, for Kubernetes and load balancers."""

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .._hub.hub import Hub
from .._servers.shutdown import current_notice

NO_STORE = {"cache-control": "no-store"}


class HealthApp:
    """Answers probes: `app.mount("/health", HealthApp(hub))`.

    `GET /health/live` is always 200. `GET /health/ready`, and `/health/` itself, are 200 with `{"status":"up"}`, or 503
    with the status: `draining` (the server was told to stop), `down` (the backend cannot be reached) or `closed` (the
    hub is not open). To learn of a stop, the application needs EventSourceMiddleware.
    """

    def __init__(self, hub: Hub | None = None) -> None:
        """Probe a hub.

        Args:
            hub: The application's; None asks only whether the server stops.

        Raises:
            TypeError: `hub` is not a Hub.
        """
        if hub is not None and not isinstance(hub, Hub):
            msg = f"hub must be a Hub, as create_hub() makes one (got {type(hub).__name__})"
            raise TypeError(msg)
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self._answer(scope)(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    def _answer(self, scope: Scope) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            return Response(status_code=405, headers={"allow": "GET, HEAD"})
        name = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        if name == "live":
            return JSONResponse({"status": "up"}, headers=NO_STORE)
        if name not in ("", "ready"):
            return Response(status_code=404)
        status = self._status(scope)
        return JSONResponse({"status": status}, 200 if status == "up" else 503, NO_STORE)

    def _status(self, scope: Scope) -> str:
        state = "up" if self._hub is None else self._hub.state
        if state != "closed" and current_notice().stops(scope):
            return "draining"
        return state
