"""Looking through the queue of a request: the messages stay in it, in their order."""

import asyncio
from typing import Any

from sse_asgi._servers.queues import look_through

REQUEST = {"type": "http.request", "body": b"x", "more_body": True}
DISCONNECT = {"type": "http.disconnect"}


def test_a_disconnect_is_found_behind_a_body() -> None:
    """Nothing is taken from the queue."""
    queue: asyncio.Queue[Any] = asyncio.Queue(10)
    look = look_through(queue.get)
    assert look is not None
    assert look() is None
    queue.put_nowait(REQUEST)
    assert look() is None
    queue.put_nowait(DISCONNECT)
    assert look() is True
    assert [queue.get_nowait(), queue.get_nowait()] == [REQUEST, DISCONNECT]


def test_another_receive_cannot_be_looked_through() -> None:
    """A function has no object, and a list is not a queue."""

    async def receive() -> Any:
        """Belong to no object."""

    append: Any = [].append
    assert look_through(receive) is None
    assert look_through(append) is None
