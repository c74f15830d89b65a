"""A real uvicorn whose Redis is not there: when it starts, while it runs, when it stops."""

import http.client
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from real_redis.launcher import RedisServer
from servers.kinds import STOP_SECONDS
from servers.processes import Server, wait_until

NewServer = Callable[..., RedisServer]
Serve = Callable[..., Server]

HERE = Path(__file__).parent
COMMAND = ("uvicorn", "served:app", "--app-dir", str(HERE), "--port", "{port}", "--log-level", "warning")
PING_SECONDS = "0.1"
LIVE_SECONDS = 1.0
PUBLISH_SECONDS = 5.0  # the timeout of RedisBackend
STOP_SECONDS_WITHOUT_STREAMS = 1.5


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts an application on a Redis."""
    servers: list[Server] = []

    def start(redis: RedisServer, query: str = "") -> Server:
        url = redis.url + query
        servers.append(Server.start(COMMAND, SSE_BACKEND_URL=url, SSE_PING_INTERVAL=PING_SECONDS))
        return servers[-1]

    yield start
    for server in servers:
        server.remove()


def ask(server: Server, method: str, path: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=2 * PUBLISH_SECONDS)) as connection:
        connection.request(method, path)
        with connection.getresponse() as response:
            return response.status, response.read().decode()


def publish(server: Server, data: str) -> tuple[int, str]:
    return ask(server, "POST", f"/publish?channel=a&data={data}")


def test_a_server_starts_before_its_redis(new_server: NewServer, serve: Serve) -> None:
    """It serves and says how it is, streams open and wait, publishing fails after a while; then all is live at once."""
    redis = new_server()
    server = serve(redis)
    assert ask(server, "GET", "/health") == (503, '{"hub":"down","publishing":0}')

    stream = server.open("/events/?channel=a")
    assert stream.response.status == 200
    assert stream.until(b":\n:\n").replace(b":\n", b"") == b""  # pings, and nothing else: no id, no gap

    began = time.monotonic()
    status, text = publish(server, "early")
    assert (status, text) == (503, "the event was not published: Redis was away for 5 s: Connection refused")
    assert time.monotonic() - began < PUBLISH_SECONDS + 1

    redis.start()
    began = time.monotonic()
    wait_until(lambda: ask(server, "GET", "/health") == (200, '{"hub":"up","publishing":0}'))
    status, position = publish(server, "late")
    assert status == 200
    content = stream.until(b"data: late\n\n")
    assert time.monotonic() - began < LIVE_SECONDS
    assert f"id: {position}\n".encode() in content
    assert b"early" not in content
    assert b"sse.gap" not in content


@pytest.mark.parametrize("away", [RedisServer.kill, RedisServer.stop], ids=["gone", "frozen"])
def test_a_server_stops_without_its_redis(
    new_server: NewServer, serve: Serve, away: Callable[[RedisServer], None]
) -> None:
    """Open streams end in order, and nothing waits for Redis, nor is logged but that it is away."""
    redis = new_server().start()
    server = serve(redis)
    streams = [server.open("/events/?channel=a") for _ in range(3)]
    assert publish(server, "before")[0] == 200
    for stream in streams:
        stream.until(b"data: before\n\n")
    away(redis)
    late = server.open("/events/?channel=b")
    took, log = server.stop()
    assert took < STOP_SECONDS
    for stream in (*streams, late):
        assert b"retry: " in stream.rest()
    assert "Traceback" not in log
    assert log.count("\n") <= 2, log


def test_a_server_that_never_had_its_redis_stops(new_server: NewServer, serve: Serve) -> None:
    """The same when it has not come yet."""
    server = serve(new_server())
    stream = server.open("/events/?channel=a")
    stream.until(b":\n")
    took, log = server.stop(signal.SIGINT)
    assert took < STOP_SECONDS
    assert b"retry: " in stream.rest()
    assert "Traceback" not in log


def test_a_publish_that_waits_for_redis_gives_up(new_server: NewServer, serve: Serve) -> None:
    """A server that stops does not wait for the publish: it fails at once, with the reason."""
    server = serve(new_server())
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(publish(server, "waits")))
    asking.start()
    wait_until(lambda: '"publishing":1' in ask(server, "GET", "/health")[1])
    took, log = server.stop()
    asking.join()
    assert took < STOP_SECONDS_WITHOUT_STREAMS
    assert answers == [(503, "the event was not published: Redis is away, and this server stops")]
    assert "Traceback" not in log


def test_a_publish_that_is_on_its_way_is_waited_for(new_server: NewServer, serve: Serve) -> None:
    """The event may be stored in a frozen Redis: the request is answered within `timeout`, then the server ends."""
    redis = new_server().start()
    server = serve(redis, "?timeout=1")
    assert publish(server, "before")[0] == 200
    redis.stop()
    answers: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: answers.append(publish(server, "sent")))
    asking.start()
    wait_until(lambda: '"publishing":1' in ask(server, "GET", "/health")[1])
    took, _ = server.stop()
    asking.join()
    assert took < 1 + STOP_SECONDS_WITHOUT_STREAMS
    assert answers[0][0] == 503
    assert "it may have been stored" in answers[0][1]
