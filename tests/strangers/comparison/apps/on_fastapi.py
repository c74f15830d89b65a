"""fastapi.sse, as FastAPI's documentation shows it: endpoints that yield."""

import asyncio
from collections.abc import AsyncIterable

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from strangers.comparison.apps.contents import FLOOD, PART, asked, report, taken

app = FastAPI()


@app.get("/refused", response_class=EventSourceResponse)
async def refused() -> AsyncIterable[str]:
    raise HTTPException(402)
    yield ""


@app.get("/fails", response_class=EventSourceResponse)
async def fails() -> AsyncIterable[str]:
    yield "one"
    raise ValueError


@app.get("/waits", response_class=EventSourceResponse)
async def waits() -> AsyncIterable[str]:
    yield "one"
    try:
        await asyncio.sleep(3600)
    finally:
        report("cleanup begins")
        await asyncio.sleep(0.05)
        report("cleanup ends")


@app.get("/silent", response_class=EventSourceResponse)
async def silent() -> AsyncIterable[str]:
    await asyncio.sleep(3600)
    yield ""


@app.get("/flood", response_class=EventSourceResponse)
async def flood() -> AsyncIterable[str]:
    try:
        for _ in range(FLOOD):
            taken.update(events=1)
            yield PART
    finally:
        report("flood ends")


@app.get("/job", response_class=EventSourceResponse)
async def job() -> AsyncIterable[str]:
    report("job runs")
    yield "done"


@app.get("/one", response_class=EventSourceResponse)
async def one(request: Request) -> AsyncIterable[ServerSentEvent]:
    fields = asked(request.url.query)
    yield ServerSentEvent(raw_data=fields.pop("data"), **fields)


async def payment() -> None:
    raise HTTPException(402)


@app.get("/paid", response_class=EventSourceResponse, dependencies=[Depends(payment)])
async def paid() -> AsyncIterable[str]:
    yield ""


@app.get("/count", response_class=PlainTextResponse)
async def count() -> str:
    return str(taken["events"])
