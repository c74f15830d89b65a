"""A chat with a login: the author is the session's, the time is the server's, and Redis is one variable.

pip install itsdangerous
python examples/login_chat.py    # or in examples/: uvicorn login_chat:app
SSE_REDIS_URL=redis://localhost SESSION_SECRET=... uvicorn login_chat:app --workers 4
"""

import html
import os
import secrets
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from sse_asgi import BackendError, EventSourceMiddleware, EventSourceResponse, create_hub, get_hub

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Chat</title>
<h1>Chat</h1>
<form action="login" method="post">
  You are <b>{{ user }}</b>.
  <input name="user" placeholder="Another name" maxlength="40" required>
  <button>Log in</button>
</form>
<ol></ol>
<form id="post">
  <input name="message" aria-label="Message" maxlength="2000" required>
  <button>Say</button>
  <p role="alert"></p>
</form>
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

  read("stream", {
    message(event) {
      const {time, user, text} = JSON.parse(event.data);
      const item = document.createElement("li");
      item.textContent = `[${time}] ${user}: ${text}`;
      document.querySelector("ol").append(item);
    },
  });
  const form = document.getElementById("post");
  form.onsubmit = async event => {
    event.preventDefault();
    const answer = await fetch("post", {method: "POST", body: new URLSearchParams(new FormData(form))});
    form.querySelector("p").textContent = answer.ok ? "" : await answer.text();
    if (answer.ok) form.reset();
  };
</script>
"""


def user_of(request: Request) -> str:
    """Return who this is, as far as the session knows."""
    return str(request.session.get("user", "anonymous"))


async def field(request: Request, name: str, limit: int) -> str:
    """Read a field of a form, which must not be blank."""
    text = dict(parse_qsl((await request.body()).decode(errors="replace"))).get(name, "").strip()
    if not 0 < len(text) <= limit:
        raise HTTPException(400, f"{name} must have 1 to {limit} characters")
    return text


async def index(request: Request) -> HTMLResponse:
    """Send the page."""
    return HTMLResponse(PAGE.replace("{{ user }}", html.escape(user_of(request))))


async def login(request: Request) -> RedirectResponse:
    """Remember a name; in earnest, ask for a password as well."""
    request.session["user"] = await field(request, "user", 40)
    return RedirectResponse(request.url_for("index"), status_code=303)


async def post(request: Request) -> Response:
    """Publish a message."""
    text = await field(request, "message", 2000)
    time = datetime.now(UTC).isoformat(" ", "seconds")
    try:
        await get_hub(request).publish("chat", {"time": time, "user": user_of(request), "text": text})
    except BackendError as error:
        raise HTTPException(503, "the message may not have been stored: try again") from error
    return Response(status_code=204)


async def stream(request: Request) -> EventSourceResponse:
    """Stream the messages."""
    return EventSourceResponse(get_hub(request).subscribe("chat"))


app = Starlette(
    routes=[
        Route("/", index),
        Route("/login", login, methods=["POST"]),
        Route("/post", post, methods=["POST"]),
        Route("/stream", stream),
    ]
)
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe())
app.add_middleware(EventSourceMiddleware, hub=create_hub())

if __name__ == "__main__":
    uvicorn.run(app)
