"""The contenders of the benchmarks, one ASGI app each: GET / streams, GET /publish?n=N publishes N events."""

import asyncio
import os
import resource
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

PAYLOAD = "x" * 90


def _usage() -> bytes:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as statm:
        rss = int(statm.read().split()[1]) * resource.getpagesize()
    return f"{usage.ru_utime + usage.ru_stime} {rss}".encode()


def control(app: Any, publish: Any) -> Any:
    """Add /publish and /usage to an app."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] not in ("/publish", "/usage"):
            await app(scope, receive, send)
            return
        if scope["path"] == "/publish":
            query = parse_qs(scope["query_string"].decode())
            start = int(query["start"][0])
            burst = int(query.get("burst", ["1"])[0])
            for number in range(start, start + int(query["n"][0])):
                await publish(f"{number:08d} {PAYLOAD}")
                if (number + 1) % burst == 0:
                    await asyncio.sleep(0.002)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": _usage()})

    return wrapped


# Raw ASGI: no pings, no disconnect watch, no bounds, no ids: the least that delivers.

_readers: set["_RawReader"] = set()


class _RawReader:
    __slots__ = ("future", "pending")

    def __init__(self) -> None:
        self.pending: list[bytes] = []
        self.future: asyncio.Future[None] | None = None


async def _raw_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    reader = _RawReader()
    _readers.add(reader)
    try:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        loop = asyncio.get_running_loop()
        while True:
            if not reader.pending:
                reader.future = loop.create_future()
                await reader.future
            body = b"".join(reader.pending)
            reader.pending.clear()
            await send({"type": "http.response.body", "body": body, "more_body": True})
    finally:
        _readers.discard(reader)


async def _raw_publish(data: str) -> None:
    frame = f"data: {data}\n\n".encode()
    for reader in _readers:
        reader.pending.append(frame)
        if reader.future is not None and not reader.future.done():
            reader.future.set_result(None)
    await asyncio.sleep(0)


raw = control(_raw_app, _raw_publish)


def _ours(*, mounted: bool) -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

    hub = Hub()
    served: Any = EventSourceApp(hub, channels=["events"])
    if mounted:
        served = Starlette(routes=[Mount("/", served)])
        served.add_middleware(EventSourceMiddleware, hub=hub)

    async def publish(data: str) -> None:
        await hub.publish("events", data)

    return control(served, publish)


def _sse_starlette() -> Any:
    from sse_starlette import EventSourceResponse
    from starlette.requests import Request

    queues: set[asyncio.Queue[str]] = set()

    async def events(request: Request) -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                if await request.is_disconnected():  # as in its documentation
                    break
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await EventSourceResponse(events(Request(scope, receive)))(scope, receive, send)

    async def publish(data: str) -> None:
        for queue in queues:
            queue.put_nowait(data)
        await asyncio.sleep(0)

    return control(app, publish)


match os.environ.get("CONTENDER"):
    case "ours":
        app = _ours(mounted=False)
    case "mounted":
        app = _ours(mounted=True)
    case "sse_starlette":
        app = _sse_starlette()
    case _:
        app = raw
