"""Real server processes, and a client that sees the bytes of a response and how it ended."""

import http.client
import os
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE = 15.0


class Server:
    """A server in a process of its own."""

    def __init__(self, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.streams: list[Stream] = []
        self.process = subprocess.Popen(
            command,
            cwd=HERE,
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/nothing")
            except OSError:
                time.sleep(0.05)
            else:
                return
        os.killpg(self.process.pid, signal.SIGKILL)
        raise AssertionError(self.process.communicate()[1])

    def get(self, path: str) -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", path)
            with connection.getresponse() as response:
                return response.read().decode()

    def open(self, path: str, **headers: str) -> "Stream":
        stream = Stream(self.port, path, headers)
        self.streams.append(stream)
        return stream

    def stop(self, number: int = signal.SIGTERM) -> tuple[float, str]:
        """Send a signal; return how long the process took to end, and its log."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.ended(began)

    def ended(self, began: float) -> tuple[float, str]:
        log = self.process.communicate(timeout=PATIENCE)[1]
        return time.monotonic() - began, log

    def kill(self) -> None:
        for stream in self.streams:
            stream.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self.process.wait()


class Stream:
    """One response, read as it comes."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self.response = self.connection.getresponse()
        self.content = b""

    def until(self, part: bytes) -> bytes:
        """Read until these bytes have come."""
        while part not in self.content:
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
