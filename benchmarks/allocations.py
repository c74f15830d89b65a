"""Allocations, counted by tracemalloc, of an idle stream, where a count does not depend on the machine.

`allocations.py [stack ...]` opens streams that stay open, without a server, and prints the bytes that each of them
keeps: of its stack, its scope and this library.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

from instructions import STACKS, TURNS, Server, scope, steppable

WARM, STREAMS = 50, 500


async def _measure(name: str) -> float:
    hub, app = STACKS[name]()
    server = Server()
    tasks: list[Any] = []

    async def open_streams(count: int) -> None:
        tasks.extend(asyncio.create_task(app(scope(), server.receive, server.send)) for _ in range(count))
        while server.bodies < len(tasks):
            await asyncio.sleep(0.01)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        gc.collect()

    async with hub:
        await open_streams(WARM)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await open_streams(STREAMS)
        print((tracemalloc.get_traced_memory()[0] - before) / STREAMS, flush=True)
        os._exit(0)  # the streams are still open


def allocated(name: str) -> float:
    """Return the bytes of one stream, from a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--run", name]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        steppable()
        asyncio.run(_measure(sys.argv[2]))
    else:
        for wanted in sys.argv[1:] or STACKS:
            print(f"{wanted}: {allocated(wanted):,.0f}", flush=True)
