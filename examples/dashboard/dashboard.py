"""A dashboard: each page begins with the whole state, then gets what changes, by a stream or by polling.

    python examples/dashboard/dashboard.py    # or in examples/dashboard/: uvicorn dashboard:app

The page may come from elsewhere as well, as from any static host:

    python -m http.server 9000 --directory examples/dashboard/page
    # then open http://127.0.0.1:9000/?server=http://127.0.0.1:8000

What is measured comes from a thread that blocks, as clients of MQTT, ZeroMQ, serial lines and queues do. The state is
this process's: several would share a state, as they share the events on Redis, and only one of them would measure.
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
    """Measure one room after the other, and block in between."""
    while True:
        for number, room in enumerate(ROOMS):
            if stopped.wait(SECONDS):
                return
            yield room, round(20 + 3 * math.sin(time.time() / 30 + number), 2)


def feed(stopped: threading.Event) -> None:
    """Keep the state, then publish what changed: a delta says the new value, so that it may be part of a snapshot."""
    for room, degrees in measurements(stopped):
        state[room] = degrees
        try:
            hub.publish_from_thread(CHANNEL, {room: degrees}, event="delta", key=room)
        except BackendError as error:
            logger.warning("not published: %s", error)


async def snapshot() -> ServerSentEvent:
    """Return the state, for a reader that is new or cannot be given all deltas."""
    return ServerSentEvent(dict(state), event="init")


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Run the thread for as long as the application."""
    stopped = threading.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, feed, stopped)
        try:
            yield
        finally:
            stopped.set()


# A display that is too slow gets the newest value of each room. Anybody may read, from any page, without credentials.
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
