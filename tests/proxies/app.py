"""The application behind the proxies: a hub, streams whose options are in the query, and a page that reads the hub."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._log.event import RenderedEvent
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Sink
from sse_asgi.exceptions import HubClosedError

PAGE = """<!doctype html><title>.</title><script>
const seen = [], gaps = [];
const source = new EventSource("/events/");
source.addEventListener("message", event => seen.push(Number(event.data)));
source.addEventListener("sse.gap", event => gaps.push(event.data));
</script>"""


class KeptBackend(MemoryBackend):
    """A log that survives the end of its process: each event is written to a file before any reader gets it."""

    def __init__(self, path: Path) -> None:
        super().__init__(history_size=100_000)
        self._position = Position("00000000", 0)
        self._file = path.open("a+")

    @asynccontextmanager
    async def _connected(self, sink: Sink) -> AsyncIterator[None]:
        self._file.seek(0)
        for line in self._file:
            channels, data = json.loads(line)
            await super().publish(tuple(channels), ServerSentEvent(data), key=None, idempotency_key=None)
        async with super()._connected(sink):
            yield

    async def publish(
        self,
        channels: tuple[str, ...],
        event: ServerSentEvent | RenderedEvent,
        *,
        key: str | None,
        idempotency_key: str | None,
    ) -> Position | None:
        assert isinstance(event, ServerSentEvent)
        print(json.dumps([channels, event.data]), file=self._file, flush=True)
        return await super().publish(channels, event, key=key, idempotency_key=idempotency_key)


hub = Hub(KeptBackend(Path(os.environ["KEPT"])) if "KEPT" in os.environ else None)
running: list[str] = []


async def job(name: str) -> AsyncIterator[None]:
    """Wait for ever, and yield no event."""
    running.append(name)
    try:
        await anyio.sleep_forever()
        yield
    finally:
        running.remove(name)


async def idle(request: Request) -> Response:
    """Stream nothing but pings, at the interval that the query gives in seconds."""
    ping = float(request.query_params.get("ping", "0")) or None
    return EventSourceResponse(job(request.query_params["name"]), ping_interval=ping, start_timeout=0.01)


async def jobs(_: Request) -> Response:
    """Return the names of the idle streams that are open."""
    return PlainTextResponse(" ".join(running))


async def pair(request: Request) -> Response:
    """Stream an event, and another one later; a header names the connection, and the query chooses another header."""

    async def two() -> AsyncIterator[str]:
        yield "first"
        await anyio.sleep(float(request.query_params.get("pause", "0")))
        yield "second"

    assert request.client is not None
    headers = {"X-Peer": str(request.client.port)}
    if "accel" in request.query_params:
        headers["X-Accel-Buffering"] = request.query_params["accel"]
    return EventSourceResponse(two(), headers=headers)


async def status(request: Request) -> Response:
    """Answer with the status that the path names."""
    return PlainTextResponse("the application's own", int(request.path_params["code"]))


async def publish(request: Request) -> Response:
    """Publish the query's data on the default channel; the answer confirms that the event is kept."""
    try:
        return PlainTextResponse(await hub.publish("default", request.query_params["data"]))
    except HubClosedError:
        return PlainTextResponse("", 503)


async def page(_: Request) -> Response:
    """Return the page that collects the published events for a test."""
    return HTMLResponse(PAGE)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/idle", idle),
        Route("/jobs", jobs),
        Route("/pair", pair),
        Route("/publish", publish, methods=["POST"]),
        Route("/events/status/{code}", status),
        Mount("/events", EventSourceApp(hub, retry=int(os.environ.get("RETRY", "1000")))),
    ],
)
app.add_middleware(EventSourceMiddleware, hub=hub)
