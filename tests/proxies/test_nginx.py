"""A client behind a real nginx gets every event at once, and no answer that ends an EventSource for good."""

import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxies.conftest import Start
from proxies.peers import CONFIGURATIONS, UPSTREAMS, Nginx, documented, location, publish, start_app
from servers.processes import Server


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


# Nothing is held back


def test_each_event_passes_within_50_ms(nginx: Nginx, upstream: Server) -> None:
    """From before its publication until it was read and decompressed. The next event comes later, so it cannot push."""
    took = []
    with nginx.get("/events/", **{"Accept-Encoding": "gzip"}) as reader:
        assert (reader.headers["Content-Encoding"] == "gzip") == ("gzip on" in nginx.configuration)
        reader.until(b"\n\n")
        for number in range(21):
            began = time.monotonic()
            assert publish(upstream.port, number)
            took.append(reader.until(b"data: %d\n\n" % number) - began)
    assert statistics.median(took) < 0.05, took


@pytest.mark.parametrize(("accel", "pieces"), [("", 2), ("&accel=yes", 1)], ids=["with", "without"])
def test_it_is_the_header_that_nginx_obeys(start: Start, tmp_path: Path, accel: str, pieces: int) -> None:
    """By default nginx would keep a stream until its end. With our X-Accel-Buffering, two events are two pieces."""
    port = start("--http", "h11").port
    with Nginx(tmp_path, port, locations=location()) as nginx, nginx.get(f"/pair?pause=0.5{accel}") as reader:
        first = reader.until(b"data: first\n\n")
        second = reader.until(b"data: second\n\n")
    assert (1 if second - first < 0.1 else 2) == pieces


def test_a_finished_stream_leaves_its_connection_to_the_next(upstream: Server, tmp_path: Path) -> None:
    """With keep-alive to the upstream, nginx recognizes the end of the body, and sends the next request after it."""
    peers = []
    with Nginx(tmp_path, upstream.port, locations=location(CONFIGURATIONS["keep-alive"][1])) as nginx:
        for _ in range(3):
            with nginx.get("/pair") as reader:
                assert b"data: second\n\n" in reader.rest()
                peers.append(reader.headers["X-Peer"])
    assert len(set(peers)) == 1


# The documented configuration


@pytest.fixture
def own_nginx(port: int, tmp_path: Path) -> Iterator[Nginx]:
    """Run nginx as docs/proxies.md says, in front of an upstream that need not run."""
    with Nginx(tmp_path, port, **documented(port)) as process:
        yield process


def test_a_stopped_upstream_is_a_retry(own_nginx: Nginx, start: Start, port: int) -> None:
    """No answer during a restart ends an EventSource: the stream ends with a retry, and so do all until it is back."""
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


def test_clients_do_not_come_back_at_the_same_time(own_nginx: Nginx) -> None:
    """The retries of a stopped upstream differ."""
    seen = set()
    for _ in range(30):
        with own_nginx.get("/events/") as reader:
            seen.add(reader.rest())
    assert len(seen) > 1


def test_only_temporary_errors_become_retries(own_nginx: Nginx, start: Start) -> None:
    """The application's own 502, 503 and 504 do too. A 500, and statuses that should end an EventSource, pass."""
    start()
    seen = {}
    for code in (204, 401, 403, 404, 500, 502, 503, 504):
        with own_nginx.get(f"/events/status/{code}") as reader:
            seen[code] = reader.status
    assert seen == {204: 204, 401: 401, 403: 403, 404: 404, 500: 500, 502: 200, 503: 200, 504: 200}


def test_the_application_knows_its_own_origin(own_nginx: Nginx, start: Start) -> None:
    """The Host is passed on, so a request from the page's own origin is accepted, and one from another is not."""
    start()
    statuses = []
    for origin in (f"http://127.0.0.1:{own_nginx.port}", "http://elsewhere.example"):
        with own_nginx.get("/events/", Origin=origin) as reader:
            statuses.append(reader.status)
    assert statuses == [200, 403]
