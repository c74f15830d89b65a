"""This library as its README shows it: EventSourceApp mounted in a Starlette application, with the middleware."""

from control import controlled, tokens
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub

hub = Hub()


async def stream_tokens(request: Request) -> EventSourceResponse:
    return EventSourceResponse(tokens(request.url.query))


application = Starlette(
    routes=[Route("/tokens", stream_tokens), Mount("/", EventSourceApp(hub, channels="*", max_lifetime=None))]
)
application.add_middleware(EventSourceMiddleware, hub=hub)
app = controlled(application, hub.publish)
