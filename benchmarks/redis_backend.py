"""RedisBackend: CPU of receiving and publishing, compared with redis-py; latency, reconnecting and memory.

    python benchmarks/redis_backend.py [--rounds 9] [--only receiving]

The script starts a redis-server of its own. Contenders take turns in one process. A ratio is the median of the ratios
within the rounds, and the spread is the middle half. The redis-server and the other side have the second core.
Needs: redis-server, pip install 'sse-asgi[redis]' 'uvicorn[standard]'.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import redis.asyncio
from redis.asyncio.connection import BlockingConnectionPool

from sse_asgi import Hub, ServerSentEvent
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis import __file__ as our_file
from sse_asgi.backends.redis._message import payload

HERE = Path(__file__).parent
OURS, THEIRS = "0", "1"  # cores
MESSAGES = 20_000  # in each turn of receiving
AT_ONCE = 50
WAITING = 2_000
PUBLISHES = 5_000  # in each turn of publishing
RATE, SECONDS, READERS, CHANNELS = 400, 4, 120, 40
MANY = 10_000
MISSED = 1_000
SHAPES = (100, 100), (1000, 100), (MANY, 10), (MANY, 1)  # the number of channels, and of events in each


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(core: str, port: int, *command: str, **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        ["taskset", "-c", core, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def worker(url: str, core: str) -> Iterator[int]:
    """Run redis_app on uvicorn."""
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", "redis_app:app", "--app-dir", str(HERE), "--port", str(port))
    with running(core, port, *command, "--log-level", "warning", SSE_BACKEND_URL=url):
        yield port


def fetch(port: int, path: str) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120).read()


async def get(port: int, path: str) -> None:
    await asyncio.to_thread(fetch, port, path)


class Table:
    """Measurements, a row for each contender; the others are compared with the first one."""

    def __init__(self, title: str, unit: str) -> None:
        self.title, self.unit = title, unit
        self.rounds: list[dict[str, float]] = []

    async def measure(self, rounds: int, contenders: dict[str, Callable[[], Awaitable[float]]]) -> None:
        names = list(contenders)
        for number in range(rounds + 1):
            order = names[number % len(names) :] + names[: number % len(names)]
            costs = {name: await contenders[name]() for name in order}
            if number:  # the first one warms up
                self.rounds.append({name: costs[name] for name in names})
        self.print()

    def print(self) -> None:
        print(f"\n{self.title} ({len(self.rounds)} rounds)")
        first = next(iter(self.rounds[0]))
        for name in self.rounds[0]:
            costs = [costs[name] for costs in self.rounds]
            low, middle, high = middle_half([costs[name] / costs[first] for costs in self.rounds])
            least, cost, most = middle_half(costs)
            print(f"  {name:34}{cost:9.2f} {self.unit} ({least:.2f}-{most:.2f})  x {middle:.2f} ({low:.2f}-{high:.2f})")


def middle_half(values: list[float]) -> tuple[float, float, float]:
    ranked = sorted(values)
    return ranked[len(ranked) // 4], statistics.median(ranked), ranked[-1 - len(ranked) // 4]


# Receiving


class Counting:
    """A sink that counts: a worker has this cost before it fans out."""

    def __init__(self) -> None:
        self.count = 0

    def deliver(self, entry: object) -> None:  # noqa: ARG002
        self.count += 1

    def advance(self, position: object) -> None: ...

    def gap(self, reason: object, channels: object) -> None:
        sys.exit(f"a gap in {channels}: {reason}")

    def state(self, *, up: bool) -> None: ...


Count = Callable[[], int]
CpuOf = Callable[[int, Count], Awaitable[float]]


async def as_they_come(publisher: int, count: Count) -> float:
    """Let the publisher send every message; return the CPU of this process for each of them, in µs."""
    began, until = time.process_time(), count() + MESSAGES
    request = asyncio.create_task(get(publisher, f"/burst?n={MESSAGES}&at_once={AT_ONCE}"))
    while count() < until:
        await asyncio.sleep(0.02)
    cost = time.process_time() - began
    await request
    return cost / MESSAGES * 1e6


async def waiting(publisher: int, count: Count) -> float:
    """Do the same with messages that have all arrived before the first one is read."""
    cost = 0.0
    for _ in range(MESSAGES // WAITING):
        until = count() + WAITING
        fetch(publisher, f"/burst?n={WAITING}&at_once={AT_ONCE}")  # blocks the event loop
        began = time.process_time()
        while count() < until:
            await asyncio.sleep(0.001)
        cost += time.process_time() - began
    return cost / MESSAGES * 1e6


async def receive_ours(url: str, publisher: int, cpu_of: CpuOf) -> float:
    sink, backend = Counting(), RedisBackend(url)
    async with backend.connect(sink):  # type: ignore[arg-type]
        await backend.subscribe(tuple(f"channel {number}" for number in range(100)))
        return await cpu_of(publisher, lambda: sink.count)


async def receive_theirs(url: str, publisher: int, cpu_of: CpuOf, protocol: int) -> float:
    received = 0

    async def listen() -> None:
        nonlocal received
        async for message in pubsub.listen():
            received += message["type"] == "message"

    async with redis.asyncio.from_url(url, protocol=protocol) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(*(f"sse:{{default}}:c:channel {number}" for number in range(100)))
        task = asyncio.create_task(listen())
        cost = await cpu_of(publisher, lambda: received)
        task.cancel()
        await asyncio.wait([task])
        return cost


async def receiving(url: str, rounds: int) -> None:
    with worker(url, THEIRS) as publisher:
        for title, cpu_of in (
            (f"{AT_ONCE} at once, read as they come", as_they_come),
            (f"{WAITING} that wait to be read", waiting),
        ):
            await Table(f"Receive 200 bytes, {title}: CPU for each", "µs").measure(
                rounds,
                {
                    "redis-py listen(), RESP2": partial(receive_theirs, url, publisher, cpu_of, 2),
                    "redis-py listen(), RESP3": partial(receive_theirs, url, publisher, cpu_of, 3),
                    "RedisBackend": partial(receive_ours, url, publisher, cpu_of),
                },
            )


# Publishing


async def spread_over(publish: Callable[[int], Awaitable[object]], at_once: int) -> float:
    """Publish; return the µs of one publish."""
    numbers = iter(range(PUBLISHES))

    async def one_after_the_other() -> None:
        for number in numbers:
            await publish(number)

    began = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return (time.perf_counter() - began) / PUBLISHES * 1e6


async def publishing(url: str, rounds: int) -> None:
    scripts = Path(our_file).parent
    text = (scripts / "log.lua").read_text() + (scripts / "publish.lua").read_text()
    data = payload(ServerSentEvent("x" * 200), ("channel",), None)
    pool = BlockingConnectionPool.from_url(url, max_connections=AT_ONCE, protocol=2)
    async with redis.asyncio.Redis(connection_pool=pool) as client, Hub(RedisBackend(url)) as hub:
        script = client.register_script(text)

        def ours(number: int) -> Awaitable[object]:
            return hub.publish(f"channel {number % 1000}", "x" * 200)

        def theirs(number: int) -> Awaitable[object]:
            name = f"channel {number % 1000}"
            base = "sse:{default}:"
            keys = [f"{base}m", f"{base}i", f"{base}s:{name}"]
            kept = (1000, 3_600_000, 4 << 20)
            return script(keys, ["00000000", "", "PUBLISH", 0, data, 256 << 20, name, f"{base}c:{name}", *kept])

        for title, at_once in (("one after the other", 1), (f"{AT_ONCE} at once", AT_ONCE)):
            await Table(f"Publish 200 bytes, {title}: time for each", "µs").measure(
                rounds,
                {
                    "redis-py, same script, pool of 50": partial(spread_over, theirs, at_once),
                    "Hub.publish": partial(spread_over, ours, at_once),
                },
            )


async def capacity(url: str, rounds: int) -> None:
    """Measure Redis itself, and nothing that an earlier version of this library would lack."""
    async with redis.asyncio.from_url(url) as client, Hub(RedisBackend(url)) as hub:

        def publish(number: int) -> Awaitable[object]:
            return hub.publish(f"channel {number % 1000}", "x" * 200)

        await spread_over(publish, AT_ONCE)
        before = await cpu_seconds(client)
        for _ in range(rounds):
            await spread_over(publish, AT_ONCE)
        cost = (await cpu_seconds(client) - before) / PUBLISHES / rounds
        print(f"\nCPU of Redis for each publish, {AT_ONCE} at once: {cost * 1e6:.1f} µs")


async def cpu_seconds(client: redis.asyncio.Redis) -> float:
    used = await client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


# Latency


class Reader(asyncio.Protocol):
    """Records the time since the call of publish for each event that its socket receives."""

    def __init__(self, port: int, channel: int, delays: list[float]) -> None:
        self.request = f"GET /events/?channel={channel} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.delays = delays
        self.head = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.head.done() and b"id: " in data:
            self.head.set_result(None)
        for part in data.split(b"data: ")[1:]:
            if not part.startswith(b"{"):  # a position
                self.delays.append((now - int(part[:20])) / 1e6)


@contextlib.asynccontextmanager
async def readers(port: int) -> AsyncIterator[list[float]]:
    delays: list[float] = []
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(lambda n=n: Reader(port, n % CHANNELS, delays), "127.0.0.1", port))[1]
        for n in range(READERS)
    ]
    await asyncio.gather(*(one.head for one in made))
    yield delays
    for one in made:
        one.transport.close()


async def delays_of(port: int, delays: list[float]) -> tuple[float, float]:
    delays.clear()
    count = RATE * SECONDS
    await get(port, f"/paced?n={count}&channels={CHANNELS}&seconds={SECONDS}")
    while len(delays) < count * READERS // CHANNELS:
        await asyncio.sleep(0.01)
    ranked = sorted(delays)
    return statistics.median(ranked), ranked[int(len(ranked) * 0.99)]


async def latency(url: str, rounds: int) -> None:
    tables = [Table(f"Publish call to socket, {RATE} events/s, {READERS} readers, {p}", "ms") for p in ("p50", "p99")]
    os.sched_setaffinity(0, {int(THEIRS)})
    with worker("memory://", OURS) as memory, worker(url, OURS) as shared:
        async with readers(memory) as memory_delays, readers(shared) as shared_delays:
            for number in range(rounds + 1):
                found = {
                    "MemoryBackend": await delays_of(memory, memory_delays),
                    "RedisBackend": await delays_of(shared, shared_delays),
                }
                for place, table in enumerate(tables if number else ()):
                    table.rounds.append({name: both[place] for name, both in found.items()})
    os.sched_setaffinity(0, {int(OURS)})
    for table in tables:
        table.print()


# Reconnecting


class Many:
    """A hub with a reader on each of many channels, a hub that publishes, and a client that kills connections."""

    def __init__(self, hub: Hub, other: Hub, client: redis.asyncio.Redis) -> None:
        self.entered = self.seen = 0
        self.hub, self.other, self.client = hub, other, client

    async def read(self, channel: str) -> None:
        async with self.hub.subscribe(channel) as subscription:
            self.entered += 1
            async for event in subscription:
                if event.event == "sse.gap":
                    sys.exit(f"a gap: {event}")
                self.seen += 1

    async def has_seen(self, count: int) -> None:
        while self.seen < count or self.hub.state != "up":
            await asyncio.sleep(0.002)

    async def reconnect(self, missed: int) -> float:
        """Kill the connection and publish at once; return the ms until every event has arrived, and a new one."""
        expected, chosen = self.seen + missed, random.sample(range(MANY), missed)
        began = time.perf_counter()
        await self.client.execute_command("CLIENT", "KILL", "ID", str(await self.listener()))
        for start in range(0, missed, AT_ONCE):
            some = chosen[start : start + AT_ONCE]
            await asyncio.gather(*(self.other.publish(f"many {number}", "x" * 200) for number in some))
        await self.has_seen(expected)
        await self.other.publish("many 0", "x" * 200)
        await self.has_seen(expected + 1)
        return (time.perf_counter() - began) * 1e3

    async def listener(self) -> int:
        """Find the pub/sub connection of the readers' hub."""
        clients = await self.client.client_list()
        return next(int(one["id"]) for one in clients if int(one["sub"]) == MANY)


async def reconnecting(url: str, rounds: int) -> None:
    async with (
        redis.asyncio.from_url(url) as client,
        Hub(RedisBackend(url)) as hub,
        Hub(RedisBackend(url)) as other,
        asyncio.TaskGroup() as tasks,
    ):
        many = Many(hub, other, client)
        began = time.perf_counter()
        made = [tasks.create_task(many.read(f"many {number}")) for number in range(MANY)]
        while many.entered < MANY:
            await asyncio.sleep(0.01)
        print(f"\n{MANY} channels, a reader on each: entered within {time.perf_counter() - began:.2f} s")
        await Table(f"{MANY} channels, connection killed, until a new event arrives", "ms").measure(
            rounds, {"nothing missed": lambda: many.reconnect(0), f"{MISSED} missed": lambda: many.reconnect(MISSED)}
        )
        for task in made:
            task.cancel()


# Memory


async def memory(url: str, _: int) -> None:
    print("\nMemory of Redis for each event that is kept, of 200 bytes")
    async with redis.asyncio.from_url(url) as client:
        for channels, each, node in (*((*shape, 4096) for shape in SHAPES), (MANY, 1, 512)):
            await client.flushall()
            await client.config_set("stream-node-max-bytes", node)
            async with Hub(RedisBackend(url)) as hub:
                before = (await client.info("memory"))["used_memory"]
                for _ in range(each):
                    for start in range(0, channels, AT_ONCE):
                        numbers = range(start, start + AT_ONCE)
                        await asyncio.gather(*(hub.publish(f"channel {number}", "x" * 200) for number in numbers))
                used = (await client.info("memory"))["used_memory"] - before
                print(
                    f"  {channels} channels of {each}, stream-node-max-bytes {node}: {used / channels / each:.0f} bytes"
                )


PARTS = {
    "receiving": receiving,
    "publishing": publishing,
    "capacity": capacity,
    "latency": latency,
    "reconnecting": reconnecting,
    "memory": memory,
}


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", choices=PARTS)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {int(OURS)})
    logging.getLogger("sse_asgi").setLevel(logging.ERROR)  # connections are lost on purpose
    port, directory = free_port(), tempfile.mkdtemp()
    command = ("redis-server", "--port", str(port), "--save", "", "--dir", directory)
    with running(THEIRS, port, *command):
        url = f"redis://127.0.0.1:{port}"
        async with redis.asyncio.from_url(url) as client:
            server = (await client.info("server"))["redis_version"]
        packages = {name: version(name) for name in ("redis", "hiredis", "uvicorn", "uvloop")}
        print(f"Python {platform.python_version()}, Redis {server}, {json.dumps(packages)}")
        for name, part in PARTS.items():
            if arguments.only in (None, name):
                await part(url, arguments.rounds)


asyncio.run(main())
