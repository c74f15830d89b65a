"""An HTTP server in a thread whose answers a test writes, byte by byte; also a proxy that a test makes wrong."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, Self

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
GOOD = HEAD + b"Cache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Asked(NamedTuple):
    """A request: its method, its target, its headers with names in lower case, and its body."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Answer:
    """What a test sends back on one connection, which is closed after it."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def raw(self, content: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(content)
        await self._writer.drain()

    async def begin(self, head: bytes = GOOD) -> None:
        """Send the head of a stream; `send` sends its chunks, and `end` its last one."""
        await self.raw(head + CHUNKED)

    async def send(self, content: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(content), content))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def refuse(self, status: str, *headers: str) -> None:
        """Send an answer without a body."""
        lines = [f"HTTP/1.1 {status}", *headers, "Content-Length: 0", "", ""]
        await self.raw("\r\n".join(lines).encode())


Script = Callable[[Asked, Answer], Awaitable[None]]


class Scripted:
    """Runs the script for each request.

    Attributes:
        asked: The requests so far.
    """

    def __init__(self, script: Script) -> None:
        self.asked: list[Asked] = []
        self.port = 0
        self._script = script
        self._ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            asked = await self._request(reader)
            self.asked.append(asked)
            await self._script(asked, Answer(writer))
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.splitlines()
        method, target, _ = first.split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Asked(method, target, headers, body)
