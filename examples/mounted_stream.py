"""A stream mounted at /stream: `?channel=` chooses what is read, events have names, and one channel is for admins.

    pip install itsdangerous
    python examples/mounted_stream.py    # or in examples/: uvicorn mounted_stream:app
    curl --request POST "http://127.0.0.1:8000/hello?channel=logs"

Where Redis is, is said by SSE_REDIS_HOST, SSE_REDIS_PORT and SSE_REDIS_DB; without any of them events stay in memory.
ADMIN_PASSWORD is what an admin logs in with; without it nobody is one.
"""

import html
import os
import secrets
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, create_hub

PASSWORD = os.environ.get("ADMIN_PASSWORD")
DEFAULT = "sse"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A mounted stream</title>
<body data-stream="{{ stream }}" data-hello="{{ hello }}">
<p><a href="?channel=sse">sse</a> <a href="?channel=logs">logs</a> <a href="?channel=analytics">analytics</a></p>
<form action="login" method="post">
  <input name="password" type="password" aria-label="Password">
  <button>Log in</button>
</form>
<button id="hello">Hello</button>
<p role="status">connecting</p>
<ul></ul>
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

  const {stream, hello} = document.body.dataset;
  const status = text => { document.querySelector("[role=status]").textContent = text; };
  read(stream, {
    open() { status("reading"); },
    error({target}) { status(target.readyState === EventSource.CLOSED ? "refused" : "reconnecting"); },
    greeting(event) {
      const item = document.createElement("li");
      item.textContent = JSON.parse(event.data).message;
      document.querySelector("ul").append(item);
    },
  });
  document.getElementById("hello").onclick = () => fetch(hello, {method: "POST"});
</script>
"""

hub = create_hub()


async def send_event(name: str, data: Any, channel: str = DEFAULT) -> str | None:
    """Publish an event under a name, for `addEventListener`."""
    return await hub.publish(channel, data, event=name)


def check_access(request: Request, channels: tuple[str, ...]) -> None:
    """Keep `analytics` for admins: called before anything is read, and whenever a browser comes back."""
    if "analytics" in channels and not request.session.get("admin"):
        raise HTTPException(403, "analytics is for admins")


def channel_of(request: Request) -> str:
    """Return the channel that the query names."""
    return request.query_params.get("channel") or DEFAULT


async def index(request: Request) -> HTMLResponse:
    """Send the page, which reads the channel that its own query names."""
    urls = {"stream": request.url_for("sse:stream"), "hello": request.url_for("hello")}
    page = PAGE
    for name, url in urls.items():
        text = str(url.include_query_params(channel=channel_of(request)))
        page = page.replace("{{ " + name + " }}", html.escape(text))
    return HTMLResponse(page)


async def login(request: Request) -> RedirectResponse:
    """Make an admin of whoever knows the password."""
    given = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("password", "")
    if not PASSWORD or not secrets.compare_digest(given.encode(), PASSWORD.encode()):
        raise HTTPException(403, "that is not the password")
    request.session["admin"] = True
    return RedirectResponse(request.url_for("index"), status_code=303)


async def hello(request: Request) -> Response:
    """Greet the readers of a channel, for those who may read it."""
    channel = channel_of(request)
    check_access(request, (channel,))
    await send_event("greeting", {"message": f"Hello, {channel}!"}, channel)
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/", index),
        Route("/login", login, methods=["POST"]),
        Route("/hello", hello, methods=["POST"]),
        Mount("/stream", EventSourceApp(hub, default_channel=DEFAULT, authorize=check_access), name="sse"),
    ]
)
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe())
app.add_middleware(EventSourceMiddleware, hub=hub)

if __name__ == "__main__":
    uvicorn.run(app)
