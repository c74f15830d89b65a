"""A dashboard: each page gets the whole state first, then every change, by a stream or by polling.

    python examples/dashboard/dashboard.py    # or in examples/dashboard/: uvicorn dashboard:app

The page may come from another origin, such as a static host:

    python -m http.server 9000 --directory examples/dashboard/page
    # then open http://127.0.0.1:9000/?server=http://127.0.0.1:8000

The measurements come from a thread that blocks, like clients of MQTT, ZeroMQ, serial lines and queues. The state
belongs to this process. Several processes would have to share a state as they share events on Redis, and only one of
them would measure.
"""

import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from sse_asgi import BackendError, EventSourceApp, EventSourceMiddleware, ServerSentEvent, create_hub

CHANNEL = "dashboard"
ROOMS = ("Kitchen", "Hall", "Cellar")
SECONDS = 1.0

logger = logging.getLogger("dashboard")
hub = create_hub()
state: dict[str, float] = {}


def measurements(stopped: threading.Event) -> Iterator[tuple[str, float]]:
    """Measure one room after another, and block in between."""
    while True:
        for number, room in enumerate(ROOMS):
            if stopped.wait(SECONDS):
                return
            yield room, round(20 + 3 * math.sin(time.time() / 30 + number), 2)


def feed(stopped: threading.Event) -> None:
    """Update the state, then publish the new value, which does no harm to a page whose snapshot has it already."""
    for room, degrees in measurements(stopped):
        state[room] = degrees
        try:
            hub.publish_from_thread(CHANNEL, {room: degrees}, event="delta", key=room)
        except BackendError as error:
            logger.warning("measurement not published: %s", error)


async def snapshot() -> ServerSentEvent:
    """Return the state, for a reader that is new or whose missed deltas are not all kept."""
    return ServerSentEvent(dict(state), event="init")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Run the thread while the application runs."""
    stopped = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, feed, stopped)
        try:
            yield
        finally:
            stopped.set()


# A slow page gets the newest value of each room. Pages of every origin may read, without credentials.
events = EventSourceApp(
    hub, channels=[CHANNEL], snapshot=snapshot, retry=2000, overflow="latest", cors_origins="*", max_wait=0
)
app = Starlette(
    routes=[
        Mount("/events", events),
        Mount("/", StaticFiles(directory=Path(__file__).with_name("page"), html=True)),
    ],
    lifespan=lifespan,
)
app.add_middleware(EventSourceMiddleware, hub=hub)

if __name__ == "__main__":
    uvicorn.run(app)
