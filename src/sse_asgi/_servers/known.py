"""The servers of this event loop that can be asked whether they stop: uvicorn, hypercorn, gunicorn's own worker.

Observed: nothing else tells of a server in a thread, of a worker of hypercorn of which only the parent process is
signalled, and of the limits on requests that all three have.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import chain
from types import FrameType
from typing import Any

from .._loop.runtime import coroutines

Address = tuple[Any, Any]

WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


class Server:
    """A server, and the streams that end when it stops.

    Attributes:
        heard: Whether it stops; a stream that begins now should end at once.
        streams: How many there are.
    """

    def __init__(self) -> None:
        """Begin without streams."""
        self.heard = False
        self.streams = 0


class AskedServer(Server, ABC):
    """A server that says whether it stops when it is asked.

    Attributes:
        key: The server's own object, which tells it from others.
    """

    def __init__(self, key: Any, coroutine: Any) -> None:
        """Ask the server that this coroutine serves with."""
        super().__init__()
        self.key = key
        self._coroutine = coroutine

    @property
    def ended(self) -> bool:
        """Whether it has stopped."""
        return self._coroutine.cr_frame is None

    @property
    def state(self) -> Any:
        """What it hands to its application as the state of the lifespan."""
        return None

    @abstractmethod
    def stops(self) -> bool:
        """Tell whether it stops."""

    def addresses(self) -> list[Address]:
        """Return the addresses that it listens at, as a scope names them."""
        return [address_of(one.getsockname()) for one in self._sockets() if one.fileno() >= 0]

    def _sockets(self) -> Iterable[Any]:
        return ()


class UvicornServer(AskedServer):
    """A uvicorn.Server; its `should_exit` says nothing of --limit-max-requests, and its sockets do."""

    @property
    def state(self) -> Any:
        """What it hands to its application as the state of the lifespan."""
        return getattr(getattr(self.key, "lifespan", None), "state", None)

    def stops(self) -> bool:
        """Tell whether it stops."""
        return bool(self.key.should_exit) or not all(one.is_serving() for one in self._servers())

    def _sockets(self) -> Iterable[Any]:
        return chain.from_iterable(one.sockets for one in self._servers())

    def _servers(self) -> Iterable[Any]:
        servers: Iterable[Any] = getattr(self.key, "servers", ())
        return servers


class HypercornServer(AskedServer):
    """A `worker_serve` of hypercorn, of which only the frame is there to ask; it sets `terminated` first of all."""

    @property
    def state(self) -> Any:
        """What it hands to its application as the state of the lifespan."""
        return self._local("lifespan_state")

    def stops(self) -> bool:
        """Tell whether it stops."""
        context = self._local("context")
        return context is not None and bool(context.terminated.is_set())

    def _sockets(self) -> Iterable[Any]:
        sockets = self._local("sockets")
        return () if sockets is None else chain(sockets.secure_sockets, sockets.insecure_sockets, sockets.quic_sockets)

    def _local(self, name: str) -> Any:
        frame: FrameType | None = self._coroutine.cr_frame
        return None if frame is None else frame.f_locals.get(name)


class GunicornWorker(AskedServer):
    """A worker of `gunicorn -k asgi`, the only server of its process."""

    def stops(self) -> bool:
        """Tell whether it stops."""
        return not self.key.alive


def address_of(name: Any) -> Address:
    """Return a socket's name, or `scope["server"]`, as the host and the port, or the path and None."""
    return (name[0], name[1]) if isinstance(name, list | tuple) else (name, None)


def running_servers() -> Iterator[AskedServer]:
    """Find the servers that the tasks of this event loop run."""
    keys = []
    for coroutine in _running():
        frame = coroutine.cr_frame
        if frame.f_code.co_name in ("serve", "_serve", "worker_serve"):
            server = _server(frame, coroutine)
            if server is not None and server.key not in keys:
                keys.append(server.key)
                yield server


def uvicorn_server() -> Any | None:
    """Find a uvicorn.Server that serves this event loop."""
    return next((one.key for one in running_servers() if isinstance(one, UvicornServer)), None)


def _server(frame: FrameType, coroutine: Any) -> AskedServer | None:
    if frame.f_code.co_name == "worker_serve":
        name = frame.f_globals.get("__name__", "")
        return HypercornServer(coroutine, coroutine) if name.startswith("hypercorn.") else None
    one = frame.f_locals.get("self")
    for module, name, kind in (
        ("uvicorn.server", "Server", UvicornServer),
        ("gunicorn.workers.gasgi", "ASGIWorker", GunicornWorker),
    ):
        if module in sys.modules and isinstance(one, getattr(sys.modules[module], name)):
            return kind(one, coroutine)
    return None


def _running() -> Iterator[Any]:
    """Go through the coroutines of every task of this event loop, from the task's own to the one that awaits."""
    for coroutine in coroutines():
        inner = coroutine
        while getattr(inner, "cr_frame", None) is not None:
            yield inner
            inner = inner.cr_await
