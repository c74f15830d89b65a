"""What a client sees through a real nginx: every event at once, and no answer that ends an EventSource for good."""

import http.client
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.peers import until
from proxies.conftest import Start
from proxies.peers import Nginx, documented, location, publish, start_app
from servers.processes import Server

# Options of the server, and of the location. Nginx's own defaults are HTTP/1.0 to the upstream, and buffering.
CONFIGURATIONS = {
    "default": ("", ""),
    "buffering": ("", "proxy_buffering on;"),
    "keep-alive": ("", 'proxy_http_version 1.1; proxy_set_header Connection "";'),
    "gzip": ("gzip on; gzip_types text/event-stream;", ""),
}
# They differ towards HTTP/1.0: h11 ends a body with the connection, as the standard says, and httptools sends chunks.
UPSTREAMS = ("httptools", "h11")


@pytest.fixture(scope="module", params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = start_app("--http", request.param)
    yield server
    server.kill()


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def nginx(
    request: pytest.FixtureRequest, upstream: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nginx]:
    options, own = CONFIGURATIONS[request.param]
    directory = tmp_path_factory.mktemp("nginx")
    with Nginx(directory, upstream.port, locations=location(own), options=options) as process:
        yield process


def jobs(upstream: Server) -> list[str]:
    return upstream.get("/jobs").split()


# Nothing is held back


def test_each_event_passes_within_50_ms(nginx: Nginx, upstream: Server) -> None:
    """From before it is published until it was read, and unpacked: the next, which might push it on, comes later."""
    took = []
    with nginx.get("/events/", **{"Accept-Encoding": "gzip"}) as reader:
        assert (reader.headers["Content-Encoding"] == "gzip") == ("gzip on" in nginx.configuration)
        reader.until(b"\n\n")
        for number in range(21):
            began = time.monotonic()
            assert publish(upstream.port, number)
            took.append(reader.until(b"data: %d\n\n" % number) - began)
    assert statistics.median(took) < 0.05, took


def test_a_stream_without_events_opens(nginx: Nginx) -> None:
    """The head and a ping come although nothing is ever said."""
    with nginx.get("/idle?name=opens") as reader:
        assert (reader.status, reader.headers["Content-Type"]) == (200, "text/event-stream")
        reader.until(b":\n")


@pytest.mark.parametrize(("accel", "pieces"), [("", 2), ("&accel=yes", 1)], ids=["with", "without"])
def test_it_is_the_header_that_nginx_obeys(start: Start, tmp_path: Path, accel: str, pieces: int) -> None:
    """By default nginx would keep a stream until it ends; our X-Accel-Buffering is what makes two events two pieces."""
    port = start("--http", "h11").port
    with Nginx(tmp_path, port, locations=location()) as nginx, nginx.get(f"/pair?pause=0.5{accel}") as reader:
        first = reader.until(b"data: first\n\n")
        second = reader.until(b"data: second\n\n")
    assert (1 if second - first < 0.1 else 2) == pieces


def test_a_finished_stream_leaves_its_connection_to_the_next(upstream: Server, tmp_path: Path) -> None:
    """With keep-alive to the upstream: our end of a body is one, and nginx sends the next request behind it."""
    peers = []
    with Nginx(tmp_path, upstream.port, locations=location(CONFIGURATIONS["keep-alive"][1])) as nginx:
        for _ in range(3):
            with nginx.get("/pair") as reader:
                assert b"data: second\n\n" in reader.rest()
                peers.append(reader.headers["X-Peer"])
    assert len(set(peers)) == 1


# Silence, and those who leave


def test_pings_keep_an_idle_stream_from_being_cut(upstream: Server, tmp_path: Path) -> None:
    """Beyond proxy_read_timeout a silent stream is cut, of which the application hears, and one with pings is not."""
    with (
        Nginx(tmp_path, upstream.port, locations=location("proxy_read_timeout 1s;")) as nginx,
        nginx.get("/idle?name=pinged&ping=0.2") as pinged,
        nginx.get("/idle?name=silent") as silent,
    ):
        began = time.monotonic()
        with pytest.raises(http.client.IncompleteRead):
            silent.rest()
        assert 0.5 < time.monotonic() - began < 3
        until(lambda: jobs(upstream) == ["pinged"])
        pinged.until(b":\n" * 12)


def test_a_client_that_leaves_is_noticed(nginx: Nginx, upstream: Server) -> None:
    """The stream behind nginx ends within a second, though nothing is sent on it."""
    with nginx.get("/idle?name=leaves") as reader:
        reader.until(b":\n")
        assert "leaves" in jobs(upstream)
        left = time.monotonic()
    until(lambda: "leaves" not in jobs(upstream))
    assert time.monotonic() - left < 1


# The documented configuration


@pytest.fixture
def own_nginx(port: int, tmp_path: Path) -> Iterator[Nginx]:
    """What docs/proxies.md says, before an upstream that need not run."""
    with Nginx(tmp_path, port, **documented(port)) as process:
        yield process


def test_a_stopped_upstream_is_a_retry(own_nginx: Nginx, start: Start, port: int) -> None:
    """No answer of a restart ends an EventSource: the stream ends with a retry, as do those until it is back."""
    server = start()
    with own_nginx.get("/events/") as reader:
        reader.until(b"\n\n")
        server.stop()
        assert reader.rest().splitlines()[-1].startswith(b"retry: ")
    with own_nginx.get("/events/") as refused:
        assert (refused.status, refused.headers["Content-Type"]) == (200, "text/event-stream")
        assert "no-cache" in refused.headers["Cache-Control"]
        assert re.fullmatch(rb"retry: [123][05]00\n\n", refused.rest())
    start()
    with own_nginx.get("/events/") as again:
        again.until(b"\n\n")
        assert publish(port, "back")
        again.until(b"data: back\n\n")


def test_not_everybody_comes_back_at_once(own_nginx: Nginx) -> None:
    """The retries of a stopped upstream are spread."""
    seen = set()
    for _ in range(30):
        with own_nginx.get("/events/") as reader:
            seen.add(reader.rest())
    assert len(seen) > 1


def test_only_passing_troubles_are_retries(own_nginx: Nginx, start: Start) -> None:
    """The application's own 502, 503 and 504 as well; what is meant to end an EventSource, and its own faults, pass."""
    start()
    seen = {}
    for code in (204, 401, 403, 404, 500, 502, 503, 504):
        with own_nginx.get(f"/events/status/{code}") as reader:
            seen[code] = reader.status
    assert seen == {204: 204, 401: 401, 403: 403, 404: 404, 500: 500, 502: 200, 503: 200, 504: 200}


def test_the_application_knows_its_own_origin(own_nginx: Nginx, start: Start) -> None:
    """The Host is passed on, so that what the page's own origin asks for is not taken for another's."""
    start()
    statuses = []
    for origin in (f"http://127.0.0.1:{own_nginx.port}", "http://elsewhere.example"):
        with own_nginx.get("/events/", Origin=origin) as reader:
            statuses.append(reader.status)
    assert statuses == [200, 403]
