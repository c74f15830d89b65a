"""What the tests on a real Redis share: asyncio, servers of their own, hubs that are told apart by name."""

import itertools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from real_redis.crowd import Crowd, crowd
from real_redis.launcher import RedisServer, join_cluster
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend

GAPS = {"none": 0, "one each": 1, "three each": 3}


@pytest.fixture
def anyio_backend() -> str:
    """RedisBackend runs on asyncio only."""
    return "asyncio"


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Return a function that prepares a server, with these options; all are killed at the end."""
    servers: list[RedisServer] = []
    numbers = itertools.count()

    def prepare(*options: str, **how: Any) -> RedisServer:
        servers.append(RedisServer(tmp_path / str(next(numbers)), *options, **how))
        return servers[-1]

    yield prepare
    for server in servers:
        server.kill()


@pytest.fixture
def server(new_server: Callable[..., RedisServer]) -> RedisServer:
    """Start a server for a test that does it harm."""
    return new_server().start()


@pytest.fixture
def cluster(new_server: Callable[..., RedisServer]) -> list[RedisServer]:
    """Start three nodes that share the slots, without replicas."""
    nodes = [new_server("--cluster-enabled", "yes").start() for _ in range(3)]
    join_cluster(nodes)
    return nodes


@pytest.fixture
def name() -> str:
    """Name the hub of one test."""
    return secrets.token_hex(8)


@pytest.fixture
def new_hub(shared_redis: RedisServer, name: str) -> Callable[..., Hub]:
    """Return a function that makes a hub like one of another process: on the shared server, unless another is given."""

    def make(server: RedisServer | None = None, **options: Any) -> Hub:
        url = (server or shared_redis).url
        return Hub(RedisBackend(options.pop("url", url), **{"name": name, **options}))

    return make


@pytest.fixture
def judged(name: str, record: Callable[[str, str, str, float | str], None]) -> Callable[..., Any]:
    """Return a context that runs the load, and in the end judges what its readers saw."""

    @asynccontextmanager
    async def run(*urls: str, fault: str, gaps: str = "none", **options: Any) -> AsyncIterator[Crowd]:
        async with crowd(urls, name, **options) as load:
            yield load
        assert [one for one in load.found if not one.faultless] == []
        if gaps in GAPS:
            assert {len(one.gaps) for one in load.found} == {GAPS[gaps]}
        record("redis", fault, "gaps announced", gaps)
        record("redis", fault, "lost", str(sum(len(one.lost) + len(one.kept) for one in load.found)))
        record("redis", fault, "twice", str(sum(len(one.twice) for one in load.found)))
        record("redis", fault, "until live again", f"{load.seconds:.2f} s")

    return run
