"""Servers for the tests of this folder, which run in an environment of their own: scripts/strangers makes it.

The packages under test bring others that change the rest of the suite: with httpx2, for example, Starlette's TestClient
becomes another one. So the tests are only collected where the packages are installed.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from servers.processes import Server

collect_ignore_glob = [] if find_spec("mcp") else ["test_*.py"]

START = ("uvicorn", "--app-dir", str(Path(__file__).parent), "--port", "{port}")


@pytest.fixture
def anyio_backend() -> str:
    """Run each test once: the clients are other people's, and the servers run on asyncio."""
    return "asyncio"


@pytest.fixture
def serve() -> Iterator[Callable[[str], Server]]:
    """Return a function that starts uvicorn on an application."""
    servers: list[Server] = []

    def start(app: str) -> Server:
        servers.append(Server.start(START, app))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


@pytest.fixture(scope="module")
def mcp_server() -> Iterator[Server]:
    """Return one server for all conversations."""
    server = Server.start(START, "mcp_app:app")
    yield server
    server.remove()


@pytest.fixture(scope="module")
def web_server() -> Iterator[Server]:
    """Return one server for all streams that are read to their end."""
    server = Server.start(START, "web_app:app")
    yield server
    server.remove()
