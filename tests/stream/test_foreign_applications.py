"""The applications of foreign streams: they run below the guard as they do without it."""

import anyio
import anyio.lowlevel
import pytest
from starlette.types import Message, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient
from stream.foreigners import SCOPE

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("notice")]


async def test_an_application_may_return_by_itself_after_its_end() -> None:
    """It is not cancelled if the server's `http.disconnect` is enough for it."""
    disconnected, returned = anyio.Event(), anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        assert (await receive())["type"] == "http.disconnect"
        await anyio.lowlevel.checkpoint()
        returned.set()

    async def receive() -> Message:
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            disconnected.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(EventSourceMiddleware(app), dict(SCOPE), receive, send)
        await anyio.sleep(0.01)
        current_notice().hear()
    assert returned.is_set()


async def test_a_send_takes_no_turn_of_its_own() -> None:
    """The tasks of an application run in the order that they have without the middleware."""
    turns: list[int] = []

    async def count_turns() -> None:
        while True:
            turns.append(len(sent))
            await anyio.lowlevel.checkpoint()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await anyio.sleep(0.01)
            before = len(turns)
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
            )
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            assert len(turns) == before
            tasks.cancel_scope.cancel()

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await EventSourceMiddleware(app)(dict(SCOPE), anyio.sleep_forever, send)  # type: ignore[arg-type]
    assert len(sent) == 5  # with the final body


async def test_an_application_may_return_without_the_final_body() -> None:
    """The guard sends it, so that the client reconnects, and the server has nothing to complain about."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/") as stream:
        assert (await stream.read()).startswith(b"data: x\n\nretry: ")
        assert stream.complete
