"""Instructions, counted by callgrind, of an event, a delivery, a token and a request.

`instructions.py [name ...]` runs itself under valgrind, where a count does not depend on the load of the machine. A
short run is subtracted from a long one, so that starting up does not count.
"""

import asyncio
import importlib
import itertools
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

READERS = 20
TURNS = 8  # of the event loop, until a new stream waits
TEXT = "The quick brown fox jumps over the lazy dog"


class Work(NamedTuple):
    """A function that repeats its work, two numbers of repetitions, and the number of results of each repetition."""

    run: Callable[[int], None]
    counts: tuple[int, int]
    each: int = 1


# The work


def encode(count: int) -> None:
    from sse_asgi.encoder import encode

    for _ in range(count):
        encode(TEXT, event="note", id="1")


def write_plainly(count: int) -> None:
    for _ in range(count):
        f"event: note\nid: 1\ndata: {TEXT}\n\n".encode()


def deliver(count: int, *, guarded: bool = False, **options: Any) -> None:
    asyncio.run(_deliver(count, guarded=guarded, **options))


async def _deliver(count: int, *, guarded: bool, telemetry: Any = None, readers: int = READERS, **options: Any) -> None:
    from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

    hub = Hub()
    app: Any = EventSourceApp(hub, **options)
    if guarded:
        app = EventSourceMiddleware(app, telemetry=telemetry)
    async with hub:
        with nullcontext() if telemetry is None else telemetry.observe(hub):
            await _publish(count, app, lambda text: hub.publish("default", text), readers)


def deliver_observed(count: int, *, sdk: bool, direct: bool) -> None:
    """Deliver with telemetry, without its SDK or with an SDK that exports nothing.

    Time passes for telemetry as it does without callgrind, which is some fifty times slower.
    """
    from sse_asgi import telemetry as module
    from sse_asgi.telemetry import Telemetry

    module.SAMPLE_SECONDS *= 50
    providers: dict[str, Any] = {}
    if sdk:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider

        providers = {"meter_provider": MeterProvider([InMemoryMetricReader()]), "tracer_provider": TracerProvider()}
    telemetry = Telemetry(**providers)
    if direct:
        deliver_directly(count, guarded=True, telemetry=telemetry)
    else:
        deliver(count, guarded=True, telemetry=telemetry)


def deliver_directly(count: int, **options: Any) -> None:
    """Deliver as to uvicorn, and join no events."""
    from sse_asgi._hub import registry

    steppable()
    registry.PAUSE_SECONDS = -math.inf
    registry.max = min  # type: ignore[attr-defined] # of the pause and the time that sending took
    deliver(count, **options)


def ping(count: int) -> None:
    """Ping as under uvicorn, see above. The clock advances by command."""
    steppable()
    asyncio.run(_ping(count))


async def _ping(count: int) -> None:
    from sse_asgi import EventSourceApp, Hub
    from sse_asgi._loop.timer import shared_timer

    async with Hub() as hub:
        app, server = EventSourceApp(hub), Server()
        tasks = [asyncio.create_task(app(scope(), server.receive, server.send)) for _ in range(READERS)]
        await asyncio.sleep(0.1)
        clock, now = time.monotonic, time.monotonic()
        for _ in range(count):
            now += 15.25
            time.monotonic = itertools.repeat(now).__next__
            shared_timer()._ring()  # noqa: SLF001
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        time.monotonic = clock  # the end of a stream takes time
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def deliver_same(count: int) -> None:
    deliver(count, transform=lambda event, _: event)


def deliver_another(count: int) -> None:
    from sse_asgi import ServerSentEvent

    another = ServerSentEvent("another")
    deliver(count, transform=lambda _event, _properties: another)


def deliver_raw(count: int, readers: int = READERS) -> None:
    sys.path.insert(0, str(Path(__file__).parent / "contenders"))
    import raw

    asyncio.run(_publish(count, raw.serve, lambda text: raw.publish("default", text), readers))


def stream_tokens(count: int) -> None:
    """Stream as under uvicorn, see above."""
    from sse_asgi import EventSourceResponse

    steppable()
    asyncio.run(_stream(count, EventSourceResponse))


def stream_runs(count: int) -> None:
    """Stream runs with a follower each; as under uvicorn, see above."""
    steppable()
    asyncio.run(_stream_runs(count))


async def _stream_runs(count: int) -> None:
    from sse_asgi import EventSourceResponse, Hub

    keys = map(str, itertools.count())
    async with Hub() as hub:

        def app(tokens: AsyncIterator[str]) -> Any:
            async def serve(scope: Any, receive: Any, send: Any) -> None:
                await EventSourceResponse(await hub.start_run(next(keys), tokens))(scope, receive, send)

            return serve

        await _stream(count, app)


def stream_tokens_raw(count: int) -> None:
    def app(tokens: AsyncIterator[str]) -> Any:
        async def stream(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for token in tokens:
                await send({"type": "http.response.body", "body": f"data: {token}\n\n".encode(), "more_body": True})
            await send({"type": "http.response.body"})

        return stream

    asyncio.run(_stream(count, app))


def stream_parts(count: int, write: Callable[[str], Any], **options: Any) -> None:
    """Stream what an AI SDK's agent yields; as under uvicorn, see above."""
    from sse_asgi import EventSourceResponse

    steppable()
    asyncio.run(_stream(count, partial(EventSourceResponse, **options), write))


def stream_in_dialect(count: int, write: Callable[[str], Any]) -> None:
    from sse_asgi.dialects import AI_SDK

    stream_parts(count, write, dialect=AI_SDK)


def part(token: str) -> dict[str, str]:
    return {"type": "text-delta", "id": "1", "delta": token}


def json_part(token: str) -> str:
    return f'{{"type":"text-delta","id":"1","delta":"{token}"}}'


def chunk(token: str) -> bytes:
    return f"data: {json_part(token)}\n\n".encode()


def pass_on_raw(count: int) -> None:
    def app(chunks: AsyncIterator[bytes]) -> Any:
        async def stream(_scope: Any, _receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})

        return stream

    asyncio.run(_stream(count, app, chunk))


async def _stream(count: int, app: Callable[[AsyncIterator[Any]], Any], write: Callable[[str], Any] = str) -> None:
    async def tokens() -> AsyncIterator[Any]:
        for number in range(count):
            await asyncio.sleep(0)
            yield write(f"{number:29}")

    server = Server()
    await asyncio.gather(*(app(tokens())(scope(), server.receive, server.send) for _ in range(READERS)))


async def _publish(count: int, app: Any, publish: Callable[[str], Any], readers: int) -> None:
    server = Server()
    tasks = [asyncio.create_task(app(scope(), server.receive, server.send)) for _ in range(readers)]
    await asyncio.sleep(0.1)
    for number in range(count):
        await publish(f"{number:099}")
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def request(count: int, *, guarded: bool = False) -> None:
    asyncio.run(_request(count, guarded=guarded))


async def _request(count: int, *, guarded: bool) -> None:
    """Answer requests of a Starlette application, without event streams."""
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    from sse_asgi import EventSourceMiddleware

    async def endpoint(_: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    app: Any = Starlette(routes=[Route("/", endpoint)])
    if guarded:
        app = EventSourceMiddleware(app)

    async def receive() -> Any:
        return {"type": "http.request"}

    for _ in range(count):
        await app(scope(), receive, Server().send)


def steppable() -> None:
    """Let the server of this file be known to take messages in any task, as uvicorn is."""
    from sse_asgi._servers import known

    known.STEPPABLE = known.STEPPABLE | {Server.__module__}


def connect(count: int, stack: str) -> None:
    """Open streams that stay open, as under uvicorn."""
    steppable()
    asyncio.run(_connect(count, stack))


async def _connect(count: int, stack: str) -> None:
    hub, app = STACKS[stack]()
    server, tasks = Server(), []
    async with hub:
        for _ in range(count):
            tasks.append(asyncio.create_task(app(scope(), server.receive, server.send)))
            for _ in range(TURNS):
                await asyncio.sleep(0)
        os._exit(0)  # the ends of the streams do not count


def bare() -> tuple[Any, Any]:
    from sse_asgi import EventSourceApp, Hub

    hub = Hub()
    return hub, EventSourceApp(hub)


def contender(module: str, app: str, hub: str = "") -> Callable[[], tuple[Any, Any]]:
    """Return a function that imports the application of a contender, and its hub if it has one."""

    def load() -> tuple[Any, Any]:
        sys.path.insert(0, str(Path(__file__).parent / "contenders"))
        found = importlib.import_module(module)
        return getattr(found, hub) if hub else nullcontext(), getattr(found, app)

    return load


STACKS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "raw ASGI": contender("raw", "serve"),
    "bare": bare,
    "StreamingResponse in Starlette": contender("streaming", "app"),
    "in Starlette": contender("ours_mounted", "application", "hub"),
    "in FastAPI": contender("ours_fastapi", "application", "hub"),
}


class Server:
    """A server that takes every message at once; its clients stay."""

    bodies = 0

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.bodies += message["type"] == "http.response.body"


def scope() -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"channel=default",
        "headers": [],
        "root_path": "",
    }


MANY = (30, 90), READERS
WORK = {
    "event, as a plain f-string": Work(write_plainly, (1000, 3000)),
    "event": Work(encode, (1000, 3000)),
    "delivery, raw ASGI": Work(deliver_raw, (30, 90), READERS),
    "delivery": Work(deliver, (30, 90), READERS),
    "delivery, sent by the publisher": Work(deliver_directly, (30, 90), READERS),
    # more events than are kept, so that each drops one
    "publish to one reader, raw ASGI": Work(lambda count: deliver_raw(count, 1), (1200, 1800)),
    "publish to one reader": Work(lambda count: deliver_directly(count, readers=1), (1200, 1800)),
    "ping": Work(ping, (30, 90), READERS),
    "delivery with the middleware": Work(lambda count: deliver(count, guarded=True), (30, 90), READERS),
    "delivery with telemetry, no SDK": Work(lambda count: deliver_observed(count, sdk=False, direct=False), *MANY),
    "delivery with telemetry and its SDK": Work(lambda count: deliver_observed(count, sdk=True, direct=False), *MANY),
    "delivery, sent by the publisher, with the middleware": Work(
        lambda count: deliver_directly(count, guarded=True), *MANY
    ),
    "delivery, sent by the publisher, with telemetry, no SDK": Work(
        lambda count: deliver_observed(count, sdk=False, direct=True), *MANY
    ),
    "delivery, sent by the publisher, with telemetry and its SDK": Work(
        lambda count: deliver_observed(count, sdk=True, direct=True), *MANY
    ),
    "delivery with a transform that returns the event": Work(deliver_same, (30, 90), READERS),
    "delivery with a transform that returns another": Work(deliver_another, (30, 90), READERS),
    "token, raw ASGI": Work(stream_tokens_raw, (30, 90), READERS),
    "token": Work(stream_tokens, (30, 90), READERS),
    "token of a run": Work(stream_runs, (30, 90), READERS),
    "part, a dict": Work(lambda count: stream_parts(count, part), (30, 90), READERS),
    "part, a dict in AI_SDK": Work(lambda count: stream_in_dialect(count, part), (30, 90), READERS),
    "part, JSON text": Work(lambda count: stream_parts(count, json_part), (30, 90), READERS),
    "part, JSON text in AI_SDK": Work(lambda count: stream_in_dialect(count, json_part), (30, 90), READERS),
    "chunk of an upstream, raw ASGI": Work(pass_on_raw, (30, 90), READERS),
    "chunk of an upstream, encoded": Work(lambda count: stream_parts(count, chunk, encoded=True), (30, 90), READERS),
    **{
        f"connect, {stack}": Work(partial(connect, stack=stack), (100, 300))
        for stack in STACKS
        if "FastAPI" not in stack
    },
    "request": Work(request, (200, 600)),
    "request with the middleware": Work(lambda count: request(count, guarded=True), (200, 600)),
}


# Counting


def instructions(name: str) -> float:
    """Return the number of instructions of one result."""
    work = WORK[name]
    few, many = map(_collected, [_counted(name, count) for count in work.counts])
    return (many - few) / (work.counts[1] - work.counts[0]) / work.each


def _counted(name: str, count: int) -> "subprocess.Popen[str]":
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.Popen(
        [*command, "--run", name, str(count)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment | {"PYTHONHASHSEED": "0"},
    )


def _collected(process: "subprocess.Popen[str]") -> int:
    printed = process.communicate()[1]
    found = re.search(r"Collected : (\d+)", printed)
    if process.returncode or not found:
        sys.exit(printed)
    return int(found[1])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        WORK[sys.argv[2]].run(int(sys.argv[3]))
    else:
        for wanted in sys.argv[1:] or WORK:
            print(f"{wanted}: {instructions(wanted):,.0f}", flush=True)
