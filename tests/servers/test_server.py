"""Addresses, modules of handlers, and the answers of a server about which nothing is known."""

import socket
from collections.abc import Iterable
from typing import Any

import pytest

from sse_asgi._servers.server import AskedServer, KnownServer, Server, address_of, module_of


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("::1", 80, 0, 0), ("::1", 80)),
        (["127.0.0.1", 80], ("127.0.0.1", 80)),
        ("/run/app.sock", ("/run/app.sock", None)),
        (None, (None, None)),
    ],
)
def test_an_address_is_a_host_and_a_port(name: Any, address: Any) -> None:
    """Or a path and None, as in a scope."""
    assert address_of(name) == address


class Handler:
    def handle(self) -> None:
        """Be a method."""

    def __call__(self) -> None:
        """Be an object that can be called."""


def test_a_handler_has_a_module() -> None:
    """A function has its own; a method and an object have that of their class."""
    assert module_of(test_a_handler_has_a_module) == __name__
    assert module_of(Handler().handle) == __name__
    assert module_of(Handler()) == __name__
    assert module_of([].append) == "builtins"
    assert module_of(0) == "builtins"


def test_a_server_begins_without_streams() -> None:
    """It is not known to stop."""
    server = Server()
    assert (server.heard, server.streams) == (False, 0)


class Asked(AskedServer):
    """A server of which nothing is known."""

    workers = 1
    sockets: tuple[Any, ...] = ()

    def stops(self) -> bool:
        return False


class WithSockets(Asked):
    def _sockets(self) -> Iterable[Any]:
        return self.sockets


def test_an_asked_server_has_ended_with_its_coroutine() -> None:
    """Without knowledge of its kind it has no state, no addresses and no word about signals."""

    async def serve() -> None:
        """Be a server."""

    coroutine = serve()
    server = Asked("key", coroutine)
    assert (server.key, server.ended, server.state, server.addresses()) == ("key", False, None, [])
    assert not server.tells_of_signals
    assert (server.signals, server.signals_seen) == (0, 0)
    coroutine.close()
    assert server.ended


def test_addresses_are_those_of_open_sockets() -> None:
    """A socket that was closed has none."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as closed:
        server = WithSockets("key", None)
        server.sockets = (one, closed)
        closed.close()
        assert server.addresses() == [one.getsockname()]


def test_nothing_is_known_of_a_kind_of_server_without_facts() -> None:
    """Each question has an answer that changes nothing."""
    known, frame, receive = KnownServer(), Any, Any
    assert (known.functions, known.steppable, known.workers()) == ((), (), 0)
    assert known.find(frame, None) is None  # type: ignore[arg-type]
    assert known.look(receive) is None  # type: ignore[arg-type]
    assert known.abort(receive) is False  # type: ignore[arg-type]
    assert known.breaks_off({}, receive) is None  # type: ignore[arg-type]
    assert known.close(receive) is None  # type: ignore[arg-type]
    assert known.delayed(15, None, lambda _: None) is None
