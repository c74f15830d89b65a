"""An upstream that a test may stop and start again."""

from collections.abc import Callable, Iterator

import pytest

from browser.peers import free_port
from proxies.peers import start_app
from servers.processes import Server

Start = Callable[..., Server]


@pytest.fixture
def port() -> int:
    """The port of the test's own upstream, which nobody else gets while it is stopped."""
    return free_port()


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """Return a function that starts uvicorn there, with these options; once again after a stop, if the test likes."""
    servers: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        servers.append(start_app(*options, port=port, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
