"""A proxy for a service that speaks OpenAI's protocol: it adds the key, and passes the stream on byte for byte.

    UPSTREAM=https://api.example.com/v1 UPSTREAM_KEY=... python examples/llm_proxy/llm_proxy.py

Any client of OpenAI reads it: `OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")`. The service's comments,
ids and `[DONE]` arrive as they are. If the service fails in the middle, or this server stops, the client gets an error
of the protocol instead of an answer that seems complete. If the client goes, the request to the service is closed, so
that nothing more is paid for. The example needs httpx.
"""

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, EventSourceResponse
from sse_asgi.dialects import OPENAI

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8080/v1")
KEY = os.environ.get("UPSTREAM_KEY", "")
SECONDS = 300.0  # that the service may think


async def completions(request: Request) -> Response:
    """Pass a request on, and its answer back."""
    client: httpx.AsyncClient = request.state.client
    body = await request.body()
    asked = client.build_request("POST", "chat/completions", content=body, headers={"content-type": "application/json"})
    try:
        upstream = await client.send(asked, stream=True)
    except httpx.TransportError as error:
        raise HTTPException(502, "the service cannot be reached") from error
    kind = upstream.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):  # an error, or an answer that was not to be streamed
        async with aclosing(upstream):
            return Response(await upstream.aread(), upstream.status_code, {"content-type": kind})
    return EventSourceResponse(
        upstream.aiter_bytes(), encoded=True, dialect=OPENAI, background=BackgroundTask(upstream.aclose)
    )


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """Keep one client, whose connections all requests share."""
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=UPSTREAM, headers=headers, timeout=SECONDS) as client:
        yield {"client": client}


app = Starlette(
    routes=[Route("/v1/chat/completions", completions, methods=["POST"])],
    middleware=[Middleware(EventSourceMiddleware)],
    lifespan=lifespan,
)

if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
