"""Aborting the connection of a client that does not read, on real sockets of this process."""

import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from servers.local import until
from sse_asgi._loop.timer import shared_timer
from sse_asgi._servers.abort import abort

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def connect() -> Iterator[Callable[[], Pair]]:
    """Return a function that makes the client's and the server's end of a connection."""
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


class Waiting:
    """A timer whose time comes when a test says so."""

    def __init__(self) -> None:
        self.items: set[Any] = set()
        self.callbacks: set[Callable[[set[Any]], None]] = set()

    def together(self, _: float, callback: Callable[[set[Any]], None], item: Any) -> None:
        self.callbacks.add(callback)
        self.items.add(item)

    def ring(self) -> None:
        for callback in self.callbacks:
            callback(self.items)


def abort_now(scope: dict[str, Any], receive: Any = None) -> None:
    """Abort, with the search for the socket done at once."""
    timer: Any = Waiting()
    abort(scope, receive, timer)
    timer.ring()


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
    """Belong to no object."""


def is_open(server: socket.socket) -> bool:
    server.settimeout(0)
    try:
        return server.recv(1) != b""
    except BlockingIOError:
        return True


@pytest.mark.anyio
async def test_the_socket_of_a_client_that_does_not_read_is_closed(connect: Callable[[], Pair]) -> None:
    """One search finds several sockets by their two ends, and leaves others alone. Unsent bytes are dropped."""
    pairs = [connect() for _ in range(3)]
    for _, server in pairs:
        fill(server)
    for _, server in pairs[:2]:
        abort(scope_of(server), receive, shared_timer())
    await until(lambda: not is_open(pairs[0][1]))
    assert [is_open(server) for _, server in pairs] == [False, False, True]
    pairs[0][1].close()
    with pytest.raises(ConnectionResetError):
        while pairs[0][0].recv(1 << 20):
            pass


def test_ports_may_be_strings(connect: Callable[[], Pair]) -> None:
    """Granian gives the ports as str."""
    _, server = connect()
    fill(server)
    (host, port), (name, number) = server.getpeername(), server.getsockname()
    abort_now(scope_of(server, client=(host, str(port)), server=(name, str(number))))
    assert not is_open(server)


def test_a_client_that_reads_is_left_alone(connect: Callable[[], Pair]) -> None:
    """An address may come from a proxy's header, and may be another client's."""
    _, server = connect()
    abort_now(scope_of(server))
    assert is_open(server)


@pytest.mark.parametrize("other", [{"http_version": "2"}, {"client": None}, {"server": ("/run/socket", None)}])
def test_a_shared_or_unknown_connection_is_not_aborted(connect: Callable[[], Pair], other: dict[str, Any]) -> None:
    """Streams of HTTP/2 share their connection, and a Unix socket has no two addresses."""
    _, server = connect()
    fill(server)
    abort_now(scope_of(server, **other))
    assert is_open(server)


def test_a_transport_that_can_be_reached_is_aborted(connect: Callable[[], Pair]) -> None:
    """Uvicorn's `receive` leads to the transport, and no socket is searched for."""
    _, server = connect()
    fill(server)
    aborted: list[int] = []

    class Cycle:
        transport = SimpleNamespace(abort=lambda: aborted.append(1))

        async def receive(self) -> Any:
            """Be a method of the object that has the transport."""

    abort_now(scope_of(server), Cycle().receive)
    assert aborted == [1]
    assert is_open(server)


def test_where_descriptors_are_not_listed_no_socket_is_closed(
    connect: Callable[[], Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows, for example, has no such list."""
    _, server = connect()
    fill(server)
    monkeypatch.setattr("sse_asgi._servers.abort.DESCRIPTORS", "/nowhere")
    abort_now(scope_of(server))
    assert is_open(server)
