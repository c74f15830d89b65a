"""Aborting the connection of a client that does not read, on real sockets of this process."""

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sse_asgi._loop.timer import shared_timer
from sse_asgi._servers.abort import abort

pytestmark = pytest.mark.anyio

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Return a function that makes a client's and a server's end of a connection."""
    sockets = []

    def make() -> Pair:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname(), timeout=5)
            server, _ = listener.accept()
        sockets.extend([client, server])
        return client, server

    yield make
    for one in sockets:
        one.close()


def scope_of(end: socket.socket, **other: Any) -> dict[str, Any]:
    return {"http_version": "1.1", "client": end.getpeername(), "server": end.getsockname(), **other}


def fill(server: socket.socket) -> None:
    """Send until the client's unread bytes leave no room."""
    server.settimeout(0)
    try:
        while True:
            server.send(bytes(1 << 16))
    except BlockingIOError:
        server.settimeout(5)


async def receive() -> Any:
    """Be nobody's method."""


def is_open(server: socket.socket) -> bool:
    server.settimeout(0)
    try:
        return server.recv(1) != b""
    except BlockingIOError:
        return True


async def settle() -> None:
    for _ in range(5):
        await anyio.sleep(0.01)


async def test_the_socket_of_a_client_that_does_not_read_is_closed(connect: Callable[[], Pair]) -> None:
    """Found by its two ends, among others, and what it would still send is dropped."""
    pairs = [connect() for _ in range(3)]
    for _, server in pairs:
        fill(server)
    for _, server in pairs[:2]:
        abort(scope_of(server), receive, shared_timer())
    await settle()
    assert [is_open(server) for _, server in pairs] == [False, False, True]
    pairs[0][1].close()
    with pytest.raises(ConnectionResetError):
        while pairs[0][0].recv(1 << 20):
            pass


async def test_ports_may_be_strings(connect: Callable[[], Pair]) -> None:
    """Granian's are."""
    _, server = connect()
    fill(server)
    (host, port), (name, number) = server.getpeername(), server.getsockname()
    abort(scope_of(server, client=(host, str(port)), server=(name, str(number))), receive, shared_timer())
    await settle()
    assert not is_open(server)


async def test_a_client_that_reads_is_left_alone(connect: Callable[[], Pair]) -> None:
    """The address is what a proxy's header says, and may be somebody else's."""
    _, server = connect()
    abort(scope_of(server), receive, shared_timer())
    await settle()
    assert is_open(server)


@pytest.mark.parametrize("other", [{"http_version": "2"}, {"client": None}, {"server": ("/run/socket", None)}])
async def test_what_cannot_be_aborted_is_not(connect: Callable[[], Pair], other: dict[str, Any]) -> None:
    """Streams of HTTP/2 share their connection, and a Unix socket has no addresses."""
    _, server = connect()
    fill(server)
    abort(scope_of(server, **other), receive, shared_timer())
    await settle()
    assert is_open(server)


async def test_a_transport_that_can_be_reached_is_aborted() -> None:
    """The `receive` of uvicorn is a method of what has it."""
    aborted: list[int] = []

    class Cycle:
        transport = SimpleNamespace(abort=lambda: aborted.append(1))

        async def receive(self) -> Any:
            """Be its method."""

    abort({}, Cycle().receive, shared_timer())
    assert aborted == [1]


async def test_where_descriptors_are_not_listed_nothing_happens(
    connect: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows; and one that is closed meanwhile is passed over."""
    _, server = connect()
    fill(server)
    monkeypatch.setattr("sse_asgi._servers.abort.DESCRIPTORS", "/nowhere")
    abort(scope_of(server), receive, shared_timer())
    await settle()
    assert is_open(server)
