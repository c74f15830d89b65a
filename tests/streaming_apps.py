"""ASGI applications that stream, for tests of the test client."""

from collections.abc import Awaitable, Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def body(content: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def streaming(*chunks: bytes) -> ASGIApp:
    """Return an application that sends these chunks and ends."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send(HEAD)
        for chunk in chunks:
            await send(body(chunk))
        await send(body(b"", more=False))

    return app


class Probe:
    """An application that sends the head, runs the work of a test, and records what it receives."""

    def __init__(self, work: Callable[["Probe"], Awaitable[None]] | None = None) -> None:
        self.scope: Scope = {}
        self.left = anyio.Event()
        self.received: list[Message] = []
        self.sent = 0
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request until the client has gone."""
        self.scope, self.receive, self.send = scope, receive, send
        try:
            await send(HEAD)
            if self._work is not None:
                await self._work(self)
            while not self.received or self.received[-1]["type"] != "http.disconnect":
                self.received.append(await receive())
        finally:
            self.left.set()

    async def send_event(self, data: bytes) -> None:
        await self.send(body(b"data: " + data + b"\n\n"))
        self.sent += 1
