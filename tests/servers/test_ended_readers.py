"""Readers that are disconnected again and again on a real server get every event, once and in order."""

import asyncio
import contextlib
import random
import time

import anyio
import pytest

from servers.in_loop import serving
from sse_asgi import EventSourceApp, EventSourceMiddleware, Grant, Hub
from sse_asgi.decoder import EventDecoder

pytestmark = pytest.mark.anyio

READERS = 20
SECONDS = 4.0
HEADERS = "Accept: text/event-stream\r\nCache-Control: no-cache\r\n"  # of an EventSource


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run on asyncio, as uvicorn does."""
    return request.param


class Browser:
    """A client that reconnects with its last id, until `leaving` is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.read: list[str] = []
        self.connections = 0
        self.last_event_id = ""
        self.leaving = False

    async def run(self) -> None:
        while not self.leaving:
            await self.connect()

    async def connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.connections += 1
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: x\r\n{HEADERS}Last-Event-ID: {self.last_event_id}\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            await self.read_events(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def read_events(self, reader: asyncio.StreamReader) -> None:
        decoder = EventDecoder()
        decoder.last_event_id = self.last_event_id
        while size := int(await reader.readline(), 16):
            events = decoder.feed((await reader.readexactly(size + 2))[:-2])
            self.read += [event.data for event in events if event.event in ("message", "sse.gap")]
            self.last_event_id = decoder.last_event_id


async def work(chance: random.Random) -> None:
    """Keep the event loop busy, as other code of an application does."""
    while True:
        time.sleep(chance.choice((0, 0.0005, 0.002, 0.008)))  # noqa: ASYNC251 - that is the point
        await asyncio.sleep(chance.choice((0, 0, 0.001)))


@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_nothing_is_lost_by_disconnecting(http: str) -> None:
    """A disconnect, then an event, while pings are always due and the event loop has other work."""
    chance = random.Random(http)
    hub = Hub(ping_interval=0.002)
    app = EventSourceApp(hub, authorize=lambda *_: Grant(identity="ada"), retry=1)
    async with serving(EventSourceMiddleware(app, hub=hub), http) as port, asyncio.TaskGroup() as tasks:
        browsers = [Browser(port) for _ in range(READERS)]
        running = [tasks.create_task(browser.run()) for browser in browsers]
        while not all(browser.last_event_id for browser in browsers):
            await asyncio.sleep(0.01)
        running += [tasks.create_task(work(chance)) for _ in range(3)]
        published = 0
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            await hub.disconnect(identity="ada")
            for _ in range(chance.choice((1, 1, 2))):
                published += 1
                await hub.publish("default", published)
            await asyncio.sleep(chance.choice((0, 0.001, 0.01, 0.03)))
        await hub.publish("default", "last")
        with anyio.fail_after(30):
            while any(browser.read[-1:] != ["last"] for browser in browsers):
                await asyncio.sleep(0.01)
        for task in running:
            task.cancel()
    assert sum(browser.connections for browser in browsers) > 2 * READERS
    expected = [*map(str, range(1, published + 1)), "last"]
    assert [len(set(expected).difference(browser.read)) for browser in browsers] == [0] * READERS
    assert all(browser.read == expected for browser in browsers)
