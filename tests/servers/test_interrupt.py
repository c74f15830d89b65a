"""Breaking off a response: which servers can, and how their connection is closed."""

import asyncio
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import Message

from sse_asgi._servers.interrupt import can_interrupt, interrupt

SCOPE = {"type": "http", "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"}}


async def unknown() -> Message:
    return {"type": "http.disconnect"}


class Receiver:
    """An object of a server whose method is `receive`."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    async def receive(self) -> Message:
        return {"type": "http.disconnect"}


def test_a_response_of_http1_can_be_interrupted() -> None:
    """On every server but daphne, whose scope has no `spec_version`."""
    assert can_interrupt(SCOPE, unknown)
    assert can_interrupt({"type": "http"}, unknown)
    assert not can_interrupt({**SCOPE, "asgi": {"version": "3.0"}}, unknown)


def test_a_stream_of_http2_can_be_interrupted_where_it_is_reset() -> None:
    """Its connection carries others. uvicorn resets the stream alone; others are not known to."""
    scope = {**SCOPE, "http_version": "2"}
    assert not can_interrupt(scope, unknown)
    assert not can_interrupt(scope, asyncio.Queue[Message]().get)
    assert can_interrupt(scope, Receiver(abort_stream=None).receive)


@pytest.mark.anyio
async def test_an_interruption_waits_until_the_server_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After that, middleware that completes the body does nothing."""
    monkeypatch.setattr("sse_asgi._servers.interrupt.PASS_SECONDS", 0.0)
    request = Receiver(disconnected=False)

    def close() -> None:
        closed.append(1)
        if len(closed) == 2:
            request.__dict__["disconnected"] = True

    closed: list[int] = []
    request.__dict__["transport"] = SimpleNamespace(close=close)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(interrupt, request.receive)
        await anyio.sleep(0.05)
        assert closed == [1]
        close()
    with anyio.fail_after(1):
        await interrupt(unknown)


@pytest.mark.anyio
async def test_the_last_bytes_have_time_to_pass_through_middleware() -> None:
    """A BaseHTTPMiddleware passes a body on in another task. Its own `receive` leads to the server's."""
    log: list[str] = []
    request = Receiver(disconnected=True, transport=SimpleNamespace(close=lambda: log.append("closed")))

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt, receive)
            await anyio.wait_all_tasks_blocked()
            log.append("passing")
        await PlainTextResponse("x")(scope, receive, send)

    async def send(_: Any) -> None:
        """Take every message."""

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await BaseHTTPMiddleware(endpoint, lambda one, call_next: call_next(one))(scope, request.receive, send)
    assert log == ["passing", "closed"]
