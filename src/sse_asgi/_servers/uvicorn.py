"""uvicorn: its Server and its requests can be asked, and `send` works in any task.

Observed: in the protocols for h11, httptools and zttp, HTTP/2 included, `send` waits for nothing but the transport's
flow control, and `receive` for nothing but the request's own event. Neither looks at the task that runs it.
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any

from starlette.types import Receive, Scope

from .server import AskedServer, KnownServer, Look


class UvicornServer(AskedServer):
    """A uvicorn.Server.

    Observed: `--limit-max-requests` closes the sockets without setting `should_exit`, so both are looked at.
    """

    tells_of_signals = True  # its own handler sets `should_exit`

    @property
    def signals(self) -> int:
        """The number of signals; uvicorn keeps them to raise them again at its end."""
        return len(getattr(self.key, "_captured_signals", ()))

    @property
    def state(self) -> Any:
        """The lifespan state that this server gives to its application."""
        return getattr(getattr(self.key, "lifespan", None), "state", None)

    @property
    def workers(self) -> int:
        """The number of processes that serve the application, this one included.

        Observed: under gunicorn, the configuration of a UvicornWorker does not count the other workers. gunicorn's own
        configuration does. The worker holds it, and uvicorn's `callback_notify` is a method of the worker.
        """
        config = self.key.config
        worker = getattr(config.callback_notify, "__self__", None)
        return int(getattr(getattr(worker, "cfg", None), "workers", config.workers))

    def stops(self) -> bool:
        """Return True if the server stops."""
        return bool(self.key.should_exit) or not all(one.is_serving() for one in self._servers())

    def _sockets(self) -> Iterable[Any]:
        return chain.from_iterable(one.sockets for one in self._servers())

    def _servers(self) -> Iterable[Any]:
        servers: Iterable[Any] = getattr(self.key, "servers", ())
        return servers


class Uvicorn(KnownServer):
    """The facts about uvicorn."""

    functions = ("serve", "_serve")
    steppable = tuple(f"uvicorn.protocols.http.{name}_impl" for name in ("h11", "httptools", "zttp", "zttp_h2"))

    def find(self, frame: FrameType, coroutine: Any, /) -> AskedServer | None:
        """Return the uvicorn.Server if one of its methods runs in this frame."""
        module, server = sys.modules.get("uvicorn.server"), frame.f_locals.get("self")
        return UvicornServer(server, coroutine) if module and isinstance(server, module.Server) else None

    def look(self, receive: Receive, /) -> Look | None:
        """Look at the request; `receive` is a method of it."""
        request: Any = getattr(receive, "__self__", None)
        return partial(_look_at, request) if hasattr(request, "message_event") else None

    def abort(self, receive: Receive, /) -> bool:
        """Abort the transport of the request; `receive` is a method of the request unless it is wrapped."""
        transport: Any = getattr(getattr(receive, "__self__", None), "transport", None)
        if not hasattr(transport, "abort"):
            return False
        transport.abort()
        return True

    def breaks_off(self, _: Scope, receive: Receive, /) -> bool | None:
        """Return True for a stream of HTTP/2.

        Observed: uvicorn resets that stream alone; curl exits with 92.
        """
        return True if hasattr(getattr(receive, "__self__", None), "abort_stream") else None

    def close(self, receive: Receive, /) -> Callable[[], bool] | None:
        """Close the transport of the request, or reset its stream of HTTP/2.

        Observed: uvicorn closes the connection of an incomplete response too, but only when the application returns,
        and with an ERROR in its log: "ASGI callable returned without completing response."
        """
        request: Any = getattr(receive, "__self__", None)
        if not hasattr(request, "disconnected") or not hasattr(request, "transport"):
            return None
        getattr(request, "abort_stream", request.transport.close)()
        return lambda: bool(request.disconnected)


def _look_at(request: Any) -> bool | None:
    if request.disconnected:
        return True
    return None if request.more_body or request.body or request.message_event.is_set() else False
