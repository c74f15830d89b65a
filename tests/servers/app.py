"""The application that the server tests run: our streams, foreign streams, and a log of what happened to them."""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, HubClosedError

hub = Hub()


def log(line: str) -> None:
    """Write a line that the test can read in the order of things."""
    print(line, file=sys.stderr, flush=True)


async def job(*, pause: float) -> AsyncIterator[str]:
    """Yield until cancelled, and clean up with an await."""
    try:
        for number in range(10**9):
            yield f"{number}"
            await anyio.sleep(pause)
    finally:
        await anyio.sleep(0.1)
        log("job cleaned")


async def idle(_: Request) -> Response:
    """Stream one event, then nothing."""
    return EventSourceResponse(job(pause=3600), background=BackgroundTask(log, "background"))


async def busy(_: Request) -> Response:
    """Stream an event every 10 ms."""
    return EventSourceResponse(job(pause=0.01))


async def flood(_: Request) -> Response:
    """Stream as much as the client takes."""

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "x" * 1000
        finally:
            log("flood closed")

    return EventSourceResponse(endless())


async def sync(_: Request) -> Response:
    """Stream from a sync generator."""

    def numbers() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            log("sync closed")

    return EventSourceResponse(numbers())


async def foreign(_: Request) -> Response:
    """Stream with Starlette's own class."""

    async def frames() -> AsyncIterator[str]:
        while True:
            yield "data: x\n\n"
            await anyio.sleep(0.05)

    return StreamingResponse(frames(), media_type="text/event-stream")


async def foreign_flood(_: Request) -> Response:
    """Stream as much as the client takes, with Starlette's own class."""

    async def frames() -> AsyncIterator[str]:
        while True:
            yield "data: x\n\n" * 100

    return StreamingResponse(frames(), media_type="text/event-stream")


class Passing(BaseHTTPMiddleware):
    """Hides the server's receive, as any BaseHTTPMiddleware does."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on."""
        return await call_next(request)


async def publish(request: Request) -> Response:
    """Publish the query's data on the default channel."""
    try:
        return PlainTextResponse(await hub.publish("default", request.query_params["data"]))
    except HubClosedError:
        return PlainTextResponse("", 503)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Log the application's life."""
    yield
    log("lifespan ended")


app = Starlette(
    routes=[
        *(
            Route(f"/{endpoint.__name__}", endpoint)
            for endpoint in (idle, busy, flood, sync, foreign, foreign_flood, publish)
        ),
        Mount("/hub", EventSourceApp(hub)),
    ],
    lifespan=lifespan,
)
if os.environ.get("PASSING"):
    app.add_middleware(Passing)
if not os.environ.get("BARE"):
    app.add_middleware(EventSourceMiddleware, hub=hub)
