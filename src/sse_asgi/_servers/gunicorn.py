"""gunicorn: its own ASGI worker is asked; its other workers run servers that have files of their own here."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from starlette.types import Receive

from .server import AskedServer, KnownServer


class GunicornWorker(AskedServer):
    """A worker of `gunicorn -k asgi`, which is the only server of its process.

    Observed: `--max-requests` sends no signal; it sets the worker's `alive` and nothing else.
    """

    @property
    def workers(self) -> int:
        """The number of processes that serve the application, this one included."""
        return int(self.key.cfg.workers)

    def stops(self) -> bool:
        """Return True if the worker stops, or has stopped."""
        return not self.key.alive


class Gunicorn(KnownServer):
    """The facts about gunicorn."""

    functions = ("serve", "_serve")

    def find(self, frame: FrameType, coroutine: Any, /) -> AskedServer | None:
        """Return the worker if one of its methods runs in this frame."""
        module, worker = sys.modules.get("gunicorn.workers.gasgi"), frame.f_locals.get("self")
        return GunicornWorker(worker, coroutine) if module and isinstance(worker, module.ASGIWorker) else None

    def close(self, receive: Receive, /) -> Callable[[], bool] | None:
        """Close the transport of the request's protocol.

        Observed: the worker closes the connection of an incomplete response too, but only when the application returns,
        and with an ERROR in its log: "ASGI application returned without completing the response".
        """
        protocol: Any = getattr(getattr(receive, "__self__", None), "protocol", None)
        if not hasattr(protocol, "_closed") or protocol.transport is None:
            return None
        protocol.transport.close()
        return lambda: bool(protocol._closed)  # noqa: SLF001 - no public attribute says it
