"""granian: it cannot be asked whether it stops, and its workers are counted on the stack that runs the event loop.

Two more observations that it forced stand where they hold for any server: RETURN_SECONDS in `abort.py`, and the
handlers of event loops in `signals.py`. Its `send` must run in a task: where it did not, events were lost.
"""

import inspect

from .server import KnownServer


class Granian(KnownServer):
    """What is known of granian."""

    def workers(self) -> int:
        """Count the workers, or return the number of this one where the server is in another process.

        A forked worker has the server on its stack. A worker that was spawned knows its number only, which counts from
        one: the last of several workers tells their count, and the first tells nothing.
        """
        count, frame = 0, inspect.currentframe()
        while frame is not None:
            if frame.f_globals.get("__name__", "").startswith("granian.server."):
                server, number = frame.f_locals.get("self"), frame.f_locals.get("worker_id")
                count = getattr(server, "workers", None) or number or count
            frame = frame.f_back
        return int(count)
