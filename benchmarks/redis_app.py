"""The worker of the Redis benchmarks: it streams, and publishes as fast as possible or at a rate."""

import asyncio
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, create_hub

hub = create_hub()


async def burst(request: Request) -> Response:
    """Publish n events of 200 bytes on 100 channels, `at_once` of them concurrently."""
    count, at_once = int(request.query_params["n"]), int(request.query_params["at_once"])
    for start in range(0, count, at_once):
        numbers = range(start, start + at_once)
        await asyncio.gather(*(hub.publish(f"channel {number % 100}", "x" * 200) for number in numbers))
    return PlainTextResponse()


async def paced(request: Request) -> Response:
    """Publish n events on some channels, evenly over the seconds; each has the time at which publish was called."""
    count, channels = int(request.query_params["n"]), int(request.query_params["channels"])
    pause = float(request.query_params["seconds"]) / count
    began = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0, began + number * pause - time.monotonic()))
        await hub.publish(str(number % channels), f"{time.monotonic_ns():020d}{'x' * 180}")
    return PlainTextResponse()


app = Starlette(
    routes=[Route("/burst", burst), Route("/paced", paced), Mount("/events", EventSourceApp(hub, channels="*"))]
)
app.add_middleware(EventSourceMiddleware, hub=hub)
