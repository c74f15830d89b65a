"""Interrupting a response: its body stays incomplete, so that its client does not take it for finished.

ASGI has no message for this. An application that returns before its final body gets its connection closed by most
servers. Observed: curl exits with 18, fetch rejects and httpx raises, on uvicorn, gunicorn, hypercorn and granian.

- uvicorn and gunicorn's own worker log an ERROR then, so their connection is closed first.
- Starlette's BaseHTTPMiddleware completes the body of an application that returns, but not of one that raises. Its
  `send` does nothing after the connection was closed.
- A connection of HTTP/2 or HTTP/3 carries other streams. Observed: uvicorn and granian reset the stream alone. On
  hypercorn the client of an incomplete stream waits for ever.
"""

import anyio
import anyio.lowlevel
from starlette.types import Receive, Scope

from .known import SERVERS, behind_receive

LOOK_SECONDS = 0.01


def can_interrupt(scope: Scope, receive: Receive) -> bool:
    """Return True if the client of an incomplete response sees that it was broken off, and no other response is."""
    receive = behind_receive(receive)
    answers = (server.breaks_off(scope, receive) for server in SERVERS)
    known = next((answer for answer in answers if answer is not None), None)
    return bool(scope.get("http_version", "1.1").startswith("1")) if known is None else known


async def interrupt(receive: Receive) -> bool:
    """Break off the response to a request, after the bytes that were sent.

    Returns:
        True if the application can return. False if it has to raise, because a middleware would complete the response.
    """
    outermost = behind_receive(receive)
    closed = next(filter(None, (server.close(outermost) for server in SERVERS)), None)
    if closed is None:
        return outermost is receive
    await anyio.lowlevel.checkpoint()
    while not closed():  # noqa: ASYNC110 - nothing tells of it
        await anyio.sleep(LOOK_SECONDS)
    return True
