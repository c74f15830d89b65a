"""This library in a FastAPI application with the middleware: an endpoint that returns a subscription."""

from typing import Annotated

from control import controlled, tokens
from fastapi import Depends, FastAPI, Request

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, get_hub

hub = Hub()
application = FastAPI()
application.add_middleware(EventSourceMiddleware, hub=hub)


@application.get("/")
async def stream(channel: str, hub: Annotated[Hub, Depends(get_hub)]) -> EventSourceResponse:
    return EventSourceResponse(hub.subscribe(channel))


@application.get("/tokens")
async def stream_tokens(request: Request) -> EventSourceResponse:
    return EventSourceResponse(tokens(request.url.query))


app = controlled(application, hub.publish)
