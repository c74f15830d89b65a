"""Several servers in one event loop, each with its application: `python -m beside uvicorn:8000 hypercorn:8001`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import hypercorn
import hypercorn.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub

Stop = Callable[[], object]


async def frames() -> AsyncIterator[str]:
    """Yield one frame, then stay silent."""
    yield "data: x\n\n"
    await asyncio.sleep(3600)


def application(name: str, stops: dict[str, Stop]) -> Starlette:
    """Return an application with each kind of stream, which can stop its server."""
    hub = Hub()

    async def publish(request: Request) -> Response:
        return PlainTextResponse(await hub.publish("default", request.query_params["data"]))

    async def stop(_: Request) -> Response:
        stops[name]()
        return PlainTextResponse("")

    async def own(_: Request) -> Response:
        return EventSourceResponse(frames())

    async def foreign(_: Request) -> Response:
        return StreamingResponse(frames(), media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if os.environ.get("BARE"):
            async with hub:
                yield
        else:
            yield
        print(f"lifespan of {name} ended", file=sys.stderr, flush=True)

    routes = [Route(f"/{one.__name__}", one) for one in (publish, stop, own, foreign)]
    app = Starlette(routes=[*routes, Mount("/hub", EventSourceApp(hub))], lifespan=lifespan)
    if not os.environ.get("BARE"):
        app.add_middleware(EventSourceMiddleware, hub=hub)
    return app


def trigger(event: asyncio.Event) -> Callable[[], Awaitable[object]]:
    """Return a `shutdown_trigger` for hypercorn, written in one of the usual ways."""

    async def wait() -> None:
        await event.wait()

    async def wait_for(one: asyncio.Event) -> None:
        await one.wait()

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "Event.wait": event.wait,
        "function": wait,
        "lambda": lambda: wait_for(event),
        "future": lambda: asyncio.ensure_future(wait()),
        "partial": partial(wait_for, event),
    }
    return ways[os.environ.get("TRIGGER", "function")]


async def serve(kind: str, port: int, stops: dict[str, Stop]) -> None:
    """Run a server until its application or a SIGTERM stops it."""
    name = f"{kind}:{port}"
    app = application(name, stops)
    if kind == "uvicorn":
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
        stops[name] = partial(setattr, server, "should_exit", True)  # noqa: FBT003 - setattr's own
        await server.serve()
    else:
        event = asyncio.Event()
        stops[name] = event.set
        config = hypercorn.Config()
        config.bind = [f"127.0.0.1:{port}"]
        await hypercorn.asyncio.serve(app, config, shutdown_trigger=trigger(event))  # type: ignore[arg-type]


async def main() -> None:
    """Run all servers that the command line names."""
    stops: dict[str, Stop] = {}
    loop = asyncio.get_running_loop()

    def stop_all() -> None:
        for stop in stops.values():
            stop()

    signal.signal(signal.SIGTERM, lambda *_: loop.call_soon_threadsafe(stop_all))
    servers = [argument.split(":") for argument in sys.argv[1:]]
    await asyncio.gather(*(serve(kind, int(port), stops) for kind, port in servers))


if __name__ == "__main__":
    asyncio.run(main())
