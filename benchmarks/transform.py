"""What a transform adds to each delivery, in instructions.

`python benchmarks/transform.py` runs itself under callgrind (Debian's valgrind), where a count repeats whatever else
the machine does. Two lengths of each run are subtracted, so that starting up does not count. The transforms do nothing
themselves: what is counted is what it takes to call them, and to write what they return.
"""

import asyncio
import os
import re
import subprocess
import sys
from typing import Any

from sse_asgi import EventSourceApp, Hub, ServerSentEvent

READERS = 20
EVENTS = (50, 150)
OTHER = ServerSentEvent("another")

TRANSFORMS: dict[str, Any] = {
    "none": None,
    "the event itself": lambda event, _: event,
    "another event": lambda _event, _properties: OTHER,
}


async def send(_: Any) -> None:
    pass


async def receive() -> Any:
    await asyncio.Event().wait()


async def fan_out(events: int, transform: Any) -> None:
    """Deliver so many events to each reader."""
    hub = Hub()
    app = EventSourceApp(hub, transform=transform)
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [], "root_path": ""}
    async with hub:
        tasks = [asyncio.create_task(app(dict(scope), receive, send)) for _ in range(READERS)]
        await asyncio.sleep(0.1)
        for number in range(events):
            await hub.publish("default", f"{number:099}")
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def instructions(events: int, transform: str) -> int:
    """Count those of one run."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", sys.executable, __file__]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    run = subprocess.run(
        [*command, str(events), transform], capture_output=True, text=True, check=True, env=environment
    )
    found = re.search(r"Collected : (\d+)", run.stderr)
    assert found, run.stderr
    return int(found[1])


def main() -> None:
    """Print a line for each transform."""
    plain = 0.0
    for name in TRANSFORMS:
        few, many = (instructions(events, name) for events in EVENTS)
        cost = (many - few) / (EVENTS[1] - EVENTS[0]) / READERS
        plain = plain or cost
        print(f"{name}: {cost:,.0f} instructions for each delivery, {cost / plain:.2f} times as many as without")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(fan_out(int(sys.argv[1]), TRANSFORMS[sys.argv[2]]))
    else:
        main()
