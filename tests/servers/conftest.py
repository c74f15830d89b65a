"""Real servers for the tests of this folder."""

import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from servers.processes import Server


@pytest.fixture
def uvicorn_server() -> Iterator[Callable[..., Server]]:
    """Return a function that starts uvicorn on the tests' application, with these options."""
    servers: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning", *options]
        server = Server(command, port, environment)
        servers.append(server)
        server.wait_until_it_answers()
        return server

    yield start
    for server in servers:
        server.kill()
