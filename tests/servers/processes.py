"""Real server processes, and clients that see the bytes of a response and its end."""

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

# Without coverage, which keeps data about every thread that has run.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def clock() -> float:
    """Return a time in seconds that stands still while any process waits for a processor.

    So a bound holds on a loaded machine too. Linux counts that time, unless it was built without the counter.
    """
    waited = 0.0
    with suppress(OSError):
        waited = int(Path("/proc/pressure/cpu").read_text().partition("total=")[2].split()[0]) / 1e6
    return time.monotonic() - waited


def wait_until(fact: Callable[[], Any], *, seconds: float = PATIENCE) -> float:
    """Poll until a fact is true; return the seconds of `clock()` that it took."""
    began, latest = clock(), time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < latest, fact
        time.sleep(0.01)
    return clock() - began


class Server:
    """A server in a process of its own; its output goes to a file."""

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
        """Wait until the log has a text so many times; return the seconds of `clock()` that it took."""
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
        """Signal every process of the server, as a terminal does with Ctrl-C, and systemd with SIGTERM."""
        os.killpg(self.process.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> tuple[float, str]:
        """Send a signal; return the seconds of `clock()` until the process ended, and its log."""
        began = clock()
        self.process.send_signal(number)
        return self.ended(began)

    def ended(self, began: float) -> tuple[float, str]:
        self.process.wait(PATIENCE)
        return clock() - began, self.log()

    def running(self) -> list[str]:
        """Return the names of the server's processes that still run."""
        stats = [Path(entry, "stat") for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        found = []
        for stat in stats:
            with suppress(OSError):  # the process has just ended
                name, _, fields = stat.read_text().rpartition(")")
                state, _, group = fields.split()[:3]
                if int(group) == self.process.pid and state != "Z":
                    found.append(name)
        return found

    def workers(self) -> list[int]:
        """Return the process ids of the workers, or that of the server if it has none."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children] or [self.process.pid]

    def wait_until_full(self) -> None:
        """Wait until the kernel takes no more from streams whose clients do not read."""
        queued = [-1, -1]
        while not queued[-1] or queued[-3:] != queued[-1:] * 3:
            time.sleep(0.05)
            queued.append(self._queued())

    def _queued(self) -> int:
        """Count the bytes in the kernel's queues at both ends of the server's connections."""
        total = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, here, there, _, queues, *_ = line.split()
            if f"{self.port:04X}" in (here.partition(":")[2], there.partition(":")[2]):
                total += sum(int(count, 16) for count in queues.split(":"))
        return total

    def kill(self) -> None:
        for stream in self.streams:
            stream.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def remove(self) -> None:
        """Kill the server, and delete its log."""
        self.kill()
        self.output.unlink()


class Stream:
    """One response, read as it arrives."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.content = b""
        self.path = path
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request(
            "GET", path, headers={"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers}
        )
        self.response = self.connection.getresponse()

    def until(self, part: bytes) -> bytes:
        """Read until these bytes have arrived; fail if only other bytes, such as pings, arrive for too long."""
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


EVENT_SOURCE = ("--header", "Accept: text/event-stream", "--header", "Cache-Control: no-cache")
HTTP2_CURL = ("curl", "--silent", "--no-buffer", "--http2-prior-knowledge", *EVENT_SOURCE)


class Http2Stream(Stream):
    """One response over HTTP/2 without TLS, read by curl."""

    def __init__(self, port: int, path: str) -> None:
        self.content = b""
        self.path = path
        self.curl = subprocess.Popen(
            [*HTTP2_CURL, f"http://127.0.0.1:{port}{path}"],
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
        """Read to the end, which must be a proper one."""
        assert self.curl.stdout is not None
        self.content += self.curl.stdout.read()
        assert self.curl.wait() == 0
        return self.content

    def close(self) -> None:
        assert self.curl.stdout is not None
        self.curl.kill()
        self.curl.wait()
        self.curl.stdout.close()
