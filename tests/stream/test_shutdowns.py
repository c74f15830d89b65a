"""Streams while their server shuts down."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Message

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, MemoryBackend
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream import connection as connection_module
from sse_asgi.testing import EventStreamClient
from stream.helpers import Job, Server, block, directly, serve, shut_down

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("notice")
@pytest.mark.parametrize("how", ["shutdown", "lifetime"])
async def test_a_busy_stream_ends(how: str) -> None:
    """It ends although its buffer is never empty: a send takes longer than a publish. Its client is not cut off."""
    reasons = []
    async with Hub(MemoryBackend(history_size=10_000), buffer_size=10_000) as hub, anyio.create_task_group() as tasks:
        response = EventSourceResponse(hub.subscribe("a"), max_lifetime=0.3 if how == "lifetime" else None)

        async def send(message: Message) -> None:
            for _ in range(4):
                await hub.publish("a", "x")

        async def publish() -> None:
            while True:
                await hub.publish("a", "x")

        tasks.start_soon(publish)
        if how == "shutdown":
            tasks.start_soon(shut_down_later)
        with anyio.fail_after(5):
            scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
            await response(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        reasons.append(response.reason)
        tasks.cancel_scope.cancel()
    assert reasons == [how]


async def shut_down_later() -> None:
    await anyio.sleep(0.1)
    current_notice().hear()


@pytest.mark.usefixtures("notice")
async def test_shutdown_ends_streams_with_a_farewell() -> None:
    """Pending events are sent, then a random retry and the final body. The content is cleaned up."""
    job, retries = Job(), set()
    async with Hub() as hub:
        clients = [serve(lambda: hub.subscribe("a")) for _ in range(5)]
        async with anyio.create_task_group() as tasks:

            async def visit(client: EventStreamClient) -> None:
                async with client.stream("/") as stream:
                    await stream.received(b"\n\n")
                    ready.append(1)
                    content = await stream.read()
                    assert b"data: last\n\nretry: " in content
                    assert stream.complete
                    retries.add(stream.retry)

            ready: list[int] = []
            for client in clients:
                tasks.start_soon(visit, client)
            async with serve(job.run).stream("/") as stream:
                await stream.next_event()
                await anyio.wait_all_tasks_blocked()
                assert len(ready) == 5
                await hub.publish("a", "last")
                await shut_down()
                assert b"retry: " in await stream.read()
                assert stream.complete
    assert job.log[-1] == "cleaned"
    assert len(retries) > 1


@pytest.mark.usefixtures("notice")
async def test_new_streams_are_refused_during_shutdown() -> None:
    """They get 200, a random retry and the end, so that a browser comes back. The content is not touched."""
    job = Job()
    await shut_down()
    async with serve(job.run).stream("/") as stream:
        assert stream.status_code == 200
        assert (await stream.read()).startswith(b"retry: ")
        assert stream.complete
    async with Hub() as hub, serve(lambda: hub.subscribe("a")).stream("/") as refused:
        assert (await refused.read()).startswith(b"retry: ")
    assert job.log == []


@pytest.mark.usefixtures("notice")
async def test_shutdown_does_not_wait_for_a_stalled_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """The send of that reader is broken off after SHUTDOWN_SECONDS."""
    monkeypatch.setattr(connection_module, "SHUTDOWN_SECONDS", 0.05)

    async def flood() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    async with serve(flood).stream("/") as stream:
        stream.stall()
        await anyio.wait_all_tasks_blocked()
        await shut_down()
        await stream.ended(2)


@directly
async def test_a_shutdown_gives_a_blocked_client_its_turn() -> None:
    """Its read is handled before the stream ends, and it gets the farewell."""
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        await hub.publish("default", "x")
        await asyncio.sleep(0.01)
        current_notice().hear()
        current_notice().heard = False
        block(0.8, free.set)
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.data() == ["x"]
    assert server.bodies[-1] == b""
    assert b"retry: " in server.bodies[-2]
