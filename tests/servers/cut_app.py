"""The application of the tests about streams that are cut off, and streams that may go on when the server stops."""

import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from anyio import sleep
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub

DRAIN = float(os.environ.get("DRAIN", "0"))

hub = Hub()


def log_begin() -> None:
    """Write a line to the log for each stream whose first event was sent."""
    os.write(sys.stderr.fileno(), b"stream begun\n")


async def numbers(request: Request) -> AsyncIterator[str]:
    """Yield so many numbers, ten a second by default, then fail if the query says so."""
    query = request.query_params
    for number in range(int(query.get("count", "1000000"))):
        if number == 1:
            log_begin()
        yield f"{number}"
        await sleep(float(query.get("pause", "0.1")))
    if "fail" in query:
        raise ValueError


async def ours(request: Request) -> Response:
    """Stream the numbers, with the lifetime and the `drain_timeout` that the query says."""
    options: dict[str, Any] = {
        name: float(request.query_params[name])
        for name in ("max_lifetime", "drain_timeout")
        if name in request.query_params
    }
    return EventSourceResponse(numbers(request), **options)


async def sync(request: Request) -> Response:
    """Stream ten numbers a second from a thread."""

    def in_thread() -> Iterator[int]:
        for number in range(int(request.query_params.get("count", "1000000"))):
            if number == 1:
                log_begin()
            yield number
            time.sleep(0.1)

    return EventSourceResponse(in_thread())


async def subscription(_: Request) -> Response:
    """Stream a subscription."""
    log_begin()
    return EventSourceResponse(hub.subscribe("a"))


async def foreign(request: Request) -> Response:
    """Stream the numbers with Starlette's own response."""

    async def frames() -> AsyncIterator[str]:
        async for number in numbers(request):
            yield f"data: {number}\n\n"

    return StreamingResponse(frames(), media_type="text/event-stream")


class Passing(BaseHTTPMiddleware):
    """Completes the body of an application that returns."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on."""
        return await call_next(request)


app = Starlette(
    routes=[
        Route(f"/{endpoint.__name__}", endpoint, methods=["GET", "POST"])
        for endpoint in (ours, sync, subscription, foreign)
    ],
    lifespan=hub.lifespan if os.environ.get("BARE") else None,
)
for _ in range(int(os.environ.get("PASSING", "0"))):
    app.add_middleware(GZipMiddleware)
    app.add_middleware(Passing)
if not os.environ.get("BARE"):
    app.add_middleware(EventSourceMiddleware, hub=hub, drain_timeout=DRAIN)
