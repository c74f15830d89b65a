"""The servers that are known, and the questions to them: which run here, which can be stepped, looked at, aborted."""

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

FUNCTIONS = {name for one in SERVERS for name in one.functions}
STEPPABLE = {name for one in SERVERS for name in one.steppable}


def running_servers() -> Iterator[AskedServer]:
    """Find the servers that the tasks of this event loop run.

    Observed: nothing else tells of a server in a thread, of a worker of hypercorn of which only the parent process is
    signalled, and of the limits on requests that uvicorn, hypercorn and gunicorn have.
    """
    keys = []
    for coroutine in _running():
        if coroutine.cr_frame.f_code.co_name in FUNCTIONS:
            server = _server(coroutine)
            if server is not None and server.key not in keys:
                keys.append(server.key)
                yield server


def _server(coroutine: Any) -> AskedServer | None:
    frame = coroutine.cr_frame
    found = (one.find(frame, coroutine) for one in SERVERS)
    return next(filter(None, found), None)


def _running() -> Iterator[Any]:
    """Go through the coroutines of every task of this event loop, from the task's own to the one that awaits."""
    for coroutine in coroutines():
        inner = coroutine
        while getattr(inner, "cr_frame", None) is not None:
            yield inner
            inner = inner.cr_await


def may_be_stepped(method: Any) -> bool:
    """Tell whether this is the `send` or `receive` of a server that is known to be run in any task, and in none."""
    return type(getattr(method, "__self__", None)).__module__ in STEPPABLE


def look_at(receive: Receive) -> Look | None:
    """Return a function that looks at a request without taking a message, as KnownServer.look does."""
    request = request_behind(receive)
    if request is not None:
        return partial(look_behind, request, look_at(request.receive))
    return next(filter(None, (one.look(receive) for one in SERVERS)), None)
