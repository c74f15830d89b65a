"""Who may read and write, and who is here."""

import json
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints
from starlette.middleware.sessions import SessionMiddleware

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, create_hub, get_hub

app = FastAPI()
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SECRET") or secrets.token_urlsafe())
app.add_middleware(EventSourceMiddleware, hub=create_hub())
app.mount("/client", StaticFiles(packages=[("sse_asgi", "client")]))
TheHub = Annotated[Hub, Depends(get_hub)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


class Login(BaseModel):
    """A name; a real application asks for a password too."""

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]


class Draft(BaseModel):
    """A message as a page sends it: the author comes from the session."""

    text: Text


async def current_user(request: Request) -> str:
    """Return the name in the session, or refuse the request."""
    name = request.session.get("name")
    if name is None:
        raise HTTPException(401, "log in first")
    return str(name)


User = Annotated[str, Depends(current_user)]


@app.get("/")
async def page() -> FileResponse:
    """Send the page."""
    return FileResponse(Path(__file__).with_name("index.html"))


@app.post("/login", status_code=204)
async def login(login: Login, request: Request) -> None:
    """Store the name in the session, a signed cookie."""
    request.session["name"] = login.name


@app.get("/events")
async def events(hub: TheHub, user: User) -> EventSourceResponse:
    """Stream the newest messages and the names of those who are here, then every change."""

    async def snapshot() -> dict[str, Any]:
        kept = [event for event in await hub.history("chat", limit=200) if event.event == "message"]
        messages = [{"id": event.id, **json.loads(event.data or "{}")} for event in kept]
        return {"messages": messages, "here": await hub.presence("chat")}

    return EventSourceResponse(
        hub.subscribe("chat", snapshot=snapshot, identity=user, presence=True), max_lifetime=1800
    )


@app.post("/messages", status_code=204)
async def send(draft: Draft, hub: TheHub, user: User) -> None:
    """Publish a message."""
    await hub.publish("chat", {"name": user, "text": draft.text}, event="message")
