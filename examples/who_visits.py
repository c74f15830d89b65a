"""Who visits is announced to every tab, and those who gave a name chat: a hub used as a library, without its app.

    python examples/who_visits.py    # or in examples/: uvicorn who_visits:app

There are two hubs, each with its own channels and readers. Both are in memory: data that is made for each reader, as
the chat has it, cannot leave the process; on Redis publish plain data, and give `transform=` to `hub.subscribe`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub

DEFAULT = "default"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Who visits</title>
<h1>Who visits</h1>
<ul id="visits"></ul>
<h1>Chat</h1>
<form>
  <input name="name" placeholder="Your name" required>
  <input name="text" placeholder="Message">
  <button>Enter, or say</button>
</form>
<ul id="chat"></ul>
<script>
  // Reads a stream while its page is shown, and returns a function that stops.
  function read(url, listeners, options) {
    let source, timer, stopped = false, failures = 0, last = "";

    function open() {
      const address = new URL(url, location);
      if (last) address.searchParams.set("last_event_id", last);
      source = new EventSource(address, options);
      source.addEventListener("open", () => { failures = 0; });
      source.addEventListener("error", () => {  // the browser tries again by itself, unless it was refused
        if (source.readyState !== EventSource.CLOSED) return;
        timer = setTimeout(open, Math.min(60, 2 ** failures++) * (500 + 500 * Math.random()));
      });
      for (const type of new Set(["sse.position", "sse.end", ...Object.keys(listeners)])) {
        source.addEventListener(type, event => {
          last = event.lastEventId || last;
          if (type === "sse.end") stop();
          listeners[type]?.(event);
        });
      }
    }

    function close() { clearTimeout(timer); source.close(); }
    function stop() { stopped = true; close(); }

    // A page that was left is kept, to go back to: it holds none of the six connections to a server.
    addEventListener("pagehide", close);
    addEventListener("pageshow", event => { if (event.persisted && !stopped) open(); });
    open();
    return stop;
  }

  const show = (list, text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById(list).append(item);
  };
  const time = text => new Date(text).toLocaleTimeString();
  read("visits", {
    message(event) {
      const {who, time: when} = JSON.parse(event.data);
      show("visits", `${time(when)} ${who}`);
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
      read(`chat?${query}`, {message(event) { show("chat", event.data); }});
      form.elements.name.readOnly = true;
    }
    if (text) {
      query.set("text", text);
      fetch(`chat?${query}`, {method: "POST"});
      show("chat", `I: ${text}`);  // the server tells it to the others only
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
    """Open both hubs, and close them, which ends every stream."""
    async with visits, chat:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(EventSourceMiddleware)


def visit(who: str) -> dict[str, Any]:
    """Say who is here, and since when."""
    return {"who": who, "time": datetime.now(UTC)}


@app.get("/")
async def index(request: Request) -> HTMLResponse:
    """Send the page, and tell everybody about it."""
    await visits.publish(DEFAULT, visit(request.client.host if request.client else "somebody"))
    return HTMLResponse(PAGE)


@app.get("/visits")
async def announcements() -> EventSourceResponse:
    """Stream who comes; the first event is the reader's own."""
    return EventSourceResponse(visits.subscribe(DEFAULT, initial=[visit("you")]))


@app.get("/chat")
async def listen(name: str, channels: Channels = [DEFAULT]) -> Response:  # noqa: B006 - FastAPI's way to say a default
    """Stream one channel or several, unless the reader was shown the door: 204 ends an EventSource."""
    if name in dismissed:
        return Response(status_code=204)
    return EventSourceResponse(chat.subscribe(*channels, properties={"name": name}, initial=[f"Welcome, {name}!"]))


@app.post("/chat", status_code=204)
async def say(name: str, text: str, channels: Channels = [DEFAULT]) -> None:  # noqa: B006
    """Publish to everybody but the sender; a reader of several of the channels gets it once."""

    def to_others(reader: dict[str, str]) -> str | None:
        return None if reader["name"] == name else f"{name}: {text}"

    await chat.publish(channels, to_others)


@app.get("/people")
async def people(channel: str = DEFAULT) -> list[str]:
    """List who reads a channel."""
    return sorted(one.options.properties["name"] for one in chat.subscriptions(channel))


@app.delete("/people/{name}", status_code=204)
async def dismiss(name: str) -> None:
    """End the streams of somebody; in earnest, only for those who may."""
    dismissed.add(name)
    await chat.disconnect({"name": name})


@app.delete("/people", status_code=204)
async def close() -> None:
    """End every stream, also only for those who may; the browsers come back, and miss nothing."""
    await visits.drain()
    await chat.drain()


if __name__ == "__main__":
    uvicorn.run(app)
