"""sse_asgi, as its README shows it: streams of generators, and a hub mounted in a Starlette application."""

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, ServerSentEvent, create_hub
from strangers.comparison.apps.contents import FLOOD, PART, asked, report, taken

hub = create_hub()  # in memory, or on Redis where SSE_BACKEND_URL says so


async def refused() -> AsyncIterator[str]:
    raise HTTPException(402)
    yield ""


async def fails() -> AsyncIterator[str]:
    yield "one"
    raise ValueError


async def waits() -> AsyncIterator[str]:
    yield "one"
    try:
        await asyncio.sleep(3600)
    finally:
        report("cleanup begins")
        await asyncio.sleep(0.05)
        report("cleanup ends")


async def silent() -> AsyncIterator[str]:
    await asyncio.sleep(3600)
    yield ""


async def flood() -> AsyncIterator[str]:
    try:
        for _ in range(FLOOD):
            taken.update(events=1)
            yield PART
    finally:
        report("flood ends")


async def job() -> AsyncIterator[str]:
    report("job runs")
    yield "done"


async def one(request: Request) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(**asked(request.url.query))


GENERATORS = {f"/{generator.__name__}": generator for generator in (refused, fails, waits, silent, job)}


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(GENERATORS[request.url.path]())


async def stream_one(request: Request) -> EventSourceResponse:
    return EventSourceResponse(one(request))


async def stream_flood(request: Request) -> EventSourceResponse:
    return EventSourceResponse(flood(), send_timeout=1)


async def count(_: Request) -> Response:
    return PlainTextResponse(str(taken["events"]))


async def paid(_: Request) -> EventSourceResponse:
    raise HTTPException(402)


async def burst(_: Request) -> Response:
    for number in range(FLOOD):
        await hub.publish("news", f"{number} {PART}")
    return Response()


async def publish(request: Request) -> Response:
    await hub.publish("news", (await request.body()).decode())
    return Response()


app = Starlette(
    routes=[
        *(Route(path, stream) for path in GENERATORS),
        Route("/one", stream_one),
        Route("/flood", stream_flood),
        Route("/count", count),
        Route("/paid", paid),
        Route("/burst", burst, methods=["POST"]),
        Route("/publish", publish, methods=["POST"]),
        Mount("/channel", EventSourceApp(hub, channels=["news"])),
    ]
)
app.add_middleware(EventSourceMiddleware, hub=hub)
