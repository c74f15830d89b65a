"""The list of the known servers, and the questions that are put to all of them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from starlette.types import Receive

from .._loop.tasks import coroutines
from .client import Client
from .daphne import Daphne
from .granian import Granian
from .gunicorn import Gunicorn
from .hypercorn import Hypercorn
from .server import AskedServer, KnownServer, Look
from .starlette import look_behind, request_behind
from .uvicorn import Uvicorn

SERVERS: tuple[KnownServer, ...] = (Uvicorn(), Hypercorn(), Gunicorn(), Granian(), Daphne(), Client())

FUNCTIONS = frozenset(name for server in SERVERS for name in server.functions)
STEPPABLE = frozenset(name for server in SERVERS for name in server.steppable)


def running_servers() -> Iterator[AskedServer]:
    """Find the servers that run in the tasks of this event loop, each of them once."""
    keys = []
    for coroutine in _running():
        if coroutine.cr_frame.f_code.co_name in FUNCTIONS:
            server = _server(coroutine)
            if server is not None and server.key not in keys:
                keys.append(server.key)
                yield server


def _server(coroutine: Any) -> AskedServer | None:
    frame = coroutine.cr_frame
    found = (server.find(frame, coroutine) for server in SERVERS)
    return next(filter(None, found), None)


def _running() -> Iterator[Any]:
    """Iterate over the coroutines of every task of this event loop: first the task's own, then each awaited one."""
    for coroutine in coroutines():
        inner = coroutine
        while getattr(inner, "cr_frame", None) is not None:
            yield inner
            inner = inner.cr_await


def may_be_stepped(method: Any) -> bool:
    """Return True if this `send` or `receive` is one that works in any task, and outside of tasks."""
    return type(getattr(method, "__self__", None)).__module__ in STEPPABLE


def look_at(receive: Receive) -> Look | None:
    """Return a function that looks at a request without taking a message, as KnownServer.look does."""
    request = request_behind(receive)
    if request is not None:
        return partial(look_behind, request, look_at(request.receive))
    return next(filter(None, (server.look(receive) for server in SERVERS)), None)


def behind_receive(receive: Receive) -> Receive:
    """Return the `receive` that the outermost BaseHTTPMiddleware was given; any other `receive` as it is."""
    while (request := request_behind(receive)) is not None:
        receive = request.receive
    return receive
