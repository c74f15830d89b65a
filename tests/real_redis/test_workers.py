"""Four uvicorn workers and a separate process on one Redis, as readers and publishers see them."""

import asyncio
import itertools
import os
import random
import sys
from asyncio.subprocess import PIPE
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

import pytest

from real_redis.launcher import RedisServer
from servers.processes import Server
from sse_asgi.decoder import EventDecoder

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
WORKERS = 4
READERS = 400
CHANNELS = [f"channel {number}" for number in range(20)]
EACH = 12  # events to each channel from each of the five publishers
SECONDS = 60.0


class Stored(NamedTuple):
    """An event that was acknowledged."""

    position: str
    channel: str
    data: str


@pytest.fixture
def workers(shared_redis: RedisServer, name: str) -> Iterator[Server]:
    """Run four workers on one hub."""
    command = ("uvicorn", "served:app", "--app-dir", str(HERE), "--port", "{port}", "--log-level", "warning")
    options = ("--workers", str(WORKERS), "--backlog", "4096")
    server = Server.start(command, *options, SSE_BACKEND_URL=shared_redis.url, SSE_HUB_NAME=name)
    yield server
    server.remove()


class Connection:
    """One connection of HTTP/1.1, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.worker = ""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def request(self, line: str, **headers: str) -> int:
        """Send a request without a body; return the length of the answer, or 0 if it is unknown."""
        fields = [f"{name}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([f"{line} HTTP/1.1", "Host: test", *fields, "", ""]).encode())
        status, *answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
        assert " 200 " in status, status
        found = dict(field.split(": ", 1) for field in answer if field)
        self.worker = found["worker"]
        return int(found.get("content-length", 0))

    async def text(self, line: str) -> str:
        return (await self._reader.readexactly(await self.request(line))).decode()

    async def chunk(self) -> bytes:
        size = int(await self._reader.readline(), 16)
        return (await self._reader.readexactly(size + 2))[:-2]

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Hopper:
    """A reader of some channels that goes on at another connection after some events, with the last id.

    Attributes:
        seen: The ids and data of all messages, as they came.
        others: The data of all other events but positions.
        workers: Who has served it.
    """

    def __init__(self, port: int, number: int) -> None:
        self.seen: list[tuple[str, str]] = []
        self.others: list[str] = []
        self.workers: list[str] = []
        self.channels = random.Random(number).sample(CHANNELS, 1 + number % 3)
        self.ready = asyncio.Event()
        self._port = port
        self._last_id = ""

    @property
    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1][1] == "end"

    async def run(self) -> None:
        while not self.ended:
            await self._hop(len(self.seen) + random.randint(3, 25))

    async def _hop(self, enough: int) -> None:
        """Read until there are this many events, then leave in the middle of a frame."""
        connection, decoder = await Connection.open(self._port), EventDecoder()
        query = "&".join(f"channel={quote(name)}" for name in self.channels)
        await connection.request(f"GET /events/?{query}", **({"Last-Event-ID": self._last_id} if self._last_id else {}))
        self.workers.append(connection.worker)
        while len(self.seen) < enough and not self.ended:
            for event in decoder.feed(await connection.chunk()):
                if event.event == "message":
                    self.seen.append((event.id, event.data))
                elif event.event != "sse.position":
                    self.others.append(event.data)
            self._last_id = decoder.last_event_id
            if self._last_id:
                self.ready.set()
        await connection.close()


async def one_of_each(port: int) -> list[Connection]:
    """Return a connection to each worker: which one gets a connection is up to the system."""
    found: dict[str, Connection] = {}
    async with asyncio.timeout(SECONDS):
        while len(found) < WORKERS:
            some = [await Connection.open(port) for _ in range(WORKERS)]
            await asyncio.gather(*(one.request("GET /health") for one in some))
            for one in some:
                if found.setdefault(one.worker, one) is not one:
                    await one.close()
    return list(found.values())


async def publish(connection: Connection) -> list[Stored]:
    """Publish to every channel by way of one worker."""
    stored = []
    for number in range(EACH):
        for channel in CHANNELS:
            data = f"{connection.worker}-{number}"
            position = await connection.text(f"POST /publish?channel={quote(channel)}&data={data}")
            stored.append(Stored(position, channel, data))
    await connection.close()
    return stored


class Outsider:
    """A process that is not a web server."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._input, self._output = process, process.stdin, process.stdout

    @classmethod
    async def start(cls, url: str, name: str) -> Self:
        command = (sys.executable, str(HERE / "outsider.py"), str(EACH), *CHANNELS)
        environment = {**os.environ, "SSE_BACKEND_URL": url, "SSE_HUB_NAME": name}
        return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment))

    async def stored(self) -> list[Stored]:
        """Wait until all but the end has been published."""
        lines = (await self._output.readuntil(b"\n\n")).decode().splitlines()[:-1]
        return [Stored(*line.split("\t")) for line in lines]

    async def end(self) -> str:
        """Have it publish the end, and return its id."""
        output, _ = await self._process.communicate(b"\n")
        return output.decode().strip()


def sequence(one: tuple[str, ...]) -> int:
    """Return the sequence of an event's position."""
    return int(one[0].partition("-")[2])


async def test_readers_that_hop_between_workers_get_everything(
    workers: Server, shared_redis: RedisServer, name: str
) -> None:
    """From any publisher, at any worker: a reader gets every event of its channels, once, in the hub's order."""
    publishers = await one_of_each(workers.port)
    readers = [Hopper(workers.port, number) for number in range(READERS)]
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        for reader in readers:
            tasks.create_task(reader.run())
        for reader in readers:
            await reader.ready.wait()
        outsider = await Outsider.start(shared_redis.url, name)
        *by_workers, by_outsider = await asyncio.gather(*map(publish, publishers), outsider.stored())
        end = await outsider.end()

    stored = defaultdict(list)
    for one in sorted([*itertools.chain(*by_workers), *by_outsider], key=sequence):
        stored[one.channel].append((one.position, one.data))
    assert [len(stored[channel]) for channel in CHANNELS] == [EACH * (WORKERS + 1)] * len(CHANNELS)
    for reader in readers:
        expected = sorted(itertools.chain(*(stored[channel] for channel in reader.channels)), key=sequence)
        assert reader.seen == [*expected, (end, "end")]
        assert reader.others == []
    hops = [hop for reader in readers for hop in itertools.pairwise(reader.workers)]
    assert len(hops) > 4 * READERS
    assert len({hop for hop in hops if hop[0] != hop[1]}) == WORKERS * (WORKERS - 1)
