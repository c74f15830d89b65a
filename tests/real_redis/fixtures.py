"""The fixtures that tests on a real Redis share: asyncio, servers of their own, hubs with names of their own."""

import itertools
import secrets
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_redis.launcher import RedisServer, join_cluster
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend

NewServer = Callable[..., RedisServer]


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
def keys(name: str) -> Callable[[str], str]:
    """Return a function that names a key of the test's hub by its end."""
    return lambda end: f"sse:{{{name}}}:{end}"


@pytest.fixture
def locked(new_server: NewServer) -> RedisServer:
    """Start a server with a password."""
    return new_server("--requirepass", "right").start()


@pytest.fixture
def dead() -> Iterator[int]:
    """Return the port of an address that takes no connection and refuses none, as a machine that is off."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.2", port)), socket.socket() as second:
            second.setblocking(False)  # noqa: FBT003 - the socket module has it so
            second.connect_ex(("127.0.0.2", port))
            yield port


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives the name `several` these addresses."""
    ask = socket.getaddrinfo

    def give(*places: tuple[str, int]) -> None:
        def getaddrinfo(host: str, *arguments: object, **options: object) -> object:
            if host != "several":
                return ask(host, *arguments, **options)  # type: ignore[arg-type]
            if options.get("flags"):
                raise socket.gaierror
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr("sse_asgi.backends.redis._places.socket.getaddrinfo", getaddrinfo)

    return give
