"""granian: it does not say whether it stops, and its workers are counted on the stack that runs the event loop.

Observed: events were lost where its `send` did not run in a task, so it is not `steppable`. Two more observations of
granian stand where they hold for every server: RETURN_SECONDS in `abort.py`, and a loop's own handlers in `signals.py`.
"""

import inspect

from starlette.types import Receive, Scope

from .server import KnownServer


class Granian(KnownServer):
    """The facts about granian."""

    def breaks_off(self, _: Scope, receive: Receive, /) -> bool | None:
        """Return True for every request.

        Observed: over HTTP/2 granian resets the stream alone; curl exits with 92.
        """
        return True if type(getattr(receive, "__self__", None)).__module__.startswith("granian.") else None

    def workers(self) -> int:
        """Count the workers, or return the number of this one if the server is in another process.

        Observed: a forked worker has the server on its stack. A spawned worker has its own number only, which counts
        from one. So the last of several workers knows their count, and the first one cannot tell that there are others.
        """
        count, frame = 0, inspect.currentframe()
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("granian.server."):
                server, number = frame.f_locals.get("self"), frame.f_locals.get("worker_id")
                count = getattr(server, "workers", None) or number or count
            frame = frame.f_back
        return int(count)
