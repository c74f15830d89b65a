"""uvicorn in the event loop of a test, which can keep the loop busy, or block it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from servers.processes import free_port


@contextlib.asynccontextmanager
async def serving(app: Any, http: Any = "httptools") -> AsyncIterator[int]:
    """Serve an application until the end of the block; give the port."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, http=http, log_level="warning"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        server.should_exit = True
        await task
