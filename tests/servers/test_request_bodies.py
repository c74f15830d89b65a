"""The body of a request, on every server: content may read it, while the client is watched."""

import http.client
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from servers.kinds import KINDS
from servers.processes import PATIENCE, Server

NOTICE_SECONDS = 2.0
WATCH_SECONDS = 0.2  # after this time, a client whose body the content has read is watched


@pytest.fixture(scope="module", params=["middleware", "bare"])
def server(which: str, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Return a server of each kind, with and without the middleware."""
    command = tuple(word.replace("app:app", "body_app:app") for word in KINDS[which].command)
    server = Server.start(command, **({"BARE": "1"} if request.param == "bare" else {}))
    yield server
    server.remove()


def post(server: Server, path: str, body: bytes | Iterator[bytes]) -> str:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            return response.read().decode()


def begin(server: Server, head: str, body: bytes, first: bytes) -> socket.socket:
    """Send the beginning of a request, and read until these bytes have arrived."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    client.sendall(f"POST {head} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode() + body)
    with client.makefile("rb", buffering=0) as response:
        content = b""
        while first not in content:
            received = response.read(4096)
            assert received, content
            content += received
    return client


def test_the_content_reads_json(server: Server) -> None:
    """The body arrives before the content begins."""
    assert 'data: {"a":1}\n\n' in post(server, "/json", b'{"a": 1}')


def test_every_byte_of_an_upload_is_counted(server: Server, name: str) -> None:
    """In chunks, and in one piece, with events in between."""
    chunk = b"x" * 10_000
    assert "data: 1000000\n\n" in post(server, f"/count/{name}", (chunk for _ in range(100)))
    assert "data: 1000000\n\n" in post(server, f"/count/{name}", chunk * 100)


def test_a_client_that_leaves_during_an_upload_is_noticed(server: Server, which: str, name: str) -> None:
    """While the content waits for more of it."""
    if which == "daphne":
        pytest.skip("daphne calls the application when it has the whole body")
    client = begin(server, f"/count/{name}", b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000, b"data: ")
    client.close()
    assert server.wait_for(f"{name}: cleaned") < NOTICE_SECONDS


@pytest.mark.parametrize("endpoint", ["idle", "read"])
def test_a_client_whose_body_was_read_is_watched(server: Server, endpoint: str, name: str) -> None:
    """FastAPI reads it before the endpoint, or the content reads it."""
    client = begin(server, f"/{endpoint}/{name}", b'Content-Length: 8\r\n\r\n{"a": 1}', b'data: {"a":1}')
    time.sleep(WATCH_SECONDS)
    client.close()
    assert server.wait_for(f"{name}: cleaned") < NOTICE_SECONDS
