"""sse-starlette, as its README shows it: EventSourceResponse over an async generator, in Starlette."""

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from strangers.comparison.apps.contents import FLOOD, PART, asked, report, taken

Events = AsyncIterator[dict[str, str]]


async def refused() -> Events:
    raise HTTPException(402)
    yield {}


async def fails() -> Events:
    yield {"data": "one"}
    raise ValueError


async def waits() -> Events:
    yield {"data": "one"}
    try:
        await asyncio.sleep(3600)
    finally:
        report("cleanup begins")
        await asyncio.sleep(0.05)
        report("cleanup ends")


async def silent() -> Events:
    await asyncio.sleep(3600)
    yield {}


async def flood() -> Events:
    try:
        for _ in range(FLOOD):
            taken.update(events=1)
            yield {"data": PART}
    finally:
        report("flood ends")


async def job() -> Events:
    report("job runs")
    yield {"data": "done"}


async def one(request: Request) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(**asked(request.url.query))


GENERATORS = {f"/{generator.__name__}": generator for generator in (refused, fails, waits, silent, job)}


async def stream(request: Request) -> EventSourceResponse:
    return EventSourceResponse(GENERATORS[request.url.path]())


async def stream_one(request: Request) -> EventSourceResponse:
    return EventSourceResponse(one(request))


async def stream_flood(request: Request) -> EventSourceResponse:
    return EventSourceResponse(flood(), send_timeout=1)


async def paid(_: Request) -> EventSourceResponse:
    raise HTTPException(402)


async def count(_: Request) -> Response:
    return PlainTextResponse(str(taken["events"]))


app = Starlette(
    routes=[
        *(Route(path, stream) for path in GENERATORS),
        Route("/one", stream_one),
        Route("/flood", stream_flood),
        Route("/count", count),
        Route("/paid", paid),
    ]
)
