"""The application that every client of the table reads: `uvicorn clients.server:app`.

Each path is a column of the table, and `?client=` names the client. The application breaks connections by itself, and
counts the requests of each client, so that a test can compare them with the client's view.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from clients.pages import event_for, page_of
from sse_asgi import EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.config import create_hub

RETRY_MS = 50
AGAIN = bool(os.environ.get("AGAIN"))  # the server after the deploy
PAUSE_SECONDS = 0.15
hub = create_hub(os.environ["SSE_BACKEND_URL"])  # its history outlives this process
forgetful = Hub(MemoryBackend(history_size=2))
requests: dict[str, list[str | None]] = defaultdict(list)  # "column client" -> the Last-Event-ID of each request
runs: Counter[str] = Counter()
tasks: set[asyncio.Task[None]] = set()


class Transports:
    """Gives each request a function that breaks its connection, as a network does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            request: Any = send
            scope["abort"] = request.__self__.transport.abort
        await self._app(scope, receive, send)


def key_of(request: Request) -> str:
    return f"{request.url.path.strip('/')} {request.query_params['client']}"


def note(request: Request) -> int:
    """Remember a request, and return how many there were like it."""
    given = request.headers.get("last-event-id") or request.query_params.get("lastEventId")
    requests[key_of(request)].append(given)
    return len(requests[key_of(request)])


def event(request: Request, text: str) -> ServerSentEvent:
    """Return a text as the client that asks wants it."""
    return event_for(request.query_params["client"], request.url.path.strip("/"), text)


async def job(request: Request) -> Response:
    """Two events, and the end."""
    note(request)

    def content() -> Iterator[ServerSentEvent]:
        runs[key_of(request)] += 1
        yield event(request, "one")
        yield event(request, "two")

    return EventSourceResponse(content(), retry=RETRY_MS)


async def error(request: Request) -> Response:
    """One event, then the content raises; once, so that a client that asks again sees the end."""
    times = note(request)

    def content() -> Iterator[ServerSentEvent]:
        runs[key_of(request)] += 1
        yield event(request, "one")
        if times == 1:
            raise ZeroDivisionError

    return EventSourceResponse(content(), retry=RETRY_MS)


async def silence(request: Request) -> Response:
    """A stream with pings, whose position moves while it is silent."""
    note(request)
    await hub.publish("elsewhere", "x")
    return EventSourceResponse(hub.subscribe(key_of(request)), ping_interval=0.1, retry=RETRY_MS)


async def before(request: Request) -> Response:
    """The connection breaks before the first event."""
    return interrupted(request, hub, (), ("1", "2"), "3")


async def live(request: Request) -> Response:
    """The connection breaks between two events."""
    return interrupted(request, hub, ("1", "2"), ("3", "4"), "5")


async def gap(request: Request) -> Response:
    """The connection breaks, and history does not hold all that was published until the client is back."""
    return interrupted(request, forgetful, ("1",), ("2", "3", "4"), "5")


def interrupted(request: Request, source: Hub, seen: tuple[str, ...], missed: tuple[str, ...], last: str) -> Response:
    """Break the first connection after these events, publish others meanwhile, and the last one to the second."""
    times, channel = note(request), key_of(request)
    subscription = source.subscribe(channel)

    async def play() -> None:
        while not subscription.joined:
            await asyncio.sleep(0.01)
        await asyncio.sleep(PAUSE_SECONDS)
        for data in seen if times == 1 else (last,):
            await source.publish(channel, event(request, data))
        if times == 1:
            await asyncio.sleep(PAUSE_SECONDS)
            request.scope["abort"]()
            for data in missed:
                await source.publish(channel, event(request, data))

    if times <= 2 and not AGAIN:
        task = asyncio.get_running_loop().create_task(play())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return EventSourceResponse(subscription, retry=RETRY_MS)


async def deploy(request: Request) -> Response:
    """A stream that is open when the server stops, and goes on with the next server."""
    note(request)
    return EventSourceResponse(hub.subscribe(key_of(request)), retry=RETRY_MS)


async def facts(request: Request) -> Response:
    return JSONResponse({"requests": requests, "runs": runs})


async def page(request: Request) -> Response:
    """A page that runs the driver of one client."""
    return HTMLResponse(page_of(request.query_params["client"]))


HERE = Path(__file__).parent
modules = [
    Mount("/modules", StaticFiles(directory=HERE / "node_modules")),
    Mount("/bundles", StaticFiles(directory=HERE / "node_modules" / ".bundles")),
    Mount("/browser", StaticFiles(directory=HERE.parent / "browser" / "node_modules")),
]
columns = [Route(f"/{endpoint.__name__}", endpoint) for endpoint in (job, error, silence, before, live, gap, deploy)]
routes = [*columns, Route("/facts", facts), Route("/page", page), *modules]
app = Transports(EventSourceMiddleware(EventSourceMiddleware(Starlette(routes=routes), hub=forgetful), hub=hub))
