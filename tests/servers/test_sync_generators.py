"""Two hundred sync generators delay no other request, and their threads end when their clients have left."""

import json
import socket
import statistics
import time
from contextlib import ExitStack

import pytest

from servers.processes import Server, wait_until

STREAMS = 200


@pytest.fixture(
    scope="module", params=["uvicorn", "hypercorn", "hypercorn -k trio", "granian", "gunicorn -k asgi", "daphne"]
)
def which(request: pytest.FixtureRequest) -> str:
    """Return the name of each kind of server with an event loop, or a way to run it, of its own."""
    name: str = request.param
    return name


def connect(server: Server, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client


def until_it_has_begun(client: socket.socket) -> None:
    content = b""
    while b"data: " not in content:
        received = client.recv(4096)
        assert received, content
        content += received


def open_many(server: Server, path: str, clients: ExitStack) -> None:
    for client in [clients.enter_context(connect(server, path)) for _ in range(STREAMS)]:
        until_it_has_begun(client)


def threads(server: Server) -> dict[str, int]:
    counts: dict[str, int] = json.loads(server.get("/none/threads"))
    return counts


def latency(server: Server) -> float:
    """Return the seconds that an endpoint in a thread of the framework takes."""

    def once() -> float:
        began = time.monotonic()
        assert server.get("/none/answer") == '"answer"'
        return time.monotonic() - began

    return statistics.median(once() for _ in range(20))


def test_blocked_generators_are_in_nobodys_way(server: Server) -> None:
    """Another endpoint answers as fast as before. The threads of clients that left end when they are unblocked."""
    alone, before = latency(server), threads(server)
    with ExitStack() as clients:
        open_many(server, "/none/blocking", clients)
        assert threads(server)["sources"] == STREAMS
        assert latency(server) < 5 * alone + 0.02
    wait_until(lambda: threads(server)["left"] == STREAMS)
    server.get(f"/none/put?times={STREAMS}")
    server.wait_for("blocking closed", STREAMS)
    wait_until(lambda: threads(server)["sources"] == 0)
    wait_until(lambda: threads(server)["all"] <= before["all"])
    assert server.log().count("blocking closed") == STREAMS


def test_threads_of_generators_that_yield_end_by_themselves(server: Server) -> None:
    """Each generator is closed where it yields None, and its `finally` runs, also behind middleware."""
    before = threads(server)
    with ExitStack() as clients:
        open_many(server, "/five/polling", clients)
        assert threads(server)["sources"] == STREAMS
    server.wait_for("polling closed", STREAMS)
    wait_until(lambda: threads(server)["sources"] == 0)
    wait_until(lambda: threads(server)["all"] <= before["all"])
    assert "Traceback" not in server.log()
    assert "clean up" not in server.log()
