"""Runs behind HTTP: start, follow and cancel them; block the event loop. The environment chooses the log."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend
from sse_asgi.backends.redis import RedisBackend

DRAIN = float(os.environ.get("DRAIN", "0"))
URL = os.environ.get("REDIS", "")
NAME = os.environ.get("NAME", "default")

hub = Hub(RedisBackend(URL, name=NAME) if URL else MemoryBackend(), presence_ttl=float(os.environ.get("LEASE", "15")))


def log(line: str) -> None:
    """Write a line to the log that the test reads."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


async def tokens(key: str, count: int, pause: float) -> AsyncIterator[str]:
    """Yield numbers, and clean up with an await."""
    try:
        for number in range(count):
            yield f"{number}"
            await anyio.sleep(pause)
    finally:
        await anyio.sleep(0.02)
        log(f"cleaned {key}")


async def start(request: Request) -> Response:
    """Start a run, or take part in it."""
    key, count = request.query_params["key"], int(request.query_params["count"])
    pause = float(request.query_params["pause"])
    run = await hub.start_run(key, lambda: tokens(key, count, pause))
    return JSONResponse({"started": run.started})


async def follow(request: Request) -> Response:
    """Follow a run."""
    run = await hub.get_run(request.query_params["key"])
    return Response(status_code=404) if run is None else EventSourceResponse(run)


async def cancel(request: Request) -> Response:
    """Cancel a run."""
    return JSONResponse(await hub.cancel_run(request.query_params["key"]))


async def block(request: Request) -> Response:
    """Block the event loop, soon after the answer."""
    seconds = float(request.query_params["seconds"])
    asyncio.get_running_loop().call_later(0.05, time.sleep, seconds)
    return JSONResponse(seconds)


app = Starlette(
    routes=[Route("/start", start), Route("/follow", follow), Route("/cancel", cancel), Route("/block", block)],
    middleware=[Middleware(EventSourceMiddleware, hub=hub, drain_timeout=DRAIN)],
)
