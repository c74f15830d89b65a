"""After a blocked event loop, a real server does not cut off a client that has read in the meantime."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import anyio
import pytest

from servers.in_loop import serving
from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub

pytestmark = pytest.mark.anyio

SEND_TIMEOUT = 0.5


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run on asyncio, as uvicorn does."""
    return request.param


class Client:
    """A client that reads nothing until its thread starts, then everything."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.content = b""
        self.thread = threading.Thread(target=self.read, daemon=True)

    def read(self) -> None:
        with suppress(ConnectionResetError):  # the server may abort the connection
            while received := self.socket.recv(1 << 20):
                self.content += received

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


async def until_its_send_waits(hub: Hub) -> None:
    """Publish until a send waits for the client that does not read."""
    with anyio.fail_after(30):
        while not hub.stats().buffered_events:
            await hub.publish("default", "x" * 64_000)
            await asyncio.sleep(0.01)  # by then, events that only waited to be joined are sent


@pytest.mark.parametrize("reads", [True, False])
async def test_only_a_client_that_does_not_read_is_slow(*, reads: bool) -> None:
    """A loop that is blocked for longer than `send_timeout` does not see that the client reads meanwhile."""
    hub = Hub()
    app = EventSourceMiddleware(EventSourceApp(hub, send_timeout=SEND_TIMEOUT), hub=hub)
    async with serving(app) as port:
        client = Client(port)
        with anyio.fail_after(30):
            while not hub.subscriptions():
                await asyncio.sleep(0.01)
        await until_its_send_waits(hub)
        if reads:
            client.thread.start()
        time.sleep(3 * SEND_TIMEOUT)  # noqa: ASYNC251 - that is the point
        if reads:
            await hub.publish("default", "the last")
            with anyio.fail_after(30):
                while b"data: the last\n\n" not in client.content:
                    assert hub.subscriptions()
                    await asyncio.sleep(0.01)
        else:
            with anyio.fail_after(30):
                while hub.subscriptions():
                    await asyncio.sleep(0.01)
            client.thread.start()
        client.close()
