"""This library: EventSourceApp as the application. SSE_BACKEND_URL chooses the backend, which is memory by default."""

from typing import Any

from control import controlled, tokens

from sse_asgi import EventSourceApp, EventSourceResponse, create_hub

hub = create_hub()
streams = EventSourceApp(hub, channels="*", max_lifetime=None)  # a run takes longer


async def serve(scope: Any, receive: Any, send: Any) -> None:
    if scope.get("path") == "/tokens":
        await EventSourceResponse(tokens(scope["query_string"].decode()))(scope, receive, send)
    else:
        await streams(scope, receive, send)


app = controlled(serve, hub.publish)
