"""Instructions that EventSourceMiddleware adds to each delivery, and to each request that is no event stream.

`python benchmarks/guard.py` runs itself under callgrind (Debian's valgrind), where a count repeats whatever else the
machine does. Two lengths of each run are subtracted, so that starting up does not count.
"""

import asyncio
import os
import re
import subprocess
import sys
from typing import Any

READERS = 20
EVENTS = (50, 150)
REQUESTS = (200, 600)


async def send(_: Any) -> None:
    pass


async def fan_out(events: int, *, guarded: bool) -> None:
    """Deliver so many events to each reader."""
    from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

    hub = Hub()
    app: Any = EventSourceApp(hub)
    if guarded:
        app = EventSourceMiddleware(app)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async with hub:
        tasks = [asyncio.create_task(app(scope(), receive, send)) for _ in range(READERS)]
        await asyncio.sleep(0.1)
        for number in range(events):
            await hub.publish("default", f"{number:099}")
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def requests(count: int, *, guarded: bool) -> None:
    """Answer so many requests of a Starlette application."""
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
        await app(scope(), receive, send)


def scope() -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "root_path": ""}


def instructions(work: str, count: int, *, guarded: bool) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    result = subprocess.run(
        [*command, work, str(count), str(int(guarded))],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    found = re.search(r"Collected : (\d+)", result.stderr)
    assert found, result.stderr
    return int(found[1])


def measure(work: str, counts: tuple[int, int], each: int) -> None:
    costs = []
    for guarded in (False, True):
        few, many = (instructions(work, count, guarded=guarded) for count in counts)
        costs.append((many - few) / (counts[1] - counts[0]) / each)
    plain, guarded_cost = costs
    share = 100 * (guarded_cost / plain - 1)
    print(
        f"{work}: {plain:,.0f} instructions each, {guarded_cost - plain:,.0f} more with the middleware ({share:.1f} %)"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work = {"deliveries": fan_out, "requests": requests}[sys.argv[1]]
        asyncio.run(work(int(sys.argv[2]), guarded=sys.argv[3] == "1"))
    else:
        measure("deliveries", EVENTS, READERS)
        measure("requests", REQUESTS, 1)
