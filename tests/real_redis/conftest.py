"""What the tests on a real Redis share: asyncio, servers of their own, hubs that are told apart by name."""

import itertools
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_redis.launcher import RedisServer, join_cluster
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend


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
def record() -> Callable[[str, str, str, float | str], None]:
    path = os.environ.get("MEASUREMENTS")

    def write(table: str, row: str, column: str, value: float | str) -> None:
        if path is not None:
            with Path(path).open("a") as file:
                file.write(json.dumps([table, row, column, value]) + "\n")

    return write
