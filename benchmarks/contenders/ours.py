"""This library: EventSourceApp as the application. SSE_BACKEND_URL chooses the backend, which is memory by default."""

import itertools
import os
from typing import Any

from control import controlled, tokens

from sse_asgi import EventSourceApp, EventSourceResponse, create_hub

ENCODED = bool(os.environ.get("ENCODED"))
options = {"encoded": True} if ENCODED else {}  # an earlier version, measured beside this one, may not know it
hub = create_hub()
numbers = itertools.count()
streams = EventSourceApp(hub, channels="*", max_lifetime=None)  # a run takes longer


def chunk(token: str) -> bytes:
    """Return a token as an upstream sends it."""
    return f"data: {token}\n\n".encode()


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") == "/tokens":
        content = tokens(scope["query_string"].decode(), chunk if ENCODED else str)
        await EventSourceResponse(content, **options)(scope, receive, send)
    elif scope.get("path") == "/run":
        run = await hub.start_run(str(next(numbers)), tokens(scope["query_string"].decode()), ttl=1)
        await EventSourceResponse(run)(scope, receive, send)
    else:
        await streams(scope, receive, send)


app = controlled(serve, hub.publish)
