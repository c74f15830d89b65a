"""The watcher of receive(): its one owner, with and without a task."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceApp, EventSourceResponse, Hub
from sse_asgi._loop.timer import shared_timer
from sse_asgi._stream.watching import watch
from sse_asgi.testing import EventStreamClient
from stream.helpers import SCOPE, Server, directly

pytestmark = pytest.mark.anyio


@directly
async def test_a_client_is_watched_without_a_task() -> None:
    """The watcher of a known server runs without a task, and takes its messages until the last."""
    async with Hub() as hub:
        before = len(asyncio.all_tasks())
        async with Server().serve(EventSourceApp(hub)) as server:
            assert len(asyncio.all_tasks()) == before + 1
            server.gone.set()
            assert server.serving is not None
            with anyio.fail_after(5):
                await server.serving


class Talking(Server):
    """A server with some messages before the disconnect; the last of them may be an exception."""

    def __init__(self, *messages: Any) -> None:
        super().__init__()
        self.messages = list(messages)

    async def receive(self) -> Message:
        if not self.messages:
            return await super().receive()
        message = self.messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return {"type": "http.request", "body": message}


@directly
async def test_a_body_that_nobody_reads_is_taken() -> None:
    """Its messages are taken one after another, without recursion."""
    async with Hub() as hub, Talking(*[b"x"] * 2000).serve(EventSourceApp(hub)) as server:
        await hub.publish("default", "x")
        assert server.data() == ["x"]
        assert server.messages == []  # type: ignore[attr-defined]


@directly
@pytest.mark.parametrize(("error", "logged"), [(OSError(), False), (ValueError("odd"), True)])
async def test_a_receive_that_fails_means_that_the_client_has_gone(
    error: Exception, caplog: pytest.LogCaptureFixture, *, logged: bool
) -> None:
    """It is logged once, unless it is an OSError, which some servers raise for a disconnect."""
    async with Hub() as hub:
        server = Talking(error)
        await EventSourceApp(hub)({**SCOPE}, server.receive, server.send)
        assert hub.subscriptions() == []
    assert ("receive() failed" in caplog.text) == logged


async def test_receive_has_one_owner() -> None:
    """One task calls it, not again before it has returned, and does not cancel it to call it again."""
    calls: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def watched() -> Message:
            assert "waiting" not in calls
            calls.append("waiting")
            message = await receive()
            calls[-1] = message["type"]
            return message

        await EventSourceResponse(numbers_slowly(), ping_interval=0.01)(scope, watched, send)

    async def numbers_slowly() -> AsyncIterator[str]:
        for number in range(5):
            await anyio.sleep(0.02)
            yield str(number)

    async with EventStreamClient(app).stream("/", method="POST", body=b"unread") as stream:
        assert stream.status_code == 200
        await stream.read()
        stream.disconnect()
        await stream.ended()
    assert calls[0] == "http.request"
    assert len(calls) <= 2


class Ended:
    """A connection that hears of its end."""

    def __init__(self) -> None:
        self.errors: list[Exception | None] = []
        self.heard = anyio.Event()

    def gone(self, error: Exception | None) -> None:
        self.errors.append(error)
        self.heard.set()

    def end(self, reason: str) -> None:
        raise AssertionError(reason)

    def cut_off(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("error", [None, ValueError("odd")])
async def test_an_unknown_server_is_watched_by_a_task(error: Exception | None) -> None:
    """Its messages are taken until the last, or until `receive` raises."""
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.request"}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        if error is not None:
            raise error
        return {"type": "http.disconnect"}

    connection = Ended()
    watch(receive, connection, shared_timer().context)
    with anyio.fail_after(5):
        await connection.heard.wait()
    assert (connection.errors, messages) == ([error], [])


async def test_a_watcher_can_be_cancelled() -> None:
    """The connection does not hear of that."""
    connection = Ended()
    watcher = watch(anyio.sleep_forever, connection, shared_timer().context)  # type: ignore[arg-type]
    await anyio.wait_all_tasks_blocked()
    watcher.cancel()
    await anyio.wait_all_tasks_blocked()
    assert connection.errors == []
