"""Servers for the browser: the demo as a process, and a server in a thread whose answers a test decides."""

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlencode

import uvicorn
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware, Hub
from sse_asgi.decoder import DecodedEvent, EventDecoder

T = TypeVar("T")
PATIENCE = 15.0
DEMO = (sys.executable, "-m", "sse_asgi", "demo")


def until(fact: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Call a function until its result is true, and return the result."""
    deadline = time.monotonic() + patience
    while not (value := fact()):
        assert time.monotonic() < deadline, f"it did not happen in {patience} s"
        time.sleep(0.02)
    return value


def free_port() -> int:
    """Return a port outside the range of client ports, so that a restarted server can have it again."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError


class Demo:
    """`python -m sse_asgi demo` as a process; a restart listens on the same port."""

    def __init__(self, *, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._cwd = cwd
        self._env = env
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop, unless the test has stopped it."""
        if self._process is not None:
            self.stop()

    def start(self) -> None:
        self._process = process = subprocess.Popen(
            [*DEMO, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self._cwd,
            env=self._env,
        )
        until(lambda: process.poll() is not None or self._answers())
        assert process.poll() is None, process.communicate()

    def _answers(self) -> bool:
        try:
            return bool(self.get("rooms"))
        except urllib.error.URLError:
            return False

    def stop(self, number: int = signal.SIGTERM) -> tuple[str, float]:
        """Send the signal; return the output, and the seconds until the end."""
        assert self._process is not None
        process, self._process = self._process, None
        began = time.monotonic()
        process.send_signal(number)
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
        assert (process.returncode, errors) == (0, "")
        return output, time.monotonic() - began

    # What a program other than the page can ask for

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=PATIENCE) as response:
            return str(response.read(), "utf-8")

    def post(self, room: str, text: str, **fields: object) -> int:
        """Post a message; return the status."""
        draft = {"id": str(uuid.uuid4()), "name": "Poster", "text": text, **fields}
        request = urllib.request.Request(
            f"{self.url}messages?{urlencode({'room': room})}",
            json.dumps(draft).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    def stream(self, headers: dict[str, str] | None = None, **query: str) -> "Stream":
        return Stream(self.port, f"/events?{urlencode(query)}", headers or {})


class Stream:
    """A reader of a stream by plain HTTP."""

    def __init__(self, port: int, target: str, headers: dict[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._connection.request(
            "GET", target, headers={"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers}
        )
        self._response: HTTPResponse = self._connection.getresponse()
        self._decoder = EventDecoder()
        self._events: list[DecodedEvent] = []
        self.status = self._response.status

    def __enter__(self) -> Self:
        """Read."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Disconnect."""
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def next(self, *kinds: str) -> DecodedEvent:
        """Return the next event of these types, and skip others."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, f"none of {kinds} came in {PATIENCE} s"
            while self._events:
                event = self._events.pop(0)
                if event.event in kinds:
                    return event
            chunk = self._response.read1()
            assert chunk, "the stream has ended"
            self._events += self._decoder.feed(chunk)

    def read_to_end(self) -> None:
        """Read until the proper end of the response."""
        while self._response.read1():
            pass


class Line:
    """A proxy that can be cut: every connection breaks, and new ones are refused until it is mended."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._server_port = port
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start the proxy."""
        self.mend()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the proxy."""
        self.cut()

    def mend(self) -> None:
        self._spawn(self._accept, socket.create_server(("127.0.0.1", self.port)))

    def cut(self) -> None:
        while self._threads:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            self._threads.pop().join()
        while self._sockets:
            self._sockets.pop().close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._spawn(self._pass_on, client, server)
                self._spawn(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _spawn(self, run: Callable[..., None], *sockets: socket.socket) -> None:
        self._sockets += (one for one in sockets if one not in self._sockets)
        thread = threading.Thread(target=run, args=sockets)
        thread.start()
        self._threads.append(thread)


class Example:
    """An application on a server in a thread; a restart listens on the same port."""

    def __init__(self, app: ASGIApp) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._app(scope, receive, send)

    def start(self) -> None:
        self._server = uvicorn.Server(uvicorn.Config(self, port=self.port, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self.stop()


class Wire:
    """A server in a thread with an open hub; a test sets the answer of each path, and sees the requests."""

    def __init__(self) -> None:
        self.hub = Hub(ping_interval=0.1)
        self.answers: dict[str, Callable[[Request], ASGIApp]] = {}
        self.requests: list[tuple[str, float, str | None]] = []
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._guarded = EventSourceMiddleware(self._answer, hub=self.hub)
        self._server = uvicorn.Server(uvicorn.Config(self, port=port, log_level="error", ws="none", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        request = Request(scope)  # noted in front of the middleware, which answers some of them itself
        self.requests.append((request.url.path, time.monotonic(), request.headers.get("last-event-id")))
        await self._guarded(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path
        answer = (
            self.answers[path](request) if path in self.answers else HTMLResponse("<!doctype html><title>.</title>")
        )
        await answer(scope, receive, send)

    def call(self, function: Callable[..., object], *values: object) -> None:
        """Call a function in the server's event loop."""
        self._loop.call_soon_threadsafe(function, *values)

    def asked(self, path: str) -> list[tuple[float, str | None]]:
        """Return the times and the Last-Event-IDs of the requests for a path."""
        return [(when, last) for asked, when, last in self.requests if asked == path]

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        until(lambda: self._server.started)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop."""
        self._server.should_exit = True
        self._thread.join()
