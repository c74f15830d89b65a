"""Visits are announced to every tab, and visitors with a name can chat: hubs used directly, without EventSourceApp.

    python examples/who_visits.py    # or in examples/: uvicorn who_visits:app

There are two hubs, each with its own channels and readers. Both are in memory: the chat publishes a function that makes
the data of each reader, and a function cannot leave the process. On Redis, publish plain data, and give `transform=` to
`hub.subscribe`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub

DEFAULT = "default"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Visits</title>
<h1>Visits</h1>
<ul id="visits"></ul>
<h1>Chat</h1>
<form>
  <input name="name" placeholder="Your name" required>
  <input name="text" placeholder="Message">
  <button>Enter or send</button>
</form>
<ul id="chat"></ul>
<script type="module">
  import {connect} from "./client/sse-asgi.js";

  const show = (list, text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById(list).append(item);
  };
  const time = text => new Date(text).toLocaleTimeString();
  connect("visits", {
    on: {
      message(event) {
        const {who, time: when} = JSON.parse(event.data);
        show("visits", `${time(when)} ${who}`);
      },
    },
  });
  const form = document.querySelector("form");
  let entered = false;
  form.onsubmit = event => {
    event.preventDefault();
    const name = form.elements.name.value, text = form.elements.text.value;
    const query = new URLSearchParams({name});
    if (!entered) {
      entered = true;
      connect(`chat?${query}`, {on: {message(event) { show("chat", event.data); }}});
      form.elements.name.readOnly = true;
    }
    if (text) {
      query.set("text", text);
      fetch(`chat?${query}`, {method: "POST"});
      show("chat", `I: ${text}`);  // the server sends it to the other readers only
      form.elements.text.value = "";
    }
  };
</script>
"""

Channels = Annotated[list[str], Query(alias="channel", max_length=10)]

visits = Hub()
chat = Hub()
dismissed: set[str] = set()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open both hubs, and close them at the end, which ends every stream."""
    async with visits, chat:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(EventSourceMiddleware)
app.mount("/client", StaticFiles(packages=[("sse_asgi", "client")]))  # with which the page reads


def visit(who: str) -> dict[str, Any]:
    """Return the data of a visit."""
    return {"who": who, "time": datetime.now(UTC)}


@app.get("/")
async def index(request: Request) -> HTMLResponse:
    """Send the page, and announce the visit to every reader."""
    await visits.publish(DEFAULT, visit(request.client.host if request.client else "unknown"))
    return HTMLResponse(PAGE)


@app.get("/visits")
async def announcements() -> EventSourceResponse:
    """Stream the visits; the first event is the reader's own visit."""
    return EventSourceResponse(visits.subscribe(DEFAULT, initial=[visit("you")]))


@app.get("/chat")
async def listen(name: str, channels: Channels = [DEFAULT]) -> Response:  # noqa: B006 - FastAPI's way to write a default
    """Stream one or several channels. A dismissed reader gets 204, after which its page does not reconnect."""
    if name in dismissed:
        return Response(status_code=204)
    return EventSourceResponse(chat.subscribe(*channels, properties={"name": name}, initial=[f"Welcome, {name}!"]))


@app.post("/chat", status_code=204)
async def say(name: str, text: str, channels: Channels = [DEFAULT]) -> None:  # noqa: B006
    """Publish to every reader except the sender; a reader of several of the channels gets the event once."""

    def to_others(reader: dict[str, str]) -> str | None:
        return None if reader["name"] == name else f"{name}: {text}"

    await chat.publish(channels, to_others)


@app.get("/people")
async def people(channel: str = DEFAULT) -> list[str]:
    """List the names of a channel's readers."""
    return sorted(one.options.properties["name"] for one in chat.subscriptions(channel))


@app.delete("/people/{name}", status_code=204)
async def dismiss(name: str) -> None:
    """End the streams of a reader. A real application must check the permission to do so."""
    dismissed.add(name)
    await chat.disconnect({"name": name})


@app.delete("/people", status_code=204)
async def close() -> None:
    """End every stream, which needs a permission too. The browsers reconnect and miss no event."""
    await visits.drain()
    await chat.drain()


if __name__ == "__main__":
    uvicorn.run(app)
