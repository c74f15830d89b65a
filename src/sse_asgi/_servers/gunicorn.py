"""gunicorn: its own ASGI worker can be asked; its other workers are those of the servers that they run."""

import sys
from types import FrameType
from typing import Any

from .server import AskedServer, KnownServer


class GunicornWorker(AskedServer):
    """A worker of `gunicorn -k asgi`, the only server of its process; --max-requests sets its `alive` alone."""

    @property
    def workers(self) -> int:
        """How many processes serve the application, this one included."""
        return int(self.key.cfg.workers)

    def stops(self) -> bool:
        """Tell whether it stops."""
        return not self.key.alive


class Gunicorn(KnownServer):
    """What is known of gunicorn."""

    functions = ("serve", "_serve")

    def find(self, frame: FrameType, coroutine: Any, /) -> AskedServer | None:
        """Return the worker of which this is a method that runs."""
        module, worker = sys.modules.get("gunicorn.workers.gasgi"), frame.f_locals.get("self")
        return GunicornWorker(worker, coroutine) if module and isinstance(worker, module.ASGIWorker) else None
