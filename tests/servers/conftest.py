"""Real servers for the tests of this folder."""

from collections.abc import Callable, Iterator

import pytest

from servers.kinds import KINDS, UVICORN, Kind
from servers.processes import Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a function that starts a kind of server on the tests' application, with these options."""
    servers: list[Server] = []

    def start(kind: Kind | tuple[str, ...], *options: str, **environment: str) -> Server:
        server = Server.start(kind.command if isinstance(kind, Kind) else kind, *options, **environment)
        servers.append(server)
        if isinstance(kind, Kind) and kind.ready is not None:
            server.wait_for(*kind.ready)
        return server

    yield start
    for server in servers:
        server.remove()


@pytest.fixture
def uvicorn_server(serve: Callable[..., Server]) -> Callable[..., Server]:
    """Return a function that starts uvicorn on the tests' application, with these options."""
    return lambda *options, **environment: serve(UVICORN, *options, **environment)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of server."""
    return KINDS[request.param]
