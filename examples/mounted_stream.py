"""A stream mounted at /stream: `?channel=` selects the channel, events have names, and one channel is for admins.

    pip install itsdangerous
    python examples/mounted_stream.py    # or in examples/: uvicorn mounted_stream:app
    curl --request POST "http://127.0.0.1:8000/hello?channel=logs"

SSE_REDIS_HOST, SSE_REDIS_PORT and SSE_REDIS_DB are the address of Redis; without any of them events stay in memory. An
admin logs in with the password in ADMIN_PASSWORD; if it is not set, no login works.
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
<body data-client="{{ client }}" data-stream="{{ stream }}" data-hello="{{ hello }}">
<p><a href="?channel=sse">sse</a> <a href="?channel=logs">logs</a> <a href="?channel=analytics">analytics</a></p>
<form action="login" method="post">
  <input name="password" type="password" aria-label="Password">
  <button>Log in</button>
</form>
<button id="hello">Hello</button>
<p role="status">connecting</p>
<ul></ul>
<script type="module">
  const {client, stream, hello} = document.body.dataset;
  const {connect} = await import(client);  // the app that is mounted sends it

  connect(stream, {
    on: {
      greeting(event) {
        const item = document.createElement("li");
        item.textContent = JSON.parse(event.data).message;
        document.querySelector("ul").append(item);
      },
    },
    state(name, {status}) {
      document.querySelector("[role=status]").textContent = status === 403 ? "refused" : name;
    },
  });
  document.getElementById("hello").onclick = () => fetch(hello, {method: "POST"});
</script>
"""

hub = create_hub()


async def send_event(name: str, data: Any, channel: str = DEFAULT) -> str | None:
    """Publish an event with a name, which pages listen for by `addEventListener`."""
    return await hub.publish(channel, data, event=name)


def check_access(request: Request, channels: tuple[str, ...]) -> None:
    """Refuse `analytics` to users who are not admins. Called before each stream, also when a browser reconnects."""
    if "analytics" in channels and not request.session.get("admin"):
        raise HTTPException(403, "analytics is for admins")


def channel_of(request: Request) -> str:
    """Return the channel of the query."""
    return request.query_params.get("channel") or DEFAULT


async def index(request: Request) -> HTMLResponse:
    """Send the page, which reads the channel of its own query."""
    channel = channel_of(request)
    urls = {
        "client": request.url_for("sse:client"),
        "stream": request.url_for("sse:stream").include_query_params(channel=channel),
        "hello": request.url_for("hello").include_query_params(channel=channel),
    }
    page = PAGE
    for name, url in urls.items():
        page = page.replace("{{ " + name + " }}", html.escape(str(url)))
    return HTMLResponse(page)


async def login(request: Request) -> RedirectResponse:
    """Make the session an admin's, if the password is right."""
    given = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("password", "")
    if not PASSWORD or not secrets.compare_digest(given.encode(), PASSWORD.encode()):
        raise HTTPException(403, "wrong password")
    request.session["admin"] = True
    return RedirectResponse(request.url_for("index"), status_code=303)


async def hello(request: Request) -> Response:
    """Publish a greeting to a channel, if this user may read it."""
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
