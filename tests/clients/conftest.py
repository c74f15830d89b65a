"""One run of all clients against one server; the tests of the table judge its outcome."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import pytest

from browser.peers import free_port, until
from clients.pages import PAGES, event_for
from real_redis.launcher import RedisServer
from sse_asgi import Publisher, Settings

HERE = Path(__file__).parent
PATIENCE = 120.0
COLUMNS = ("job", "silence", "before", "live", "error", "deploy", "gap")
IN_NODE = (
    "eventsource 2.0.2",
    "eventsource 3.0.7",
    "eventsource 4.1.1",
    "eventsource 5",
    "extended-eventsource",
    "eventsource-client",
)
IN_PYTHON = ("httpx-sse", "sseclient-py", "requests-sse", "launchdarkly-eventsource", "aiohttp-sse-client2", "curl")
CLIENTS = (*PAGES, *IN_NODE, *IN_PYTHON)
ONCE = frozenset({"curl"})  # reads one response
ENDED = frozenset({"job", "error"})  # the columns whose first response has all messages
LASTS = {"job": "two", "before": "3", "live": "5", "error": "one", "gap": "5"}  # the last message of a column


class Process:
    """A process whose output is read line by line; it is killed at the end."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=HERE.parent,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # many clients report each broken connection
            text=True,
        )
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop(signal.SIGTERM)

    def stop(self, number: int) -> None:
        """Send a signal, and wait for the end."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Outcome:
    """What the users of all clients saw, and what the server was asked for.

    Attributes:
        said: What each client reported, as (kind, text), by client and column.
        requests: The Last-Event-ID of each request, by client and column.
        runs: How often the content ran, by client and column.
    """

    def __init__(self, lines: list[str], facts: dict[str, Any]) -> None:
        self.said: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for client, column, kind, text in map(json.loads, lines):
            self.said.setdefault((client, column), []).append((kind, text))
        self.requests = {_key(name): ids for name, ids in facts["requests"].items()}
        self.runs = Counter({_key(name): count for name, count in facts["runs"].items()})

    def messages(self, client: str, column: str) -> list[str]:
        return [text for kind, text in self.said.get((client, column), ()) if kind == "message"]

    def kinds(self, client: str, column: str) -> list[str]:
        return [kind for kind, _ in self.said.get((client, column), ())]


def _key(name: str) -> tuple[str, str]:
    column, _, client = name.partition(" ")
    return client, column


def bundle() -> None:
    """Make a file for browsers of what its users give to a bundler."""
    modules = HERE / "node_modules"
    subprocess.run(
        [
            str(modules / ".bin" / "esbuild"),
            "--bundle",
            "--global-name=bundled",
            "--log-level=error",
            f"--outfile={modules / '.bundles' / 'fetch-event-source.js'}",
        ],
        input="export * from '@microsoft/fetch-event-source'",
        cwd=HERE,
        text=True,
        check=True,
    )


class Trial:
    """All clients at one server, which is stopped and started again in the middle."""

    def __init__(self, redis: RedisServer) -> None:
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._redis = f"{redis.url}/?{urlencode({'history_size': 100})}"
        self._drivers: list[Process] = []

    def _serve(self, **environment: str) -> Process:
        server = Process(
            *(sys.executable, "-m", "uvicorn", "clients.server:app"),
            *("--port", str(self._port), "--log-level", "critical"),
            SSE_BACKEND_URL=self._redis,
            SSE_HUB_NAME="clients",
            **environment,
        )
        until(lambda: server.process.poll() is not None or self._facts(), PATIENCE)
        assert server.process.poll() is None, "the server did not start"
        return server

    def _facts(self) -> Any:
        with suppress(OSError), urllib.request.urlopen(f"{self._url}/facts", timeout=PATIENCE) as response:
            return json.load(response)
        return None

    def _lines(self) -> list[str]:
        return [line for driver in self._drivers for line in driver.lines]

    def _outcome(self) -> Outcome:
        return Outcome(self._lines(), self._facts())

    def run(self) -> Outcome:
        """Let everything happen once.

        Returns:
            What was seen. Its requests and runs are those before the server was stopped.
        """
        arguments = (self._url, ",".join(COLUMNS))
        with ExitStack() as stack:
            server = stack.enter_context(self._serve())
            for command, names in (
                ((sys.executable, "-m", "clients.in_browser"), (*PAGES,)),
                (("node", "clients/in_node.mjs"), IN_NODE),
                ((sys.executable, "-m", "clients.in_python"), IN_PYTHON),
            ):
                self._drivers.append(stack.enter_context(Process(*command, *arguments, *names)))
            self._wait(LASTS)
            time.sleep(1.0)  # nothing more may come: a second run, a second copy, a message of nobody
            facts, lines = self._facts(), self._lines()
            server.stop(signal.SIGTERM)
            self._publish("missed")
            server = stack.enter_context(self._serve(AGAIN="1"))
            self._wait({"deploy": "missed"})
            self._publish("live")
            self._wait({"deploy": "live"})
            # The next server begins the other columns again, so their later events do not belong to this run.
            return Outcome(
                [*lines, *(line for line in self._lines() if '"deploy"' in line and line not in lines)], facts
            )

    def _wait(self, awaited: dict[str, str]) -> None:
        """Wait until each client has seen the last message of each of these columns."""
        deadline = time.monotonic() + PATIENCE
        while True:
            outcome = self._outcome()
            missing = [
                (client, column)
                for client in CLIENTS
                for column, last in awaited.items()
                if last not in outcome.messages(client, column) and not (client in ONCE and column not in ENDED)
            ]
            missing += [(one, "deploy") for one in {*CLIENTS} - ONCE if (one, "deploy") not in outcome.requests]
            if not missing:
                return
            assert time.monotonic() < deadline, missing
            time.sleep(0.1)

    def _publish(self, text: str) -> None:
        settings = Settings(backend_url=self._redis, hub_name="clients")
        with Publisher(settings=settings) as publisher:
            for client in CLIENTS:
                publisher.publish(f"deploy {client}", event_for(client, "deploy", text))


@pytest.fixture(scope="session")
def outcome(shared_redis: RedisServer) -> Outcome:
    """Run all clients once."""
    bundle()
    return Trial(shared_redis).run()
