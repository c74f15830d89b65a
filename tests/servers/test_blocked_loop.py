"""An event loop that was blocked on a real server: nobody is cut off who read meanwhile."""

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
    """Run on the loop of uvicorn."""
    return request.param


class Client:
    """One that reads nothing before it is told to, then everything, in a thread."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        self.content = b""
        self.thread = threading.Thread(target=self.read, daemon=True)

    def read(self) -> None:
        with suppress(ConnectionResetError):  # the server may abort a connection that it gives up
            while received := self.socket.recv(1 << 20):
                self.content += received

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.socket.close()


async def until_its_send_waits(hub: Hub) -> None:
    """Publish until the client that does not read holds up a send."""
    with anyio.fail_after(30):
        while not hub.stats().buffered_events:
            await hub.publish("default", "x" * 64_000)
            await asyncio.sleep(0.01)  # what is only joined has gone by then


@pytest.mark.parametrize("reads", [True, False])
async def test_only_who_does_not_read_is_slow(*, reads: bool) -> None:
    """The event loop is blocked for longer than `send_timeout`, and so is the sight of what the client has read."""
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
