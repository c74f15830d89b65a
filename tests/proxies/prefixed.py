"""An application that clients see below a prefix, which the proxy strips."""

import os

from fastapi import FastAPI
from starlette.requests import Request

from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

hub = Hub()
app = FastAPI(root_path=os.environ.get("ROOT_PATH", ""))
app.mount("/events", EventSourceApp(hub, stats=lambda _: None), name="events")
app.add_middleware(EventSourceMiddleware, hub=hub)


@app.get("/address")
async def address(request: Request) -> str:
    """Return the URL of the stream."""
    return str(request.url_for("events:stream"))


@app.post("/publish")
async def publish(data: str) -> str | None:
    """Publish the query's data."""
    return await hub.publish("default", data)
