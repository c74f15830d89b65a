"""Contents, clients and a server for the tests of streams."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
from starlette.background import BackgroundTask
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sse_asgi import ConnectionLimit, EventSourceMiddleware, EventSourceResponse
from sse_asgi._hub.registry import PAUSE_SECONDS
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStream, EventStreamClient

Test = TypeVar("Test", bound=Callable[..., Any])
FINAL = b'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'


def serve(content: Callable[[], Any], **options: Any) -> EventStreamClient:
    """Make a client of an app that answers every request with this content."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(content(), **options)(scope, receive, send)

    return EventStreamClient(app)


async def contents(stream: EventStream) -> list[str]:
    """Return the data of every event but the end."""
    return [event.data async for event in stream if event.event != "sse.end"]


async def numbers(count: int = 3) -> AsyncIterator[str]:
    for number in range(count):
        yield str(number)


class Job:
    """An async generator that logs its start and its cleanup."""

    def __init__(self, *, before: int = 1) -> None:
        self.log: list[str] = []
        self.started = anyio.Event()
        self.cleaned = anyio.Event()
        self.before = before

    async def run(self) -> AsyncIterator[str]:
        self.log.append("started")
        self.started.set()
        try:
            for number in range(self.before):
                yield str(number)
            await anyio.sleep_forever()
        finally:
            self.log.append("cleaning")
            with anyio.CancelScope(shield=True):  # only trio needs this
                await anyio.sleep(0.01)
            self.log.append("cleaned")
            self.cleaned.set()


async def three_then_fail() -> AsyncIterator[str]:
    for number in range(3):
        yield str(number)
    msg = "secret"
    raise LookupError(msg)


class Kept:
    """An application that keeps its response."""

    def __init__(self, content: Any, **options: Any) -> None:
        self.response = EventSourceResponse(content, background=BackgroundTask(self.note), **options)
        self.noted: list[Any] = []

    def note(self) -> None:
        self.noted.append((self.response.reason, self.response.disconnected))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.note()
        await self.response(scope, receive, send)


async def shut_down() -> None:
    current_notice().hear()


class Rows:
    """An iterator that holds a resource until it is closed, like a database cursor."""

    def __init__(self, *, fails: bool = False, hangs: bool = False) -> None:
        self.closed = 0
        self.thread: int | None = None
        self.rows = iter("ab")
        self.fails = fails
        self.hangs = hangs

    def _close(self) -> None:
        self.closed += 1
        self.thread = threading.get_ident()
        if self.fails:
            msg = "it cannot be closed"
            raise ValueError(msg)


class AsyncRows(Rows):
    def __aiter__(self) -> "AsyncRows":
        return self

    async def __anext__(self) -> str:
        for row in self.rows:
            return row
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._close()
        if self.hangs:
            await anyio.sleep_forever()
        await anyio.lowlevel.checkpoint()


class SyncRows(Rows):
    def __iter__(self) -> "SyncRows":
        return self

    def __next__(self) -> str:
        return next(self.rows)

    def close(self) -> None:
        self._close()


UNSTREAMED: dict[str, dict[str, Any]] = {
    "HEAD": {"method": "HEAD"},
    "204": {"last_event_id": "sse.end"},
    "refused": {},
}


async def answer_without_the_content(case: str, content: Any, **options: Any) -> tuple[EventSourceResponse, list[str]]:
    """Have a response answer a request of this case; return the response and the log of its background task."""
    ran: list[str] = []
    response = EventSourceResponse(content, background=BackgroundTask(ran.append, "background"), **options)
    limit = ConnectionLimit(1)
    if case == "refused":
        assert limit.enter({"type": "http", "headers": []}) is not None
    app: ASGIApp = EventSourceMiddleware(response, max_connections=limit) if case == "refused" else response
    async with EventStreamClient(app).stream("/", **UNSTREAMED[case]) as stream:
        await stream.ended()
        assert stream.status_code == (204 if case == "204" else 200)
        assert stream.complete
    return response, ran


ACCEPT = [(b"accept", b"text/event-stream"), (b"cache-control", b"no-cache")]
SCOPE = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": ACCEPT, "root_path": ""}


class Server:
    """One connection of a server. Its `send` keeps the bodies; it may wait first, or fail.

    Attributes:
        tasks: The task in which each body was sent.
        waits: Returns an awaitable for the next send, or None; it may raise.
    """

    def __init__(self, waits: Callable[[], Awaitable[Any] | None] = lambda: None) -> None:
        self.tasks: list[Any] = []
        self.bodies: list[bytes] = []
        self.waits = waits
        self.gone = asyncio.Event()
        self.busy = 0
        self.overlapped = False
        self.started = False
        self.serving: asyncio.Task[None] | None = None

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.overlapped |= self.busy > 0
        assert not self.busy, "a send began before the last one had ended"
        assert (message["type"] == "http.response.start") == (not self.started), "the head is first, and once"
        self.started = True
        self.busy += 1
        try:
            waits = self.waits()
            if waits is not None:
                await waits
            if message["type"] == "http.response.body":
                self.tasks.append(asyncio.current_task())
                self.bodies.append(message["body"])
        finally:
            self.busy -= 1

    @contextlib.asynccontextmanager
    async def serve(self, app: Any, path: str = "/") -> AsyncIterator["Server"]:
        self.serving = asyncio.create_task(app({**SCOPE, "path": path}, self.receive, self.send))
        while not self.bodies:
            await asyncio.sleep(0)
        await anyio.wait_all_tasks_blocked()
        try:
            yield self
        finally:
            self.gone.set()
            with contextlib.suppress(asyncio.CancelledError):
                await self.serving
        assert not self.overlapped

    def data(self) -> list[str | None]:
        events = EventDecoder().feed(b"".join(self.bodies))
        return [event.data for event in events if event.event != "sse.position"]

    async def has(self, *data: str) -> None:
        with anyio.fail_after(5):
            while self.data() != list(data):
                await anyio.sleep(0.001)

    def last(self, count: int) -> list[bool]:
        """Return for each of the last bodies True if it was sent in the task of this test."""
        return [task is asyncio.current_task() for task in self.tasks[-count:]]


async def pause() -> None:
    """Wait until the next event follows a pause."""
    await asyncio.sleep(2 * PAUSE_SECONDS)


def block(seconds: float, *then: Callable[[], object]) -> None:
    """Block the event loop. Callbacks from another thread meanwhile run when the loop goes on."""
    loop = asyncio.get_running_loop()

    def meanwhile() -> None:
        for one in then:
            loop.call_soon_threadsafe(one)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    thread.join()
    time.sleep(seconds)


def directly(test: Test) -> Test:
    """Run a test on asyncio alone, with Server as a server that is known to take messages in any task.

    On trio nothing is sent directly, because uvicorn does not run there.
    """
    marked: Test = pytest.mark.parametrize("anyio_backend", ["asyncio"])(pytest.mark.usefixtures("known_server")(test))
    return marked
