"""A page that shows published events, one address to read and to publish at, and a page that counts the readers.

    python examples/publish_subscribe.py    # or in examples/: uvicorn publish_subscribe:app
    curl --data data=hello http://127.0.0.1:8000/events

The body may also be JSON or plain text, with a Content-Type that says so. Every client may publish, unless the variable
PUBLISH_TOKEN is set: then a client must send the token as `Authorization: Bearer ...`.
"""

import os
from secrets import compare_digest

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from sse_asgi import EventSourceApp, EventSourceMiddleware, create_hub, get_hub

TOKEN = os.environ.get("PUBLISH_TOKEN")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Publish and subscribe</title>
<h1>Published events</h1>
<form>
  <input name="data" aria-label="Text" required>
  <button>Publish</button>
  <p role="alert"></p>
</form>
<ol></ol>
<script type="module">
  import {connect} from "./client/sse-asgi.js";

  connect("events", {
    on: {
      message(event) {
        const item = document.createElement("li");
        item.textContent = event.data;
        document.querySelector("ol").append(item);
      },
    },
  });
  const form = document.querySelector("form");
  form.onsubmit = async event => {
    event.preventDefault();
    const answer = await fetch("events", {method: "POST", body: new URLSearchParams(new FormData(form))});
    form.querySelector("p").textContent = answer.ok ? "" : (await answer.json()).detail;
    if (answer.ok) form.reset();
  };
</script>
"""


async def index(_: Request) -> HTMLResponse:
    """Send the page."""
    return HTMLResponse(PAGE)


async def debug(request: Request) -> PlainTextResponse:
    """Say how many read in this process."""
    stats = get_hub(request).stats()
    return PlainTextResponse(f"Currently {stats.connections} subscriptions, {stats.published} events published\n")


def may_publish(request: Request, _: tuple[str, ...]) -> None:
    """Refuse a request without the token, if a token is set."""
    given = request.headers.get("authorization", "").encode()
    if TOKEN and not compare_digest(given, f"Bearer {TOKEN}".encode()):
        raise HTTPException(401, "send the token as Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})


hub = create_hub()
app = Starlette(
    routes=[
        Route("/", index),
        Mount("/client", StaticFiles(packages=[("sse_asgi", "client")])),  # with which the page reads
        Route("/debug", debug),
        Route("/events", EventSourceApp(hub, publish=may_publish)),
    ]
)
app.add_middleware(EventSourceMiddleware, hub=hub)

if __name__ == "__main__":
    uvicorn.run(app)
