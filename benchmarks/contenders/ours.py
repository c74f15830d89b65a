"""This library: EventSourceApp as the application; on the backend that SSE_BACKEND_URL names, if it names one."""

import os
from typing import Any

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, create_hub

from control import controlled, tokens

hub = create_hub() if "SSE_BACKEND_URL" in os.environ else Hub()
streams = EventSourceApp(hub, channels="*")


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") == "/tokens":
        await EventSourceResponse(tokens(scope["query_string"].decode()))(scope, receive, send)
    else:
        await streams(scope, receive, send)


app = controlled(serve, hub.publish)
