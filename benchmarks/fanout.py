"""Fan-out: CPU of the server per delivery, and memory per idle connection, as ratios against a raw ASGI app.

    python benchmarks/fanout.py [--readers 1000] [--rounds 15] [--events 20] [--burst 1]

Every contender serves on uvicorn (uvloop, httptools) at the same time, and rounds take turns between them; a ratio is
the median of the ratios within the rounds. The client checks that each reader got every event, and fails if not.
Servers share one core, the client has the other. Needs: pip install 'uvicorn[standard]' sse-starlette.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import urllib.request
from importlib.metadata import version
from pathlib import Path

CONTENDERS = ("raw", "ours", "mounted", "sse_starlette")
HERE = Path(__file__).parent


class Server:
    """One contender in a process of its own."""

    def __init__(self, name: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self.next = 0
        command = [sys.executable, "-m", "uvicorn", "servers:app", "--app-dir", str(HERE), "--port", str(self.port)]
        command += ["--log-level", "warning", "--loop", "uvloop", "--http", "httptools", "--backlog", "4096"]
        environment = {**os.environ, "CONTENDER": name}
        self.process = subprocess.Popen([*_pinned(0), *command], env=environment)
        self.streams: list[Reader] = []

    async def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.port}{path}"
        return await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=120).read().decode())

    async def ready(self) -> None:
        while True:
            try:
                await self.get("/usage")
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return

    async def usage(self) -> tuple[float, int]:
        cpu, rss = (await self.get("/usage")).split()
        return float(cpu), int(rss)


class Reader(asyncio.Protocol):
    """Counts complete events and checks their numbers."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.expected = 0
        self.rest = b""
        self.head = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        if not self.head.done():
            self.head.set_result(None)
        *frames, self.rest = (self.rest + data.replace(b"\r", b"")).split(b"\n\n")
        for frame in frames:
            _, found, text = frame.partition(b"data: ")
            if found and int(text[:8]) != self.expected:
                sys.exit(f"port {self.port}: got event {int(text[:8])}, expected {self.expected}")
            self.expected += bool(found)


def _pinned(core: int) -> list[str]:
    return ["taskset", "-c", str(core)] if (os.cpu_count() or 1) > 1 and Path("/usr/bin/taskset").exists() else []


async def connect(server: Server, readers: int) -> float:
    before = (await server.usage())[1]
    loop = asyncio.get_running_loop()
    for start in range(0, readers, 100):
        made = [
            (await loop.create_connection(lambda: Reader(server.port), "127.0.0.1", server.port))[1]
            for _ in range(start, min(readers, start + 100))
        ]
        await asyncio.gather(*(reader.head for reader in made))
        server.streams += made
    await asyncio.sleep(0.5)
    return ((await server.usage())[1] - before) / readers


async def publish(server: Server, events: int, burst: int) -> float:
    before = (await server.usage())[0]
    await server.get(f"/publish?start={server.next}&n={events}&burst={burst}")
    server.next += events
    while any(reader.expected < server.next for reader in server.streams):
        await asyncio.sleep(0.01)
    return ((await server.usage())[0] - before) / events / len(server.streams)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--burst", type=int, default=1)
    options = parser.parse_args()
    if _pinned(1):
        os.sched_setaffinity(0, {1})
    servers = [Server(name) for name in CONTENDERS]
    try:
        memory = {}
        for server in servers:
            await server.ready()
            memory[server.name] = await connect(server, options.readers)
        rounds = []
        for number in range(options.rounds + 1):
            order = servers[number % len(servers) :] + servers[: number % len(servers)]
            costs = {server.name: await publish(server, options.events, options.burst) for server in order}
            if number:  # the first one warms up
                rounds.append(costs)
            print(f"\rround {number}/{options.rounds}", end="", file=sys.stderr, flush=True)
    finally:
        for server in servers:
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    packages = {name: version(name) for name in ("uvicorn", "uvloop", "httptools", "starlette", "sse-starlette")}
    print(f"\nPython {platform.python_version()}, {json.dumps(packages)}")
    print(f"{options.readers} readers, bursts of {options.burst}, {options.rounds} rounds of {options.events} events")
    print(f"{'contender':16}{'µs/delivery':>12}{'vs raw':>8}{'spread':>14}{'KiB/idle':>10}{'vs raw':>8}")
    for name in CONTENDERS:
        ratios = sorted(costs[name] / costs["raw"] for costs in rounds)
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        cost = statistics.median(costs[name] for costs in rounds) * 1e6
        print(
            f"{name:16}{cost:12.2f}{statistics.median(ratios):8.2f}{f'{low:.2f}-{high:.2f}':>14}"
            f"{memory[name] / 1024:10.1f}{memory[name] / memory['raw']:8.2f}"
        )


asyncio.run(main())
