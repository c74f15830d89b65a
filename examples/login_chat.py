"""A chat with a login: the author comes from the session, the time from the server, and one variable selects Redis.

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
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

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
  <button>Send</button>
  <p role="alert"></p>
</form>
<script type="module">
  import {connect} from "./client/sse-asgi.js";

  connect("stream", {
    on: {
      message(event) {
        const {time, user, text} = JSON.parse(event.data);
        const item = document.createElement("li");
        item.textContent = `[${time}] ${user}: ${text}`;
        document.querySelector("ol").append(item);
      },
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
    """Return the name of the session's user."""
    return str(request.session.get("user", "anonymous"))


async def field(request: Request, name: str, limit: int) -> str:
    """Return a field of a form.

    Raises:
        HTTPException: The field is blank or too long.
    """
    text = dict(parse_qsl((await request.body()).decode(errors="replace"))).get(name, "").strip()
    if not 0 < len(text) <= limit:
        raise HTTPException(400, f"{name} must have 1 to {limit} characters")
    return text


async def index(request: Request) -> HTMLResponse:
    """Send the page."""
    return HTMLResponse(PAGE.replace("{{ user }}", html.escape(user_of(request))))


async def login(request: Request) -> RedirectResponse:
    """Store a name in the session. A real application must check a password too."""
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
        Mount("/client", StaticFiles(packages=[("sse_asgi", "client")])),  # with which the page reads
        Route("/login", login, methods=["POST"]),
        Route("/post", post, methods=["POST"]),
        Route("/stream", stream),
    ]
)
app.add_middleware(SessionMiddleware, secret_key=os.environ.get("SESSION_SECRET") or secrets.token_urlsafe())
app.add_middleware(EventSourceMiddleware, hub=create_hub())

if __name__ == "__main__":
    uvicorn.run(app)
