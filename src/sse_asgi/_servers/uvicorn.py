"""uvicorn: its Server can be asked, its requests tell what was taken, and its `send` may be called in any task."""

import sys
from collections.abc import Iterable
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any

from starlette.types import Receive

from .server import AskedServer, KnownServer, Look


class UvicornServer(AskedServer):
    """A uvicorn.Server; its `should_exit` says nothing of --limit-max-requests, and its sockets do."""

    tells_of_signals = True  # its own handler sets `should_exit`

    @property
    def state(self) -> Any:
        """What it hands to its application as the state of the lifespan."""
        return getattr(getattr(self.key, "lifespan", None), "state", None)

    @property
    def workers(self) -> int:
        """How many processes serve the application, this one included.

        Observed: under gunicorn, the configuration of a UvicornWorker does not tell of its siblings, and that of
        gunicorn does; the worker has it, and the configuration has a method of the worker.
        """
        config = self.key.config
        worker = getattr(config.callback_notify, "__self__", None)
        return int(getattr(getattr(worker, "cfg", None), "workers", config.workers))

    def stops(self) -> bool:
        """Tell whether it stops."""
        return bool(self.key.should_exit) or not all(one.is_serving() for one in self._servers())

    def _sockets(self) -> Iterable[Any]:
        return chain.from_iterable(one.sockets for one in self._servers())

    def _servers(self) -> Iterable[Any]:
        servers: Iterable[Any] = getattr(self.key, "servers", ())
        return servers


class Uvicorn(KnownServer):
    """What is known of uvicorn."""

    functions = ("serve", "_serve")
    steppable = ("uvicorn.protocols.http.h11_impl", "uvicorn.protocols.http.httptools_impl")

    def find(self, frame: FrameType, coroutine: Any, /) -> AskedServer | None:
        """Return the uvicorn.Server of which this is a method that runs."""
        module, server = sys.modules.get("uvicorn.server"), frame.f_locals.get("self")
        return UvicornServer(server, coroutine) if module and isinstance(server, module.Server) else None

    def look(self, receive: Receive, /) -> Look | None:
        """Look at the request, of which `receive` is a method."""
        request: Any = getattr(receive, "__self__", None)
        return partial(_look_at, request) if hasattr(request, "message_event") else None

    def abort(self, receive: Receive, /) -> bool:
        """Abort the request's transport: the outermost `receive` is a method of the request, which has it."""
        transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
        if not hasattr(transport, "abort"):
            return False
        transport.abort()
        return True


def _look_at(request: Any) -> bool | None:
    if request.disconnected:
        return True
    return None if request.more_body or request.body or request.message_event.is_set() else False
