"""A stream for every reader, and a POST that reaches all of them."""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, create_hub, get_hub

app = FastAPI()
app.add_middleware(EventSourceMiddleware, hub=create_hub())
TheHub = Annotated[Hub, Depends(get_hub)]


class Message(BaseModel):
    """One line of the chat."""

    name: str
    text: str


@app.get("/events")
async def events(hub: TheHub) -> EventSourceResponse:
    """Stream every message from now on."""
    return EventSourceResponse(hub.subscribe("chat"))


@app.post("/messages", status_code=204)
async def send(message: Message, hub: TheHub) -> None:
    """Publish a message."""
    await hub.publish("chat", message)
