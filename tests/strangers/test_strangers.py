"""Other libraries' streams inside our middleware: their own clients notice no difference, and the server stops."""

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import product
from typing import Any

import fastmcp
import httpx
import mcp
import pytest
from fastmcp.client.transports import SSETransport, StreamableHttpTransport
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from servers.processes import Server, clock
from strangers.web_app import CHUNKS

pytestmark = pytest.mark.anyio

Serve = Callable[[str], Server]
TOOLS = ["add", "add_in_two_parts", "wait"]
PROGRESS = [(1, 2), (2, 2)]
STOP_SECONDS = 1.0

# The path of each transport, and whether the answer of a tool is a stream, which can carry progress.
PATHS = {
    "/official/mcp": True,
    "/official-json/mcp": False,
    "/official-stateless/mcp": True,
    "/official-sse/sse": True,
    "/fast/mcp": True,
    "/fast-json/mcp": False,
    "/fast-stateless/mcp": True,
    "/fast-sse/sse": True,
}

# The content of each stream that ends.
CONTENTS = {
    "/django/stream": b"".join(CHUNKS),
    "/quart/stream": b"".join(CHUNKS),
    "/fastapi/stream": b'data: "x"\nid: 1\nretry: 50\n\nevent: x\ndata: {"a": 1}\n\n',
}


class Session:
    """A conversation, by one of the packages' clients."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.progress: list[tuple[float, float | None]] = []
        self.moved = asyncio.Event()

    async def note(self, progress: float, total: float | None, _: str | None) -> None:
        self.progress.append((progress, total))
        self.moved.set()

    async def tools(self) -> list[str]:
        listed = await self.client.list_tools()
        return [tool.name for tool in getattr(listed, "tools", listed)]

    async def call(self, tool: str, **arguments: int) -> Any:
        name = "progress_handler" if isinstance(self.client, fastmcp.Client) else "progress_callback"
        return (await self.client.call_tool(tool, arguments, **{name: self.note})).structured_content


@asynccontextmanager
async def client_session(url: str) -> AsyncIterator[Session]:
    """Use mcp's ClientSession, with the handshake of 2025."""
    transport = sse_client(url) if url.endswith("/sse") else streamable_http_client(url)
    async with transport as (read, write), mcp.ClientSession(read, write) as session:
        await session.initialize()
        yield Session(session)


@asynccontextmanager
async def mcp_client(url: str) -> AsyncIterator[Session]:
    """Use mcp's Client, which has one POST for each request since 2026."""
    async with mcp.Client(sse_client(url) if url.endswith("/sse") else url) as client:
        yield Session(client)


@asynccontextmanager
async def fastmcp_client(url: str) -> AsyncIterator[Session]:
    """Use FastMCP's Client, with the handshake of 2025."""
    transport = SSETransport(url) if url.endswith("/sse") else StreamableHttpTransport(url)
    async with fastmcp.Client(transport, mode="legacy") as client:
        yield Session(client)


CLIENTS = [client_session, mcp_client, fastmcp_client]
Client = Any


def url_of(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def assert_no_complaint(log: str) -> None:
    for word in ("Traceback", "ERROR", "never retrieved", "sse_asgi"):
        assert word not in log, log


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("path", PATHS)
async def test_a_client_lists_and_calls_tools(mcp_server: Server, path: str, client: Client) -> None:
    """It hears of the progress where the answer is a stream, and the end of its session leaves nothing behind."""
    async with client(url_of(mcp_server, path)) as session:
        assert await session.tools() == TOOLS
        assert await session.call("add", a=1, b=2) == {"result": 3}
        assert session.progress == (PROGRESS if PATHS[path] else [])
    assert_no_complaint(mcp_server.log())


@pytest.mark.parametrize("client", [client_session, fastmcp_client])
@pytest.mark.parametrize("path", ["/official/mcp", "/fast/mcp"])
async def test_a_client_reconnects_with_its_last_event_id(mcp_server: Server, path: str, client: Client) -> None:
    """The stream of a POST ends early, and a GET continues it."""
    async with client(url_of(mcp_server, path)) as session:
        before = mcp_server.log().count(f"GET {path}")
        assert await session.call("add_in_two_parts", a=1, b=2) == {"result": 3}
        assert mcp_server.log().count(f"GET {path}") > before


@pytest.mark.parametrize("path", ["/official/mcp", "/fast/mcp"])
async def test_a_priming_event_passes(mcp_server: Server, path: str) -> None:
    """It has an id, empty data and the retry; the answer follows, and then the body ends."""
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"Accept": "application/json, text/event-stream"}
    async with httpx.AsyncClient() as client:
        answer = await client.post(url_of(mcp_server, path), json=message, headers=headers)
    frames = re.fullmatch(
        rb"id: (\S+)\r\ndata: \r\nretry: 50\r\n\r\nid: (\S+)\r\nevent: message\r\ndata: (\{.*\})\r\n\r\n",
        answer.content,
    )
    assert frames is not None, answer.content
    assert frames[1] != frames[2]
    assert json.loads(frames[3])["id"] == 1


@pytest.mark.parametrize("path", CONTENTS)
async def test_a_stream_passes_byte_for_byte(web_server: Server, path: str) -> None:
    """This holds for GET and for POST, however the chunks are cut."""
    async with httpx.AsyncClient() as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, url_of(web_server, path))
            assert answer.content == CONTENTS[path]
            assert answer.headers["x-accel-buffering"] == "no"
    assert_no_complaint(web_server.log())


CUT_OFF = b"(cut off)"


async def read(url: str, method: str, begun: asyncio.Event) -> bytes:
    """Read as an EventSource by GET, and as a fetch by POST, whose body may be cut off."""
    content = b""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    async with httpx.AsyncClient(timeout=20) as client, client.stream(method, url, headers=headers) as answer:
        try:
            async for chunk in answer.aiter_raw():
                content += chunk
                if content.endswith((b"retry: 50\n\n", b"\r\n\r\n")):
                    begun.set()
        except httpx.RemoteProtocolError:
            content += CUT_OFF
    return content


async def all_begun(jobs: Iterable[Callable[[asyncio.Event], Coroutine[Any, Any, Any]]]) -> list[asyncio.Task[Any]]:
    """Start a task for each job, and wait until it has set its event."""
    tasks = []
    async with asyncio.timeout(15):
        for job in jobs:
            begun = asyncio.Event()
            tasks.append(asyncio.create_task(job(begun)))
            await begun.wait()
    return tasks


async def stop(server: Server) -> str:
    """Send SIGTERM; return the log of a process that went in time, as it goes without us."""
    began = clock()
    server.send(signal.SIGTERM)
    await asyncio.to_thread(server.process.wait, 15)
    assert clock() - began < STOP_SECONDS
    assert server.process.returncode == -signal.SIGTERM
    return server.log()


@pytest.mark.parametrize(
    ("app", "paths"),
    [
        ("web_app:app", tuple(CONTENTS)),
        ("web_app:django_alone", ("/stream",)),
        ("web_app:quart_alone", ("/stream",)),
    ],
)
async def test_a_server_with_open_streams_stops(serve: Serve, app: str, paths: tuple[str, ...]) -> None:
    """Each ends with a `retry:`, and the applications clean up without a complaint."""
    server = serve(app)
    jobs = [(path, method) for path in paths for method in ("GET", "POST")]
    tasks = await all_begun(partial(read, url_of(server, f"{path}?endless=1"), method) for path, method in jobs)
    assert_no_complaint(await stop(server))
    for (_, method), content in zip(jobs, await asyncio.gather(*tasks), strict=True):
        end = b"" if method == "GET" else re.escape(CUT_OFF)
        assert re.search(rb"\n\r?\nretry: \d+\n" + end + rb"$", content), content


async def leave_open(client: Client, url: str, begun: asyncio.Event) -> None:
    """Open a session, and do nothing more."""
    async with client(url) as session:
        assert await session.tools() == TOOLS
        begun.set()
        await asyncio.sleep(3600)


async def wait_for_an_answer(client: Client, url: str, begun: asyncio.Event) -> None:
    """Call a tool that never answers."""
    async with client(url) as session:
        session.moved = begun
        await session.call("wait")


async def test_an_mcp_server_with_open_sessions_stops(serve: Serve) -> None:
    """A call that waits for its answer fails in its client, and does not wait for ever."""
    server = serve("mcp_app:app")
    # Without our middleware too, `mcp` takes a second to stop a tool that runs in a session of streamable HTTP.
    idle = [
        ("/official/mcp", client_session),
        ("/official/mcp", fastmcp_client),
        ("/official-json/mcp", client_session),
    ]
    busy = [job for job in product(PATHS, CLIENTS) if PATHS[job[0]] and job not in idle]
    left_open = await all_begun(partial(leave_open, client, url_of(server, path)) for path, client in idle)
    waiting = await all_begun(partial(wait_for_an_answer, client, url_of(server, path)) for path, client in busy)
    assert_no_complaint(await stop(server))
    done, _ = await asyncio.wait(waiting, timeout=10)
    assert len(done) == len(busy)
    assert all(task.exception() is not None for task in done)
    for task in left_open:
        task.cancel()
    await asyncio.gather(*left_open, return_exceptions=True)
