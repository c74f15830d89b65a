"""Interrupting a response: its body stays incomplete, so that its client does not take it for finished.

ASGI has no message for this. An application that returns before its final body gets its connection closed by most
servers. Observed: curl exits with 18, fetch rejects and httpx raises, on uvicorn, gunicorn, hypercorn and granian.

- uvicorn and gunicorn's own worker log an ERROR then, so their connection is closed first.
- Starlette's BaseHTTPMiddleware completes the body of an application that returns, and of one that raises. Where the
  connection was closed, that does nothing. Elsewhere EventSourceMiddleware discards it, if it is the outer one.
- Observed: fetch in Node 20 takes an incomplete body for complete if the response has `Connection: close`, as it has
  when the head is sent after the stop. So a stream that is cut off before its head gets another answer (`ending.py`).
- A connection of HTTP/2 or HTTP/3 carries other streams. Observed: uvicorn and granian reset the stream alone. On
  hypercorn the client of an incomplete stream waits for ever.
"""

import anyio
import anyio.lowlevel
from starlette.types import Receive, Scope

from .known import SERVERS, behind_receive

LOOK_SECONDS = 0.01
PASS_SECONDS = 0.05  # for the last bytes, on their way through BaseHTTPMiddleware


def can_interrupt(scope: Scope, receive: Receive) -> bool:
    """Return True if the client of an incomplete response sees that it was broken off, and no other response is."""
    receive = behind_receive(receive)
    answers = (server.breaks_off(scope, receive) for server in SERVERS)
    known = next((answer for answer in answers if answer is not None), None)
    return bool(scope.get("http_version", "1.1").startswith("1")) if known is None else known


async def interrupt(receive: Receive) -> None:
    """Break off the response to a request, after the bytes that were sent, if the server lets us; then return."""
    outermost = behind_receive(receive)
    if outermost is not receive:
        await anyio.sleep(PASS_SECONDS)
    receive = outermost
    closed = next(filter(None, (server.close(receive) for server in SERVERS)), None)
    if closed is None:
        return
    await anyio.lowlevel.checkpoint()
    while not closed():  # noqa: ASYNC110 - nothing tells of it
        await anyio.sleep(LOOK_SECONDS)
