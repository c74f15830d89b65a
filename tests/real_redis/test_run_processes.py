"""Runs whose followers are in another process than the source, and processes that stop, block or die."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from real_redis.followers import PATIENCE, read_all
from real_redis.launcher import RedisServer
from servers.processes import Server, clock, wait_until
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.decoder import EventDecoder

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
APP = ("uvicorn", "run_app:app", "--port", "{port}", "--log-level", "warning")
LEASE = 1.0
FOLLOWERS = 50
TOKENS = 400

StartServer = Callable[..., Server]


@pytest.fixture
def start_server(shared_redis: RedisServer, name: str) -> Iterator[StartServer]:
    """Return a function that starts a server with one worker on the test's hub."""
    servers: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        servers.append(Server.start(APP, *options, REDIS=shared_redis.url, NAME=name, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def hub(shared_redis: RedisServer, name: str) -> Hub:
    """Return a hub of this process, whose lease is as short as that of the servers."""
    return Hub(RedisBackend(shared_redis.url, name=name), presence_ttl=LEASE)


async def is_there(hub: Hub, key: str) -> None:
    """Wait until a run has some events."""
    async with asyncio.timeout(PATIENCE):
        while (run := await hub.get_run(key)) is None:
            await asyncio.sleep(0.01)
        async with run.follow() as events:
            for _ in range(3):
                await anext(events)


async def test_a_worker_is_killed(start_server: StartServer, hub: Hub) -> None:
    """Within its lease and a third, its runs are lost for everybody, with all that it has stored."""
    server = start_server(LEASE=str(LEASE))
    server.get("/start?key=a&count=10000&pause=0.02")
    async with hub:
        await is_there(hub, "a")
        following = asyncio.create_task(read_all(hub, "a"))
        await asyncio.sleep(0.1)
        killed = clock()
        server.process.kill()
        live = await following
        assert live.ended - killed < 3 * LEASE
        assert live.end == {"state": "lost", "reason": "lease"}
        assert live.texts == [str(number) for number in range(len(live.texts))]
        late = await read_all(hub, "a")
        assert (late.seen, late.end) == (live.seen, live.end)


@pytest.mark.parametrize("drain", [0, 10])
async def test_a_worker_is_told_to_stop(start_server: StartServer, hub: Hub, drain: int) -> None:
    """Without draining, followers in other processes are told at once; else the run ends by itself."""
    server = start_server(DRAIN=str(drain))
    server.get("/start?key=a&count=100&pause=0.02")
    async with hub:
        await is_there(hub, "a")
        following = asyncio.create_task(read_all(hub, "a"))
        await asyncio.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        live = await following
        assert live.end == ({"state": "finished"} if drain else {"state": "lost", "reason": "shutdown"})
        assert live.texts == [str(number) for number in range(100 if drain else len(live.texts))]
        late = await read_all(hub, "a")
        assert (late.seen, late.end) == (live.seen, live.end)
    assert await asyncio.to_thread(server.process.wait, PATIENCE) in (0, -signal.SIGTERM)
    assert "cleaned a" in server.log()


@pytest.mark.parametrize("how", ["blocked", "stopped"])
async def test_a_worker_stands_still_for_longer_than_its_lease(
    start_server: StartServer, hub: Hub, shared_redis: RedisServer, keys: Callable[[str], str], how: str
) -> None:
    """Its run is lost; when it goes on, its source cleans up, and nothing more is written."""
    server = start_server(LEASE=str(LEASE))
    server.get("/start?key=a&count=10000&pause=0.02")
    async with hub:
        await is_there(hub, "a")
        if how == "blocked":
            server.get("/block?seconds=3")
        else:
            server.process.send_signal(signal.SIGSTOP)
        live = await read_all(hub, "a")
        assert live.end == {"state": "lost", "reason": "lease"}
        if how == "stopped":
            server.process.send_signal(signal.SIGCONT)
        await asyncio.to_thread(server.wait_for, "cleaned a")
        late = await read_all(hub, "a")
        assert (late.seen, late.end) == (live.seen, live.end)
        assert int(shared_redis.cli("XLEN", keys("s:sse.run:a"))) == len(late.texts) + 1
    assert "has ended elsewhere (lost)" in server.log()


async def test_cancelled_by_another_worker(start_server: StartServer, hub: Hub) -> None:
    """The `finally` of the source has run within 200 ms, with its awaits."""
    server = start_server()
    async with hub:
        for key in ("a", "b", "c"):
            server.get(f"/start?key={key}&count=10000&pause=30")
            async with asyncio.timeout(PATIENCE):
                while await hub.get_run(key) is None:
                    await asyncio.sleep(0.01)
            assert await hub.cancel_run(key)
        taken = wait_until(lambda: server.log().count("cleaned") == 3)
    assert taken < 0.2


async def test_a_publisher_is_killed(shared_redis: RedisServer, hub: Hub, name: str) -> None:
    """Its run is lost for the followers in the web application."""
    settings = {"SSE_BACKEND_URL": shared_redis.url, "SSE_HUB_NAME": name, "SSE_PRESENCE_TTL": str(LEASE)}
    command = (sys.executable, str(HERE / "run_publisher.py"))
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, **settings})
    try:
        async with hub:
            await is_there(hub, "a")
            process.kill()
            live = await read_all(hub, "a")
            assert live.end == {"state": "lost", "reason": "lease"}
            assert live.texts == [str(number) for number in range(len(live.texts))]
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Follower:
    """Follows a run over HTTP, and goes on at another worker after some bytes, in the middle of a frame.

    Attributes:
        seen: The ids, types and data of all events.
        hops: The ports of the workers.
    """

    def __init__(self, ports: list[int], number: int) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.hops: list[int] = []
        self._random = random.Random(number)
        self._ports = ports
        self._last_id = ""

    async def run(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 2))
        while not self.seen or self.seen[-1][1] != "sse.end":
            await self._hop(self._random.choice(self._ports), self._random.randint(200, 6000))

    async def _hop(self, port: int, enough: int) -> None:
        self.hops.append(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        last = f"Last-Event-ID: {self._last_id}\r\n" if self._last_id else ""
        writer.write(f"GET /follow?key={quote('a')} HTTP/1.0\r\nHost: test\r\n{last}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        decoder, size = EventDecoder(), 0
        while size < enough and (data := await reader.read(min(1000, enough - size))):
            size += len(data)
            self.seen += [(event.id, event.event, event.data) for event in decoder.feed(data)]
        self._last_id = decoder.last_event_id or self._last_id
        writer.close()


async def test_followers_hop_between_workers(start_server: StartServer) -> None:
    """They join at any time, and all of them see the same events, with the same ids, and the same end."""
    servers = [start_server(), start_server()]
    servers[0].get(f"/start?key=a&count={TOKENS}&pause=0.005")
    followers = [Follower([server.port for server in servers], number) for number in range(FOLLOWERS)]
    async with asyncio.timeout(3 * PATIENCE):
        await asyncio.gather(*(follower.run() for follower in followers))
    texts = [data for _, event, data in followers[0].seen if event == "message"]
    assert texts == [str(number) for number in range(TOKENS)]
    assert followers[0].seen[TOKENS:] == [(followers[0].seen[-1][0], "sse.end", '{"state":"finished"}')]
    for follower in followers:
        assert follower.seen == followers[0].seen
    assert sum(len(follower.hops) for follower in followers) > 2 * FOLLOWERS
