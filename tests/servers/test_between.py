"""Streams on every server behind middleware, with dependencies, and for unusual requests."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from servers.processes import PATIENCE, Server

STACKS = ("none", "one", "two", "five", "gzip", "session", "cors", "https", "all")
HTTP2 = ("uvicorn --http zttp --http2", "hypercorn", "hypercorn -k trio", "granian")
NOTICE_SECONDS = 1.0
END = b'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'
FINISHED = b"data: 1\n\ndata: 2\n\n" + END

HEADERS = {
    "Accept": "text/event-stream",
    "Cache-Control": "no-cache",
    "Accept-Encoding": "gzip",
    "Origin": "https://friend.example",
    "X-Forwarded-Proto": "https",
}
ADDED = {
    "cors": {"access-control-allow-origin"},
    "session": {"set-cookie"},
    "all": {"access-control-allow-origin", "set-cookie"},
}


@pytest.fixture
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    """Return a connection for several requests."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.connect()
        yield connection


def ask(
    connection: http.client.HTTPConnection, path: str, method: str = "GET", body: bytes | None = None
) -> tuple[int, bytes]:
    """Return the status and the body; fail if the connection had to be opened again."""
    kept = connection.sock
    connection.request(method, path, body, {"Accept": "text/event-stream", "Cache-Control": "no-cache"})
    assert connection.sock is kept
    with connection.getresponse() as response:
        return response.status, response.read()


def steps(server: Server, name: str) -> list[str]:
    """Return the steps that the application has logged for one request, in order."""
    return [line.partition(": ")[2] for line in server.log().splitlines() if line.startswith(name)]


# Middleware


@pytest.mark.parametrize("stack", STACKS)
def test_no_middleware_holds_events_back(server: Server, name: str, stack: str) -> None:
    """Each arrives before the next one exists, uncompressed, and with the headers that each middleware adds."""
    stream = server.open(f"/{stack}/turns/{name}", **HEADERS)
    stream.until(b"data: first\n\n")
    server.get(f"/none/go/{name}")
    assert stream.rest() == b"data: first\n\ndata: second\n\n" + END
    headers = {name.lower(): value for name, value in stream.response.getheaders()}
    assert headers["content-type"] == "text/event-stream"
    assert headers["cache-control"] == "no-cache, no-transform"
    assert "content-encoding" not in headers
    assert headers.keys() & {"access-control-allow-origin", "set-cookie"} == ADDED.get(stack, set())


@pytest.mark.parametrize("stack", STACKS)
def test_a_client_that_leaves_is_noticed_through_middleware(server: Server, name: str, stack: str) -> None:
    """Within a second. The content cleans up with its awaits."""
    stream = server.open(f"/{stack}/endless/{name}", **HEADERS)
    stream.until(b"data: x\n\n")
    stream.close()
    assert server.wait_for(f"{name}: client") < NOTICE_SECONDS
    assert steps(server, name) == ["began", "closed", "client"]


@pytest.mark.parametrize("which", HTTP2, indirect=True)
@pytest.mark.parametrize("stack", ["none", "five", "gzip", "session"])
def test_middleware_over_http2(server: Server, name: str, stack: str) -> None:
    """Events arrive at once, and a client that leaves is noticed."""
    stream = server.open_http2(f"/{stack}/turns/{name}")
    stream.until(b"data: first\n\n")
    server.get(f"/none/go/{name}")
    assert stream.rest().startswith(b"data: first\n\ndata: second\n\n")
    stream = server.open_http2(f"/{stack}/endless/{name}")
    stream.until(b"data: x\n\n")
    stream.close()
    assert server.wait_for(f"{name}: client") < NOTICE_SECONDS
    assert steps(server, name) == ["began", "closed", "client"]


@pytest.mark.parametrize("stack", ["https", "all"])
def test_a_redirect_does_not_start_the_content(
    server: Server, connection: http.client.HTTPConnection, name: str, stack: str
) -> None:
    """The connection stays usable."""
    assert ask(connection, f"/{stack}/endless/{name}") == (307, b"")
    assert ask(connection, "/none/answer") == (200, b'"answer"')
    assert steps(server, name) == []


# Dependencies and context

CLOSED = {
    "endless": "request scope hears nothing",
    "ends": "request scope hears nothing",
    "fails": "request scope hears of the error",
}


@pytest.mark.parametrize("kind", CLOSED)
@pytest.mark.parametrize("stack", ["none", "five"])
def test_dependencies_are_closed_in_order(server: Server, name: str, stack: str, kind: str) -> None:
    """The scope "function" closes before the content begins; the default scope closes last, and gets an error."""
    stream = server.open(f"/{stack}/dependent/{kind}/{name}")
    stream.until(b"\n\n")
    if kind != "endless":
        stream.rest()
    stream.close()
    server.wait_for(f"{name}: request scope")
    assert steps(server, name) == ["function scope", "began", "closed", "background", CLOSED[kind]]


@pytest.mark.parametrize("path", ["context", "context-in-thread"])
@pytest.mark.parametrize(("stack", "dispatched"), [("none", ""), ("one", "dispatched"), ("five", "dispatched")])
def test_generators_see_the_context(
    connection: http.client.HTTPConnection, path: str, stack: str, dispatched: str
) -> None:
    """Plain middleware, a BaseHTTPMiddleware and a dependency set them; the event loop and a thread have them."""
    _, body = ask(connection, f"/{stack}/{path}")
    assert json.loads(body.splitlines()[0].removeprefix(b"data: ")) == ["plain", dispatched, "depended"]


# Unusual requests


@pytest.mark.parametrize("stack", ["none", "five", "gzip"])
def test_head_does_not_run_the_content(
    server: Server, connection: http.client.HTTPConnection, name: str, stack: str
) -> None:
    """Headers come at once, without a body, and the connection stays usable. The background task runs."""
    connection.request("HEAD", f"/{stack}/endless/{name}")
    with connection.getresponse() as response:
        assert (response.status, response.read()) == (200, b"")
        assert response.getheader("content-type") == "text/event-stream"
    assert ask(connection, f"/{stack}/answer") == (200, b'"answer"')
    server.wait_for(f"{name}: finished")
    assert steps(server, name) == ["finished"]


@pytest.mark.parametrize("stack", ["none", "five", "gzip"])
def test_a_connection_is_kept_after_a_stream(connection: http.client.HTTPConnection, name: str, stack: str) -> None:
    """For another stream, for a 204 to a client that has read everything, and for any other request."""
    for _ in range(2):
        assert ask(connection, f"/{stack}/job/{name}") == (200, FINISHED)
    connection.request("GET", f"/{stack}/job/{name}", headers={"Last-Event-ID": "sse.end"})
    with connection.getresponse() as response:
        assert (response.status, response.read()) == (204, b"")
    assert ask(connection, f"/{stack}/answer") == (200, b'"answer"')


CHUNKED = b"9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(END), END)
HTTP_1_0 = {
    "uvicorn": (b"HTTP/1.1 200", CHUNKED),  # a client of HTTP/1.0 cannot read this answer
    "uvicorn --http h11 --loop asyncio": (b"HTTP/1.1 200", FINISHED),
    "uvicorn --http zttp --http2": (b"HTTP/1.1 200", CHUNKED),
    "hypercorn": (b"HTTP/1.1 200", FINISHED),
    "hypercorn -k trio": (b"HTTP/1.1 200", FINISHED),
    "granian": (b"HTTP/1.0 200", FINISHED),
    "gunicorn -k asgi": (b"HTTP/1.0 200", FINISHED),
    "daphne": (b"HTTP/1.0 200", FINISHED),
}


def test_a_client_of_http_1_0_gets_everything(server: Server, which: str, name: str) -> None:
    """Up to the end of the connection, although two servers write chunks, which such a client does not know."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(f"GET /none/job/{name} HTTP/1.0\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n".encode())
        with client.makefile("rb") as response:
            head, _, body = response.read().partition(b"\r\n\r\n")
    assert (head[:12], body) == HTTP_1_0[which]


# POST

LARGE = b"x" * 2_000_000


@pytest.mark.parametrize("stack", ["none", "five"])
def test_an_unread_body_disturbs_no_stream(
    server: Server, connection: http.client.HTTPConnection, name: str, stack: str
) -> None:
    """Events arrive, and the stream ends, without the final id. The server decides whether to keep the connection."""
    connection.request("POST", f"/{stack}/turns/{name}", LARGE)
    with connection.getresponse() as response:
        assert response.readline() == b"data: first\n"
        server.get(f"/none/go/{name}")
        assert response.read() == b"\ndata: second\n\n"


@pytest.mark.parametrize("stack", ["none", "five"])
def test_a_client_that_leaves_after_an_unread_body_is_noticed(
    server: Server, connection: http.client.HTTPConnection, name: str, stack: str
) -> None:
    """Within a second."""
    connection.request("POST", f"/{stack}/endless/{name}", LARGE)
    with connection.getresponse() as response:
        response.readline()
    connection.close()
    assert server.wait_for(f"{name}: client") < NOTICE_SECONDS


@pytest.mark.parametrize("stack", ["none", "five", "all"])
def test_a_post_that_reads_its_body_streams(connection: http.client.HTTPConnection, stack: str) -> None:
    """Without the final id, because a POST is not repeated. The connection is kept."""
    kept = connection.sock
    for _ in range(2):
        connection.request("POST", f"/{stack}/echo", LARGE, HEADERS)
        with connection.getresponse() as response:
            assert (response.status, response.read()) == (200, b"data: 2000000\n\n")
    assert connection.sock is kept
