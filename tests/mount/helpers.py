"""A hub's app, mounted in a small application, and a client of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from sse_asgi import EventSourceApp, Hub
from sse_asgi.testing import EventStreamClient


@asynccontextmanager
async def mounted(
    hub: Hub | None = None, path: str = "/events", *, accept: str | None = None, **options: Any
) -> AsyncIterator[tuple[Hub, EventStreamClient]]:
    hub = hub or Hub()
    app = Starlette(routes=[Mount(path, EventSourceApp(hub, **options), name="events")], lifespan=hub.lifespan)
    async with EventStreamClient(app, headers={} if accept is None else {"accept": accept}) as client:
        yield hub, client


async def status(client: EventStreamClient, query: str = "", path: str = "/events/", **options: Any) -> int:
    async with client.stream(f"{path}{query}", **options) as stream:
        return stream.status_code
