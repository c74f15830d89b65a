"""Real servers for the tests of this folder, and the signal handlers of the tests' own process."""

import signal
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from servers.kinds import KINDS, UVICORN, Kind
from servers.processes import Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server of a kind on the tests' application."""
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
    """Return a function that starts uvicorn on the tests' application."""
    return lambda *options, **environment: serve(UVICORN, *options, **environment)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of server."""
    return KINDS[request.param]


@pytest.fixture(
    scope="module",
    params=[
        "uvicorn",
        "uvicorn --http h11 --loop asyncio",
        "uvicorn --http zttp --http2",
        "hypercorn",
        "hypercorn -k trio",
        "granian",
        "gunicorn -k asgi",
        "daphne",
    ],
)
def which(request: pytest.FixtureRequest) -> str:
    """Return the name of each kind of server that serves in a way of its own."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(which: str) -> Iterator[Server]:
    """Return a server of that kind on the application `odd_app`; all tests of a file share it."""
    server = Server.start(tuple(word.replace("app:app", "odd_app:app") for word in KINDS[which].command))
    yield server
    server.remove()


@pytest.fixture
def name() -> str:
    """Return a name that identifies one request in the log."""
    return uuid4().hex


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
