"""Counting the processes that serve an application, of which no server tells it."""

import os

from .known import SERVERS, running_servers


def worker_count() -> int:
    """Count the workers that serve the application of this event loop; 1 where that is not known.

    The configuration of the server that runs here is asked. Where there is none, WEB_CONCURRENCY is taken for it, which
    uvicorn and gunicorn, and platforms that start them, have in common.
    """
    counts = [one.workers for one in running_servers()] or [one.workers() for one in SERVERS]
    asked_for = os.environ.get("WEB_CONCURRENCY", "")
    return max(counts) or (int(asked_for) if asked_for.isdecimal() else 1)
