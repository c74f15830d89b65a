"""The chat's server: a stream for each tab, a POST for each message, and the hub between them.

What was said is kept by the hub's backend. Who is here each process knows of its own tabs only, and tells all pages by
way of the hub, so that any number of processes can serve one chat.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, StringConstraints
from starlette.background import BackgroundTask

from sse_asgi import BackendError, EventSourceMiddleware, EventSourceResponse, Hub, SSEError, create_hub, get_hub

HISTORY = 200
GRACE_SECONDS = 2.0
BEAT_SECONDS = 20.0
LOST_SECONDS = 60.0
PRESENCE = "presence"

Label = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40, pattern=r"^\P{Cc}+$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
TheHub = Annotated[Hub, Depends(get_hub)]


class Draft(BaseModel):
    """A message as a page sends it; the page makes the id, so that it knows the message again."""

    id: UUID
    name: Label
    text: Text


class Presence:
    """Who is in which room by way of this process, told to the room when it changes, and from time to time.

    A page adds up what it heard of every process; of one that has been silent for a minute, the tabs are gone. A tab
    counts for two seconds after it has gone, so that reloading and reconnecting go unnoticed.
    """

    def __init__(self) -> None:
        """Begin with empty rooms."""
        self.process = uuid4().hex
        self._tabs: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def here(self, room: str) -> dict[str, Any]:
        """Return who is in a room by way of this process."""
        members = sorted(name for place, name in self._tabs if place == room)
        return {"room": room, "process": self.process, "members": members, "time": time.time()}

    async def everywhere(self, hub: Hub, place: str) -> list[dict[str, Any]]:
        """Return the last that each process told of each room, as far as a channel of presence knows."""
        told = [json.loads(event.data or "null") for event in await hub.history(place, limit=HISTORY)]
        last = {(one["room"], one["process"]): one for one in told if one["time"] > time.time() - LOST_SECONDS}
        return [one for (_, process), one in last.items() if process != self.process]

    def rooms(self) -> set[str]:
        """Return the rooms that have somebody in them by way of this process."""
        return {room for room, _ in self._tabs}

    def enter(self, hub: Hub, room: str, name: str) -> None:
        """Count a tab."""
        self._tabs[room, name] += 1
        if self._tabs[room, name] == 1:
            self._spawn(self._tell(hub, room))

    async def leave(self, hub: Hub, room: str, name: str) -> None:
        """Count a tab no more, soon: the server waits for this function when it stops, but not for other tasks."""
        self._spawn(self._leave(hub, room, name))

    async def _leave(self, hub: Hub, room: str, name: str) -> None:
        await asyncio.sleep(GRACE_SECONDS)
        self._tabs[room, name] -= 1
        if not self._tabs[room, name]:
            del self._tabs[room, name]
            await self._tell(hub, room)

    async def _tell(self, hub: Hub, room: str) -> None:
        with suppress(SSEError):  # it is told again
            await hub.publish([PRESENCE, presence_channel(room)], self.here(room), event="here")

    async def beat(self, hub: Hub) -> None:
        """Tell every room again, for ever."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await asyncio.gather(*(self._tell(hub, room) for room in self.rooms()))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


hub = create_hub()
presence = Presence()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Tell who is here for as long as the server runs."""
    beating = asyncio.create_task(presence.beat(hub))
    yield
    beating.cancel()


app = FastAPI(title="Chat", lifespan=lifespan)
app.add_middleware(EventSourceMiddleware, hub=hub)


def channel(room: str) -> str:
    """Return the hub's channel of what is said in a room."""
    return f"room:{room}"


def presence_channel(room: str) -> str:
    """Return the hub's channel of who is in a room."""
    return f"{PRESENCE}:{room}"


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.get("/rooms")
async def rooms(hub: TheHub) -> list[str]:
    """Return the rooms that have somebody in them."""
    with suppress(BackendError):
        others = {one["room"] for one in await presence.everywhere(hub, PRESENCE) if one["members"]}
        return sorted(presence.rooms() | others)
    return sorted(presence.rooms())


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
        others = await presence.everywhere(hub, presence_channel(room))
        return {"messages": messages, "here": [presence.here(room), *others]}

    resume_after = None if "last-event-id" in request.headers else last_event_id
    channels = (channel(room), presence_channel(room))
    subscription = hub.subscribe(*channels, snapshot=snapshot, last_event_id=resume_after)
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
