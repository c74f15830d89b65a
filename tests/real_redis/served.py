"""The application of tests with several workers: streams of any channel, publishing, and the state of the hub."""

import os

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import BackendError, EventSourceApp, EventSourceMiddleware, create_hub

hub = create_hub()
publishing: list[Request] = []


class Signed:
    """Says in each response which process has served it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"worker", str(os.getpid()).encode())]
            await send(message)

        await self.app(scope, receive, signed)


async def health(_: Request) -> Response:
    """Say how the hub is; the process itself is well if it answers."""
    return JSONResponse({"hub": hub.state, "publishing": len(publishing)}, 200 if hub.state == "up" else 503)


async def publish(request: Request) -> Response:
    """Publish, and return the id."""
    publishing.append(request)
    try:
        position = await hub.publish(request.query_params.getlist("channel"), request.query_params["data"])
    except BackendError as error:
        return PlainTextResponse(str(error), 503)
    finally:
        publishing.remove(request)
    return PlainTextResponse(position)


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/publish", publish, methods=["POST"]),
        Mount("/events", EventSourceApp(hub, channels="*")),
    ],
    middleware=[Middleware(EventSourceMiddleware, hub=hub), Middleware(Signed)],
)
