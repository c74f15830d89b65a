"""Real server processes, and a client that sees the bytes of a response and how it ended."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).parent
PATIENCE = 15.0

# Without coverage, which keeps something of each thread that there was.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_until(fact: Callable[[], Any], *, seconds: float = PATIENCE) -> float:
    """Poll until something is true; return how long it took."""
    began = time.monotonic()
    while not fact():
        assert time.monotonic() < began + seconds, fact
        time.sleep(0.01)
    return time.monotonic() - began


class Server:
    """A server in a process of its own, whose output is kept in a file."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.streams: list[Stream] = []
        with tempfile.NamedTemporaryFile(prefix="server", suffix=".log", delete=False) as output:
            self.output = Path(output.name)
            self.process = subprocess.Popen(
                command,
                cwd=HERE,
                env={**ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @classmethod
    def start(cls, command: tuple[str, ...], *options: str, **environment: str) -> Self:
        """Run a Python module, on a free port in place of `{port}`, and wait until it serves."""
        port = free_port()
        words = [word.replace("{port}", str(port)) for word in (*command, *options)]
        server = cls([sys.executable, "-m", *words], port, environment)
        server.wait_until_it_answers()
        return server

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/nothing")
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.kill()
        raise AssertionError(self.log())

    def log(self) -> str:
        return self.output.read_text()

    def wait_for(self, line: str, times: int = 1) -> float:
        """Wait until something was logged so many times; return how long it took."""
        return wait_until(lambda: self.log().count(line) >= times)

    def get(self, path: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", path, headers={"Connection": "close"})
            with connection.getresponse() as response:
                return response.read().decode()

    def open(self, path: str, **headers: str) -> "Stream":
        stream = Stream(self.port, path, headers)
        self.streams.append(stream)
        return stream

    def open_http2(self, path: str) -> "Stream":
        stream = Http2Stream(self.port, path)
        self.streams.append(stream)
        return stream

    def send(self, number: int, *, times: int = 1) -> None:
        for _ in range(times):
            self.process.send_signal(number)

    def send_to_all(self, number: int) -> None:
        """Signal every process, as a terminal does with Ctrl-C, and systemd with SIGTERM."""
        os.killpg(self.process.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> tuple[float, str]:
        """Send a signal; return how long the process took to end, and its log."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.ended(began)

    def ended(self, began: float) -> tuple[float, str]:
        self.process.wait(PATIENCE)
        return time.monotonic() - began, self.log()

    def running(self) -> list[str]:
        """List the processes of the server that still run."""
        stats = [Path(entry, "stat") for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        found = []
        for stat in stats:
            with suppress(OSError):  # it has just ended
                name, _, fields = stat.read_text().rpartition(")")
                state, _, group = fields.split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.append(name)
        return found

    def kill(self) -> None:
        for stream in self.streams:
            stream.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        """Kill it, and forget what it said."""
        self.kill()
        self.output.unlink()


class Stream:
    """One response, read as it comes."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.content = b""
        self.path = path
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self.response = self.connection.getresponse()

    def until(self, part: bytes) -> bytes:
        """Read until these bytes have come; pings alone do not make it wait for ever."""
        latest = time.monotonic() + PATIENCE
        while part not in self.content:
            assert time.monotonic() < latest, self.content[-1000:]
            line = self.response.readline()
            assert line, self.content
            self.content += line
        return self.content

    def rest(self) -> bytes:
        """Read to the end; a body that is cut off raises http.client.IncompleteRead."""
        self.content += self.response.read()
        return self.content

    def close(self) -> None:
        self.response.close()
        self.connection.close()


class Http2Stream(Stream):
    """One response over a connection of HTTP/2, in the clear, as curl reads it."""

    def __init__(self, port: int, path: str) -> None:
        self.content = b""
        self.path = path
        self.curl = subprocess.Popen(
            ["curl", "--silent", "--no-buffer", "--http2-prior-knowledge", f"http://127.0.0.1:{port}{path}"],
            stdout=subprocess.PIPE,
        )

    def until(self, part: bytes) -> bytes:
        assert self.curl.stdout is not None
        while part not in self.content:
            line = self.curl.stdout.readline()
            assert line, self.content
            self.content += line
        return self.content

    def rest(self) -> bytes:
        """Read to the end, which must be one."""
        assert self.curl.stdout is not None
        self.content += self.curl.stdout.read()
        assert self.curl.wait() == 0
        return self.content

    def close(self) -> None:
        assert self.curl.stdout is not None
        self.curl.kill()
        self.curl.wait()
        self.curl.stdout.close()
