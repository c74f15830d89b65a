"""The application that the server tests run: our streams, foreign streams, and a log of their lives."""

import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import CancelScope, sleep
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse as FastAPIResponse
from sse_starlette import EventSourceResponse as SSEStarletteResponse
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from sse_asgi import (
    ConnectionLimit,
    EventSourceApp,
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
)
from sse_asgi._loop.tasks import coroutines
from sse_asgi._mount import publishing as publishing_module
from sse_asgi._servers.shutdown import current_notice

SEND_TIMEOUT = float(os.environ.get("SEND_TIMEOUT", "30"))
PING_INTERVAL = float(os.environ.get("PING_INTERVAL", "15"))
MAX_LIFETIME = float(os.environ["MAX_LIFETIME"]) if "MAX_LIFETIME" in os.environ else None
publishing_module.BODY_SECONDS = float(os.environ.get("BODY_SECONDS", "30"))

hub = Hub(MemoryBackend(history_size=100, history_bytes=8 << 20), ping_interval=PING_INTERVAL)
limit = ConnectionLimit(int(os.environ.get("MAX_CONNECTIONS", "100000")))


def log(line: str) -> None:
    """Write a line to the log that the test reads; the order of lines is the order of events."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


async def job(*, pause: float) -> AsyncIterator[str]:
    """Yield until cancelled, and clean up with an await, which needs a shield on trio."""
    try:
        for number in range(10**9):
            yield f"{number}"
            await sleep(pause)
    finally:
        with CancelScope(shield=True):
            await sleep(0.1)
        log("job cleaned")


async def idle(_: Request) -> Response:
    """Stream one event, then stay silent."""
    response = EventSourceResponse(job(pause=3600), background=BackgroundTask(lambda: log(f"reason {response.reason}")))
    return response


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
            log(f"flood closed {response.reason}")

    response = EventSourceResponse(endless(), send_timeout=SEND_TIMEOUT)
    return response


async def sync(_: Request) -> Response:
    """Stream from a sync generator."""

    def numbers() -> Iterator[int]:
        try:
            for number in range(10**9):
                yield number
                time.sleep(0.01)
        finally:
            log("sync closed")

    return EventSourceResponse(numbers())


async def foreign(request: Request) -> Response:
    """Stream with Starlette's own response, a frame at a time; with `?half` each is half a frame."""

    async def frames() -> AsyncIterator[str]:
        try:
            while True:
                yield "data: half" if "half" in request.query_params else "data: x\n\n"
                await sleep(float(request.query_params.get("pause", "0.05")))
        finally:
            with CancelScope(shield=True):
                await sleep(0.1)
            log("foreign cleaned")

    return StreamingResponse(frames(), media_type="text/event-stream")


async def foreign_flood(_: Request) -> Response:
    """Stream as much as the client takes, with Starlette's own response."""

    async def frames() -> AsyncIterator[str]:
        while True:
            yield "data: x\n\n" * 100

    return StreamingResponse(frames(), media_type="text/event-stream")


async def sse_starlette(_: Request) -> Response:
    """Stream with sse-starlette, which sends pings of its own every 15 s."""

    async def events() -> AsyncIterator[dict[str, Any]]:
        yield {"data": "x"}
        await sleep(3600)

    return SSEStarletteResponse(events())


fastapi = FastAPI()


@fastapi.get("/stream", response_class=FastAPIResponse)
async def native() -> AsyncIterable[str]:
    """Stream with FastAPI's own response."""
    yield "x"
    await sleep(3600)


class Passing(BaseHTTPMiddleware):
    """Hides the server's `receive`, as every BaseHTTPMiddleware does."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on."""
        return await call_next(request)


async def publish(request: Request) -> Response:
    """Publish on the default channel: the query's data, or a number of bytes, once or several times."""
    query = request.query_params
    try:
        for _ in range(int(query.get("times", "1"))):
            last = await hub.publish("default", query.get("data") or "x" * int(query["bytes"]))
        return PlainTextResponse(last)
    except HubClosedError:
        return PlainTextResponse("", 503)


async def census(_: Request) -> Response:
    """Count everything that a stream could leave behind in this process."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())  # noqa: ASYNC240
    gc.collect()
    return JSONResponse(
        {
            "pid": os.getpid(),
            "tasks": len(coroutines()),
            "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "threads": threading.active_count(),
            "objects": len(gc.get_objects()),
            "kib": int(status["VmRSS"].split()[0]),
            "listeners": current_notice().listeners,
            "open": limit.open,
        }
    )


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Log the beginning and the end of the application."""
    log("lifespan began")
    yield
    log("lifespan ended")


app = Starlette(
    routes=[
        *(
            Route(f"/{endpoint.__name__}", endpoint)
            for endpoint in (idle, busy, flood, sync, foreign, foreign_flood, sse_starlette, publish, census)
        ),
        Mount("/fastapi", fastapi),
        Mount(
            "/hub",
            EventSourceApp(
                hub, send_timeout=SEND_TIMEOUT, max_lifetime=MAX_LIFETIME or 1800, publish=lambda *_: None, max_wait=60
            ),
        ),
    ],
    lifespan=lifespan,
)
for _ in range(int(os.environ.get("PASSING", "0"))):
    app.add_middleware(Passing)
if not os.environ.get("BARE"):
    app.add_middleware(
        EventSourceMiddleware,
        hub=hub,
        ping_interval=PING_INTERVAL,
        max_lifetime=MAX_LIFETIME,
        max_connections=limit,
    )
