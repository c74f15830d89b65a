"""Counting the processes that serve an application; no ASGI message tells the application their number."""

import os

from .known import SERVERS, running_servers


def worker_count() -> int:
    """Count the workers that serve the application of this event loop; return 1 where the number is unknown.

    The configuration of the server that runs here decides. Without one, WEB_CONCURRENCY does: uvicorn and gunicorn read
    it, and platforms that start them set it. No command line is read.
    """
    counts = [server.workers for server in running_servers()] or [server.workers() for server in SERVERS]
    asked_for = os.environ.get("WEB_CONCURRENCY", "")
    return max(counts) or (int(asked_for) if asked_for.isdecimal() else 1)
