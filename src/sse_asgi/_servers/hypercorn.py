"""hypercorn: only the frame of its `worker_serve` can be asked; on asyncio, `receive` is the `get` of a queue."""

import multiprocessing
from collections.abc import Iterable
from itertools import chain
from types import FrameType
from typing import Any

from starlette.types import Receive

from .queues import look_through
from .server import AskedServer, KnownServer, Look


class HypercornServer(AskedServer):
    """A `worker_serve` of hypercorn, which sets `terminated` before anything else when it stops.

    Observed: the signal that stops several workers reaches their parent process alone.
    """

    @property
    def state(self) -> Any:
        """The lifespan state that this server gives to its application."""
        return self._local("lifespan_state")

    @property
    def workers(self) -> int:
        """The number of processes that serve the application, this one included.

        Observed: `serve` ignores the option `workers`, so the option counts only in a child of the `hypercorn` command.
        """
        return int(self._local("config").workers) if multiprocessing.parent_process() is not None else 1

    def stops(self) -> bool:
        """Return True if the server stops."""
        context = self._local("context")
        return context is not None and bool(context.terminated.is_set())

    def _sockets(self) -> Iterable[Any]:
        sockets = self._local("sockets")
        return () if sockets is None else chain(sockets.secure_sockets, sockets.insecure_sockets, sockets.quic_sockets)

    def _local(self, name: str) -> Any:
        frame: FrameType | None = self._coroutine.cr_frame
        return None if frame is None else frame.f_locals.get(name)


class Hypercorn(KnownServer):
    """The facts about hypercorn."""

    functions = ("worker_serve",)

    def find(self, frame: FrameType, coroutine: Any, /) -> AskedServer | None:
        """Return the server if its `worker_serve` runs in this frame."""
        if frame.f_code.co_name not in self.functions or not frame.f_globals.get("__name__", "").startswith(
            "hypercorn."
        ):
            return None
        return HypercornServer(coroutine, coroutine)

    def look(self, receive: Receive, /) -> Look | None:
        """Look through the queue of a request. On trio, hypercorn has a memory channel instead, which shows nothing."""
        return look_through(receive)
