"""Streams whose content yields when it should end: in `finally`, or when it is cancelled."""

import os
import sys
import time
from asyncio import CancelledError, sleep
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sse_asgi import ConnectionLimit, EventSourceMiddleware, EventSourceResponse


def log(line: str) -> None:
    """Write a line to the log that the test reads; the order of lines is the order of events."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


async def in_finally() -> AsyncIterator[str]:
    """Yield once more in `finally`."""
    try:
        while True:
            yield "x"
            await sleep(0.05)
    finally:
        try:
            yield "goodbye"
        finally:
            log("closed")


async def when_cancelled() -> AsyncIterator[str]:
    """Yield once more when cancelled."""
    try:
        while True:
            try:
                yield "x"
                await sleep(0.05)
            except CancelledError:
                yield "I go on"
    finally:
        log("closed")


def in_a_thread() -> Iterator[str]:
    """Yield once more in `finally`."""
    try:
        while True:
            yield "x"
            time.sleep(0.05)
    finally:
        try:
            yield "goodbye"
        finally:
            log("closed")


class Iterated:
    """An iterator that ignores a cancellation."""

    def __aiter__(self) -> "Iterated":
        return self

    async def __anext__(self) -> str:
        with suppress(CancelledError):
            await sleep(0.05)
        return "x"

    async def aclose(self) -> None:
        """Log the call."""
        log("closed")


CONTENTS = {
    "in_finally": in_finally,
    "when_cancelled": when_cancelled,
    "in_a_thread": in_a_thread,
    "iterated": Iterated,
}
limit = ConnectionLimit(100)


async def stream(request: Request) -> Response:
    """Stream the content that the path names."""
    content: Any = CONTENTS[request.path_params["content"]]
    return EventSourceResponse(content())


async def count(_: Request) -> Response:
    """Return the number of places of the limit that are taken."""
    return PlainTextResponse(str(limit.open))


app = EventSourceMiddleware(
    Starlette(routes=[Route("/open", count), Route("/content/{content}", stream)]), max_connections=limit
)
