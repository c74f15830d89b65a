"""Polls that wait, and bodies that arrive slowly, on real servers."""

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from servers.kinds import KINDS, Kind
from servers.processes import Server, clock, wait_until

Serve = Callable[..., Server]
NOTICE_SECONDS = 1.0
BODY_SECONDS = 1.0
DIFFERENT = (
    "uvicorn",
    "uvicorn --http h11 --loop asyncio",
    "uvicorn --http zttp --http2",
    "gunicorn -k asgi",
    "hypercorn",
    "hypercorn -k trio",
    "granian",
    "daphne",
)


@pytest.fixture(params=DIFFERENT)
def one(request: pytest.FixtureRequest) -> Kind:
    """Return each kind of server that serves in a way of its own."""
    return KINDS[request.param]


class Client:
    """One connection, whose bytes a test sends and reads."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=10)

    def ask(self, method: str, path: str, *headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
        self.socket.sendall("\r\n".join(lines).encode())

    def answer(self) -> tuple[int, Any]:
        with closing(http.client.HTTPResponse(self.socket)) as response:
            response.begin()
            return response.status, json.loads(response.read())

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def connect() -> Iterator[Callable[[Server], Client]]:
    """Return a function that connects to a server."""
    clients: list[Client] = []

    def open_one(server: Server) -> Client:
        clients.append(Client(server))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


Connect = Callable[[Server], Client]


def census(server: Server, what: str) -> int:
    number: int = json.loads(server.get("/census"))[what]
    return number


def begin_to_wait(server: Server, connect: Connect) -> Client:
    client = connect(server)
    client.ask("GET", "/hub/?poll=1&wait=60")
    wait_until(lambda: census(server, "listeners") == 1)
    return client


def test_a_client_that_leaves_ends_the_waiting(serve: Serve, connect: Connect, one: Kind) -> None:
    """Within a second, and without an error in the log."""
    server = serve(one)
    begin_to_wait(server, connect).close()
    assert wait_until(lambda: census(server, "listeners") == 0) < NOTICE_SECONDS
    assert "Traceback" not in server.log()


def test_a_server_that_stops_answers_at_once(serve: Serve, connect: Connect, one: Kind) -> None:
    """With the position to continue from, and a retry. Then it stops."""
    server = serve(one)
    last = server.get("/publish?data=x")
    client = begin_to_wait(server, connect)
    began = clock()
    server.send(signal.SIGTERM)
    status, answer = client.answer()
    took, log = server.ended(began)
    assert (status, answer["events"], answer["last_event_id"]) == (200, [], last)
    assert 500 <= answer["retry"] <= 2000
    assert took < one.stop_seconds
    assert "Traceback" not in log


@pytest.mark.parametrize("name", [name for name in DIFFERENT if name != "daphne"])  # it reads the whole body first
def test_a_server_that_stops_does_not_wait_for_a_body(serve: Serve, connect: Connect, name: str) -> None:
    """The client gets a 503, and the server stops."""
    server = serve(KINDS[name])
    client = connect(server)
    post(client, "Content-Length: 3")
    client.socket.sendall(b"ab")
    wait_until(lambda: census(server, "listeners") == 1)
    began = clock()
    server.send(signal.SIGTERM)
    status, answer = client.answer()
    took, log = server.ended(began)
    assert (status, answer["title"]) == (503, "Service Unavailable")
    assert took < KINDS[name].stop_seconds
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def uvicorn() -> Iterator[Server]:
    """Return a server that waits a second for a body."""
    server = Server.start(KINDS["uvicorn"].command, BODY_SECONDS=f"{BODY_SECONDS}")
    yield server
    server.remove()


def post(client: Client, *headers: str) -> None:
    client.ask("POST", "/hub/", "Content-Type: text/plain", *headers)


def polled(server: Server, after: str) -> list[str]:
    return [event["data"] for event in json.loads(server.get(f"/hub/?poll=1&last_event_id={after}"))["events"]]


def test_a_body_may_arrive_in_pieces(uvicorn: Server, connect: Connect) -> None:
    """The event is published when the body is complete, and a poll returns it."""
    before, client = uvicorn.get("/publish?data=x"), connect(uvicorn)
    post(client, "Content-Length: 3")
    for byte in b"abc":
        time.sleep(0.05)
        client.socket.sendall(bytes([byte]))
    status, answer = client.answer()
    assert (status, list(answer)) == (202, ["id"])
    assert polled(uvicorn, before) == ["abc"]


def test_a_body_that_does_not_arrive_is_408(uvicorn: Server, connect: Connect) -> None:
    """After a second, and nothing is published."""
    before, client = uvicorn.get("/publish?data=x"), connect(uvicorn)
    post(client, "Content-Length: 3")
    client.socket.sendall(b"ab")
    status, answer = client.answer()
    assert (status, answer["title"]) == (408, "Request Timeout")
    assert polled(uvicorn, before) == []


@pytest.mark.parametrize("header", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_body_that_is_too_large_is_refused_while_it_arrives(uvicorn: Server, connect: Connect, header: str) -> None:
    """By its Content-Length, or by the bytes that have arrived."""
    client = connect(uvicorn)
    post(client, header)
    client.socket.sendall(b"11000\r\n" + b"x" * 0x11000 + b"\r\n")
    assert client.answer()[0] == 413


def test_a_client_that_leaves_before_its_body_has_arrived(uvicorn: Server, connect: Connect) -> None:
    """Nothing is published, and nothing is logged."""
    before, tasks, client = uvicorn.get("/publish?data=x"), census(uvicorn, "tasks"), connect(uvicorn)
    post(client, "Content-Length: 3")
    client.socket.sendall(b"ab")
    wait_until(lambda: census(uvicorn, "tasks") == tasks + 1)
    client.close()
    assert wait_until(lambda: census(uvicorn, "tasks") == tasks) < BODY_SECONDS
    assert polled(uvicorn, before) == []
    assert "Traceback" not in uvicorn.log()
