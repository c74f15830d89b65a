"""Processes on cores of their own: servers, and a load client for each."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from .contenders import Contender
from .environments import environment, load_client
from .proxy import haproxy

CORES = sorted(map(str, os.sched_getaffinity(0)), key=int)
SERVER_CORE, CLIENT_CORE = CORES[0], CORES[-1]
PAGE = resource.getpagesize()
SETTLE = 0.01
QUIET = 0.1


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def pinned(core: str, *command: str | Path, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(["taskset", "-c", core, *map(str, command)], text=True, **options)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator[None]:
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis_server(core: str = CLIENT_CORE) -> Iterator[str]:
    """Run a redis-server that keeps nothing on disk; give its URL."""
    port = free_port()
    with ended(pinned(core, "redis-server", "--port", str(port), "--save", "", stdout=subprocess.DEVNULL)):
        await_port(port)
        yield f"redis://127.0.0.1:{port}"


def await_port(port: int) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


class Server:
    """A contender that serves, and the load client that reads from it."""

    def __init__(self, contender: Contender, stack: contextlib.ExitStack) -> None:
        self.contender, self.name, self.port = contender, contender.name, free_port()
        variables = dict(contender.environment)
        if contender.redis:
            variables["SSE_BACKEND_URL"] = stack.enter_context(redis_server())
        self.process = pinned(SERVER_CORE, *contender.command(self.port), env=environment(**variables))
        stack.enter_context(ended(self.process))
        await_port(self.port)
        if contender.behind is not None:
            upstream, self.port = self.port, free_port()
            stack.enter_context(ended(pinned(CLIENT_CORE, *haproxy(self.port, upstream, contender.behind))))
            await_port(self.port)
        self.load = Load(self, stack)
        self.numbers: dict[int, int] = {}

    def _pids(self) -> list[str]:
        pid = str(self.process.pid)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *children]

    def cpu(self) -> float:
        """Return the CPU seconds used by all threads of the server and its workers."""
        tasks = [task for pid in self._pids() for task in Path(f"/proc/{pid}/task").iterdir()]
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self) -> int:
        """Return the resident bytes."""
        return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE for pid in self._pids())

    def settle(self) -> None:
        """Wait until the server is idle."""
        while True:
            before = self.cpu()
            time.sleep(QUIET)
            if self.cpu() - before < QUIET / 20:
                return

    def publish(self, count: int, *, size: int = 100, burst: int = 1, gap: float = 0.0, channels: int = 1) -> None:
        """Let events be published; return when all are."""
        if self.contender.posts:
            self._post(count, size, burst, gap, channels)
            return
        query = {"n": count, "size": size, "burst": burst, "gap": gap, "channels": channels}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("GET", f"/publish?{urllib.parse.urlencode(query)}")
        response = connection.getresponse()
        response.read()
        connection.close()
        if response.status != 200:
            sys.exit(f"{self.name} answered {response.status} when told to publish")

    def _post(self, count: int, size: int, burst: int, gap: float, channels: int) -> None:
        """Publish from outside, as contenders/control.py does inside."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=300)
        due = time.monotonic()
        for first in range(0, count, burst):
            for number in range(first, min(count, first + burst)):
                channel = (number * 7919) % channels
                place = self.numbers[channel] = self.numbers.get(channel, -1) + 1
                data = f"{place:08d} {time.monotonic_ns():020d} ".ljust(size, "x")
                connection.request("POST", f"/publish?channel={channel}", data)
                connection.getresponse().read()
            due += gap
            time.sleep(max(0.0, due - time.monotonic()))
        connection.close()

    def spent(self, count: int, **how: Any) -> float:
        """Publish events, wait until all have arrived, and return the CPU seconds of the server."""
        streams = how.pop("readers", None)
        before = self.cpu()
        self.publish(count, **how)
        self.load.wait(count * (self.load.streams if streams is None else streams))
        time.sleep(SETTLE)
        return self.cpu() - before


class Load:
    """The load client of one server; load.c lists its commands."""

    def __init__(self, server: Server, stack: contextlib.ExitStack) -> None:
        self.name = server.name
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = pinned(CLIENT_CORE, load_client(), str(server.port), **pipes)
        stack.enter_context(ended(self.process))
        self.expected = self.streams = 0
        self.last: dict[str, float] = {}

    def tell(self, *words: object) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its answer has the reason
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline() or '{"error": "the load client has died"}')
        if "error" in answer:
            sys.exit(f"\n{self.name}: {answer['error']}")
        self.streams = int(answer["streams"])
        self.last = answer
        return dict(answer)

    def open(
        self, count: int, path: str = "/?channel=0", *, receive_buffer: int = 0, channels: int = 0
    ) -> dict[str, float]:
        return self.tell("open", count, path, receive_buffer, channels)

    def wait(self, more: int) -> dict[str, float]:
        """Wait until `more` events have arrived, and no further one."""
        self.expected += more
        return self.tell("wait", self.expected)


def prepare() -> None:
    """Give this process the client's core, and its children enough files."""
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    wanted = 1 << 17
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except ValueError:  # no right to raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
