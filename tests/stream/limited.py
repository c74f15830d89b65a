"""An application with streams of both kinds and a limit, for the tests of limits and guards."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from sse_asgi import EventSourceMiddleware, EventSourceResponse
from sse_asgi.testing import EventStreamClient


async def forever() -> AsyncIterator[str]:
    yield "x"
    await anyio.sleep_forever()


async def ours(_: Request) -> Response:
    return EventSourceResponse(forever(), headers={"X-Ours": "1"})


async def theirs(_: Request) -> Response:
    async def frames() -> AsyncIterator[str]:
        yield "data: x\n\n"
        await anyio.sleep_forever()

    headers = {"Content-Length": "1000", "Content-Encoding": "gzip", "X-Theirs": "1"}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)


async def plain(_: Request) -> Response:
    return PlainTextResponse("plain")


def limited(max_connections: Any) -> Starlette:
    app = Starlette(routes=[Route("/ours", ours), Route("/theirs", theirs), Route("/plain", plain)])
    app.add_middleware(EventSourceMiddleware, max_connections=max_connections)
    return app


async def assert_refused(client: EventStreamClient, path: str) -> Any:
    async with client.stream(path) as stream:
        await stream.ended()
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.complete
        assert 2000 <= int(stream.content.removeprefix(b"retry: ")) <= 6000
        return stream.headers
