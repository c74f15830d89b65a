"""The chat's server: a stream for each tab, a POST for each message, and a hub between them.

The hub's backend keeps messages and presence, so that any number of processes can serve one chat.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints

from sse_asgi import BackendError, EventSourceMiddleware, EventSourceResponse, Hub, create_hub, get_hub

MESSAGES = 200
EVENTS = 1000
ROOM = "room:"

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^\P{Cc}+$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
TheHub = Annotated[Hub, Depends(get_hub)]


class Draft(BaseModel):
    """A message as a page sends it. The page makes the id, by which it recognises its own message."""

    id: UUID
    name: Label
    text: Text


hub: Hub = create_hub()
app: FastAPI = FastAPI(title="Chat")
app.add_middleware(EventSourceMiddleware, hub=hub)
app.mount("/client", StaticFiles(packages=[("sse_asgi", "client")]))  # sse-asgi.js, with which the page reads


def channel(room: str) -> str:
    """Return the hub's channel of a room, which has its messages, joins and leaves."""
    return f"{ROOM}{room}"


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.get("/rooms")
async def rooms(hub: TheHub) -> list[str]:
    """Return the rooms that have readers in this process, as suggestions for the page."""
    return sorted(name.removeprefix(ROOM) for name, readers in hub.stats().channels.items() if readers)


@app.get("/events")
async def events(hub: TheHub, room: Label, name: Label) -> EventSourceResponse:
    """Stream a room: a snapshot first, then each message, join and leave.

    A page that reconnects sends the id of its last event in a header, which the response reads.
    """

    async def snapshot() -> dict[str, Any]:
        kept = await hub.history(channel(room), limit=EVENTS)  # some of the events are joins and leaves
        messages = [json.loads(event.data or "null") for event in kept if event.event == "message"]
        return {"messages": messages[-MESSAGES:], "here": await hub.presence(channel(room))}

    return EventSourceResponse(hub.subscribe(channel(room), snapshot=snapshot, identity=name, presence=True))


@app.post("/messages", status_code=204)
async def messages(hub: TheHub, room: Label, draft: Draft) -> None:
    """Publish a message; a message that is sent again with the same id is published once."""
    message = {**draft.model_dump(), "time": datetime.now(UTC)}
    try:
        await hub.publish(channel(room), message, event="message", idempotency_key=str(draft.id))
    except BackendError as error:
        raise HTTPException(503, "the message may not have been stored: send it again") from error
