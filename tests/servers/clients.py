"""Clients that are not an EventSource: curl, httpx and Node's fetch, each saying whether the body was complete."""

import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import httpx

from servers.processes import PATIENCE, Server, wait_until

COMPLETE, CUT_OFF = "complete", "cut off"
FETCH = """
const [url, method] = process.argv.slice(1)
fetch(url, {method}).then(async r => {
  await r.text()
  console.log(r.ok ? "complete" : `status ${r.status}`)
}).catch(() => console.log("cut off"))
"""
# curl: 18 is a body that ended early, 92 a stream of HTTP/2 that was reset.
CURL = {0: COMPLETE, 18: CUT_OFF, 92: CUT_OFF}

Client = Callable[[str, str], str]


def curl(url: str, method: str, *options: str) -> str:
    command = ["curl", "--silent", "--max-time", str(PATIENCE), "--request", method, *options, url]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
    return CURL.get(code, f"exit {code}")


def curl_with_http2(url: str, method: str) -> str:
    return curl(url, method, "--http2-prior-knowledge")


def by_httpx(url: str, method: str) -> str:
    try:
        with httpx.stream(method, url, timeout=PATIENCE) as response:
            response.read()
    except httpx.RemoteProtocolError:
        return CUT_OFF
    return COMPLETE


def by_fetch(url: str, method: str) -> str:
    command = ["node", "--eval", FETCH, url, method]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.strip()


class Clients:
    """Requests that run at the same time, each in a thread."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._pool = ThreadPoolExecutor(64)
        self._answers: dict[str, Future[str]] = {}

    def ask(self, client: Client, path: str, method: str = "POST") -> None:
        name = f"{client.__name__} {method} {path}"
        url = f"http://127.0.0.1:{self._server.port}{path}"
        self._answers[name] = self._pool.submit(client, url, method)

    def answers(self) -> dict[str, str]:
        """Wait for all requests; return each with its outcome."""
        return {name: answer.result(2 * PATIENCE) for name, answer in self._answers.items()}

    def running(self) -> int:
        """Count the requests that are not answered."""
        return sum(not answer.done() for answer in self._answers.values())

    def wait(self, answered: int, others: int = 0) -> None:
        """Wait until every stream has begun, and so many requests are answered.

        Args:
            answered: The number of answers.
            others: The number of streams that are not of these clients.
        """
        self._server.wait_for("stream begun", len(self._answers) + others)
        wait_until(lambda: len(self._answers) - self.running() >= answered)
