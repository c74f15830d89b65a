"""What was said before comes first."""

import json
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, create_hub, get_hub

app = FastAPI()
app.add_middleware(EventSourceMiddleware, hub=create_hub())
app.mount("/client", StaticFiles(packages=[("sse_asgi", "client")]))
TheHub = Annotated[Hub, Depends(get_hub)]


class Message(BaseModel):
    """One line of the chat."""

    name: str
    text: str


@app.get("/")
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.get("/events")
async def events(hub: TheHub) -> EventSourceResponse:
    """Stream the newest messages as one snapshot, then every later one."""

    async def snapshot() -> list[dict[str, Any]]:
        kept = await hub.history("chat", limit=50)
        return [{"id": event.id, **json.loads(event.data or "{}")} for event in kept]

    return EventSourceResponse(hub.subscribe("chat", snapshot=snapshot))


@app.post("/messages", status_code=204)
async def send(message: Message, hub: TheHub) -> None:
    """Publish a message."""
    await hub.publish("chat", message)
