"""A request of EventStreamClient: whether its body was taken, and whether the client has disconnected."""

from typing import Any

import anyio
import pytest

from sse_asgi._servers.client import Client
from sse_asgi.testing import EventStreamClient


@pytest.mark.anyio
async def test_a_request_is_looked_at_without_a_message() -> None:
    """Nothing is known before the body was taken; then it is known that the client is there, or has disconnected."""
    seen: list[bool | None] = []
    gone = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        look = Client().look(receive)
        assert look is not None
        seen.append(look())
        await receive()
        seen.append(look())
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await receive()
        seen.append(look())
        gone.set()

    async with EventStreamClient(app).stream("/") as stream:
        stream.disconnect()
        with anyio.fail_after(5):
            await gone.wait()
    assert seen == [None, False, True]


def test_the_request_of_another_server_is_not_looked_at() -> None:
    """It does not know whether the body was taken."""

    async def receive() -> Any:
        """Belong to no object."""

    assert Client().look(receive) is None
