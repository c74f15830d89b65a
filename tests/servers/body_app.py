"""The application for the tests of request bodies, with the middleware unless BARE is set."""

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from anyio import CancelScope, sleep, sleep_forever
from fastapi import FastAPI, Request
from starlette.responses import Response

from sse_asgi import EventSourceMiddleware, EventSourceResponse

app = FastAPI()
if not os.environ.get("BARE"):
    app.add_middleware(EventSourceMiddleware)


def log(line: str) -> None:
    """Write a line to the log that the test reads; the order of lines is the order of events."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


@app.post("/json")
async def read_json(request: Request) -> Response:
    """Read the body inside the generator."""

    async def events() -> AsyncIterator[Any]:
        yield await request.json()

    return EventSourceResponse(events())


@app.post("/count/{name}")
async def count(name: str, request: Request) -> Response:
    """Count the body inside the generator, with an event for each chunk, and a pause after it."""

    async def events() -> AsyncIterator[int]:
        size = 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                yield size
                await sleep(0.002)
            yield size
        finally:
            log(f"{name}: cleaned")

    return EventSourceResponse(events())


@app.post("/idle/{name}")
async def idle(name: str, body: dict[str, int]) -> Response:
    """Stream the body that FastAPI has read, then stay silent."""

    async def events() -> AsyncIterator[Any]:
        try:
            yield body
            await sleep_forever()
        finally:
            with CancelScope(shield=True):
                await sleep(0.01)
            log(f"{name}: cleaned")

    return EventSourceResponse(events())


@app.post("/read/{name}")
async def read(name: str, request: Request) -> Response:
    """Stream the body that the generator has read, then stay silent."""

    async def events() -> AsyncIterator[Any]:
        try:
            yield await request.json()
            await sleep_forever()
        finally:
            log(f"{name}: cleaned")

    return EventSourceResponse(events())
