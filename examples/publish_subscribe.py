"""A page that shows what is published, an address to read and to publish at, and a page that counts the readers.

    python examples/publish_subscribe.py    # or in examples/: uvicorn publish_subscribe:app
    curl --data data=hello http://127.0.0.1:8000/events

The body may also be JSON or plain text, as its Content-Type says. Whoever reaches the server may publish, unless
PUBLISH_TOKEN is set, which is then to be sent as `Authorization: Bearer ...`.
"""

import os
from secrets import compare_digest

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, create_hub, get_hub

TOKEN = os.environ.get("PUBLISH_TOKEN")

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Publish and subscribe</title>
<h1>What is published</h1>
<form>
  <input name="data" aria-label="Text" required>
  <button>Publish</button>
  <p role="alert"></p>
</form>
<ol></ol>
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

  read("events", {
    message(event) {
      const item = document.createElement("li");
      item.textContent = event.data;
      document.querySelector("ol").append(item);
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
    """Ask for the token, if there is one."""
    given = request.headers.get("authorization", "").encode()
    if TOKEN and not compare_digest(given, f"Bearer {TOKEN}".encode()):
        raise HTTPException(401, "send the token as Authorization: Bearer ...", {"WWW-Authenticate": "Bearer"})


hub = create_hub()
app = Starlette(
    routes=[
        Route("/", index),
        Route("/debug", debug),
        Route("/events", EventSourceApp(hub, publish=may_publish)),
    ]
)
app.add_middleware(EventSourceMiddleware, hub=hub)

if __name__ == "__main__":
    uvicorn.run(app)
