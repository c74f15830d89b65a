"""A client that leaves, in any way, is noticed within a second; its content is cleaned up once; nothing is left."""

import json
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from servers.kinds import KINDS, Kind
from servers.processes import PATIENCE, Server, clock, wait_until

Serve = Callable[..., Server]
Record = Callable[[str, str, str, float], None]
NOTICE_SECONDS = 1.0

SERVERS = {
    name: KINDS[name]
    for name in (
        "uvicorn",
        "uvicorn --http h11 --loop asyncio",
        "uvicorn --http zttp --http2",
        "gunicorn -k uvicorn_worker.UvicornWorker",
        "gunicorn -k asgi",
        "hypercorn",
        "hypercorn -k trio",
        "granian",
        "daphne",
    )
}


@pytest.fixture(params=SERVERS)
def one(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of server that reports a disconnect in a way of its own."""
    return SERVERS[request.param]


def connect(server: Server, path: str) -> socket.socket:
    """Request a stream, and read until its first event has arrived."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
    content = b""
    while b"data: " not in content:
        received = client.recv(4096)
        assert received, content
        content += received
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


WAYS: dict[str, Callable[[socket.socket], Any]] = {
    "FIN": socket.socket.close,
    "RST": reset,
    "half-close": lambda client: client.shutdown(socket.SHUT_WR),
}


def census(server: Server) -> dict[str, int]:
    counts: dict[str, int] = json.loads(server.get("/census"))
    return counts


def test_each_way_to_leave_is_noticed(serve: Serve, record: Record, one: Kind) -> None:
    """While a generator sleeps, between its events, and in a thread. It is cleaned up once, with its awaits."""
    server = serve(one)
    for number, (how, leave) in enumerate(WAYS.items(), start=1):
        clients = [connect(server, path) for path in ("/idle", "/busy", "/sync")]
        began = clock()
        for client in clients:
            leave(client)
        server.wait_for("job cleaned", 2 * number)
        server.wait_for("reason client", number)
        server.wait_for("sync closed", number)
        took = clock() - began
        assert took < NOTICE_SECONDS + 0.5, how
        record("leaving", one.name, how, took)
        for client in clients:
            client.close()
    wait_until(lambda: census(server)["listeners"] == 0)
    log = server.stop()[1]
    assert (log.count("job cleaned"), log.count("reason client"), log.count("sync closed")) == (6, 3, 3)
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["uvicorn --http zttp --http2", "hypercorn", "granian"])
def test_a_client_of_http2_that_leaves_is_noticed(serve: Serve, name: str) -> None:
    """The end of its connection ends the stream."""
    server = serve(KINDS[name])
    stream = server.open_http2("/idle")
    stream.until(b"data: ")
    stream.close()
    assert server.wait_for("reason client") < NOTICE_SECONDS + 0.5


CLIENT = """
import http.client, sys, time
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/flood")
response = connection.getresponse()
print(response.readline(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def stopped_client() -> Iterator[Callable[[Server], subprocess.Popen[bytes]]]:
    """Return a function that opens a flood in a process, and stops the process."""
    clients = []

    def start(server: Server) -> subprocess.Popen[bytes]:
        client = subprocess.Popen([sys.executable, "-c", CLIENT, str(server.port)], stdout=subprocess.PIPE)
        clients.append(client)
        assert client.stdout is not None
        assert client.stdout.readline()
        client.send_signal(signal.SIGSTOP)
        return client

    yield start
    for client in clients:
        client.kill()
        client.communicate()


def test_a_stopped_client_is_cut_off(
    serve: Serve, record: Record, one: Kind, stopped_client: Callable[[Server], subprocess.Popen[bytes]]
) -> None:
    """Its kernel still answers, so only `send_timeout` shows it. The socket is closed, except on daphne."""
    server = serve(one, SEND_TIMEOUT="0.5")
    before = census(server)["descriptors"]
    stopped_client(server)
    began = clock()
    if one is KINDS["daphne"]:  # its send never waits, so the library cannot notice
        time.sleep(1)  # twice the `send_timeout`
        assert "flood closed" not in server.log()
        return
    server.wait_for("flood closed slow")
    wait_until(lambda: census(server)["descriptors"] <= before)
    record("leaving", one.name, "stopped, socket closed", clock() - began)


CHURNERS = 5000
AT_ONCE = 50
ROUNDS = CHURNERS // AT_ONCE


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian", "gunicorn -k asgi"])
def test_five_thousand_clients_leave_nothing(serve: Serve, name: str) -> None:
    """No task, socket, thread or listener. The second half of them leaves no object in memory either."""
    server = serve(KINDS[name], PING_INTERVAL="0.5")
    paths = ["/idle", "/busy", "/hub/?x", "/sync", "/foreign"]

    def churn(rounds: int) -> dict[str, int]:
        for number in range(rounds):
            clients = [connect_blindly(server, paths[(number + one) % len(paths)]) for one in range(AT_ONCE)]
            for client in clients:
                client.recv(4096)
            for client in clients:
                (reset if number % 2 else socket.socket.close)(client)
        for what in ("listeners", "open", "descriptors", "tasks"):
            wait_until(partial(back_to, before, what))
        return census(server)

    def back_to(before: dict[str, int], what: str) -> bool:
        return census(server)[what] <= before[what]

    before = census(server)
    half = churn(ROUNDS // 2)
    churn(ROUNDS - ROUNDS // 2)
    deadline = time.monotonic() + PATIENCE
    while (whole := census(server))["objects"] - half[
        "objects"
    ] >= CHURNERS / 5:  # of which 45 are a thread that is kept
        assert time.monotonic() < deadline, (before, half, whole)
        time.sleep(0.2)
    assert whole["threads"] <= before["threads"] + 45  # anyio and the server keep some for later requests
    assert whole["kib"] - before["kib"] < 64 * 1024, (before, half, whole)


def connect_blindly(server: Server, path: str) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return client
