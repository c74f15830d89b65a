"""The chat's server: a stream for each tab, a POST for each message, and the hub between them.

What was said is kept by the hub's backend; who is in which room only this process knows.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, StringConstraints
from starlette.background import BackgroundTask

from sse_asgi import BackendError, EventSourceMiddleware, EventSourceResponse, Hub, SSEError, create_hub, get_hub

HISTORY = 200
GRACE_SECONDS = 2.0

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^\P{Cc}+$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
TheHub = Annotated[Hub, Depends(get_hub)]


class Draft(BaseModel):
    """A message as a page sends it; the page makes the id, so that it knows the message again."""

    id: UUID
    name: Label
    text: Text


class Presence:
    """Who is in which room, told to the room when it changes.

    A tab counts for two seconds after it has gone, so that reloading and reconnecting go unnoticed.
    """

    def __init__(self) -> None:
        """Begin with empty rooms."""
        self._tabs: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def rooms(self) -> list[str]:
        """Return the rooms that have somebody in them."""
        return sorted({room for room, _ in self._tabs})

    def members(self, room: str) -> list[str]:
        """Return who is in a room."""
        return sorted((name for place, name in self._tabs if place == room), key=str.casefold)

    def enter(self, hub: Hub, room: str, name: str) -> None:
        """Count a tab."""
        self._tabs[room, name] += 1
        if self._tabs[room, name] == 1:
            self._spawn(self._tell(hub, "joined", room, name))

    async def leave(self, hub: Hub, room: str, name: str) -> None:
        """Count a tab no more, soon: the server waits for this function when it stops, but not for other tasks."""
        self._spawn(self._leave(hub, room, name))

    async def _leave(self, hub: Hub, room: str, name: str) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        self._tabs[room, name] -= 1
        if not self._tabs[room, name]:
            del self._tabs[room, name]
            await self._tell(hub, "left", room, name)

    async def _tell(self, hub: Hub, event: str, room: str, name: str) -> None:
        with suppress(SSEError):  # whoever is told next is told all members again
            await hub.publish(channel(room), {"name": name, "members": self.members(room)}, event=event)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


app = FastAPI(title="Chat")
app.add_middleware(EventSourceMiddleware, hub=create_hub())
presence = Presence()


def channel(room: str) -> str:
    """Return the hub's channel of a room."""
    return f"room:{room}"


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.get("/rooms")
async def rooms() -> list[str]:
    """Return the rooms that have somebody in them."""
    return presence.rooms()


@app.get("/events")
async def events(
    request: Request, hub: TheHub, room: Label, name: Label, last_event_id: str | None = None
) -> EventSourceResponse:
    """Stream a room: its state first, then each message, and who comes and goes.

    A browser that reconnects by itself says in a header what it saw last, a page that starts over says it in the query.
    """

    async def snapshot() -> dict[str, Any]:
        kept = await hub.history(channel(room), limit=HISTORY)
        messages = [json.loads(event.data or "null") for event in kept if event.event == "message"]
        return {"messages": messages, "members": presence.members(room)}

    resume_after = None if "last-event-id" in request.headers else last_event_id
    subscription = hub.subscribe(channel(room), snapshot=snapshot, last_event_id=resume_after)
    presence.enter(hub, room, name)
    return EventSourceResponse(subscription, background=BackgroundTask(presence.leave, hub, room, name))


@app.post("/messages", status_code=204)
async def messages(hub: TheHub, room: Label, draft: Draft) -> None:
    """Publish a message; sent again with the same id, it is published once."""
    message = {**draft.model_dump(), "time": datetime.now(UTC)}
    try:
        await hub.publish(channel(room), message, event="message", idempotency_key=str(draft.id))
    except BackendError as error:
        raise HTTPException(503, "the message may not have been stored: send it again") from error
