"""Looking through the queue in which some servers put the messages of a request."""

import asyncio
from functools import partial

from starlette.types import Message, Receive

from .server import Look


def look_through(receive: Receive) -> Look | None:
    """Return a function that looks for the disconnect in the queue whose `get` is this `receive`; None without one."""
    queue = getattr(receive, "__self__", None)
    return partial(_look, queue) if isinstance(queue, asyncio.Queue) else None


def _look(queue: "asyncio.Queue[Message]") -> bool | None:
    messages = [queue.get_nowait() for _ in range(queue.qsize())]
    for message in messages:
        queue.put_nowait(message)
    return any(message["type"] == "http.disconnect" for message in messages) or None
