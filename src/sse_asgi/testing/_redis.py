"""RedisServer: a real redis-server for the time of some tests."""

import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from typing import Self

START_SECONDS = 15.0
LOOK_SECONDS = 0.005
ATTEMPTS = 3  # another process may take the free port in the meantime
BINARIES = ("redis-server", "valkey-server")
URL_VARIABLE = "SSE_TEST_REDIS_URL"


class RedisServer:
    """A redis-server, or a valkey-server, on a free port of 127.0.0.1. Its `with` block starts and stops it.

    It keeps nothing on disk. Tests that share it give their backends different names:
    `RedisBackend(server.url, name=secrets.token_hex(8))`.

    Attributes:
        url: The address for RedisBackend.
    """

    def __init__(self, url: str | None = None) -> None:
        """Prepare.

        Args:
            url: A server that runs already, which is used and left as it is. None starts one.
        """
        self.url: str = url or ""
        self._given = url
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: No server is installed, or it does not start; the message says what to do.
        """
        if not self._given:
            binary = next(filter(None, map(shutil.which, BINARIES)), None)
            if binary is None:
                msg = (
                    "redis-server is not installed: `apt install redis-server` or `brew install redis`, "
                    f"or set {URL_VARIABLE}=redis://... to a server that may be used for tests"
                )
                raise RuntimeError(msg)
            self._start(binary)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop it."""
        self._stack.close()

    def _start(self, binary: str) -> None:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sse_asgi_redis_"))
            for _ in range(ATTEMPTS):
                port = _free_port()
                options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory]
                command = [binary, *options]
                process = stack.enter_context(
                    subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
                )
                stack.callback(process.kill)
                if _answers(port, process):
                    self.url = f"redis://127.0.0.1:{port}"
                    self._stack = stack.pop_all()
                    return
        msg = f"{binary} does not start: try it by hand, as {' '.join(command)}"
        raise RuntimeError(msg)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(port: int, process: "subprocess.Popen[bytes]") -> bool:
    """Wait until the server answers; return False if it has ended, or if it takes too long."""
    latest = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < latest:
        if b"process_id:%d\r" % process.pid in _information(port):  # else another server has taken the port
            return True
        time.sleep(LOOK_SECONDS)
    return False


def _information(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"INFO server\r\n")
            return connection.recv(4096)
    except OSError:
        return b""
