"""Silent streams behind real proxies: they open, pings keep them, and a client that leaves is noticed."""

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.peers import until
from proxies.peers import CONFIGURATIONS, UPSTREAMS, Haproxy, Nginx, Proxy, for_every_path, location, start_app
from servers.processes import Server, clock


@pytest.fixture(scope="module", params=UPSTREAMS)
def upstream(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = start_app("--http", request.param)
    yield server
    server.kill()


def proxy_of(name: str, directory: Path, upstream: Server) -> Proxy:
    if name == "HAProxy":
        return Haproxy(directory, for_every_path(upstream.port))
    options, own = CONFIGURATIONS[name]
    return Nginx(directory, upstream.port, locations=location(own), options=options)


@pytest.fixture(scope="module", params=[*CONFIGURATIONS, "HAProxy"])
def proxy(
    request: pytest.FixtureRequest, upstream: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Run nginx in each way, and HAProxy."""
    with proxy_of(request.param, tmp_path_factory.mktemp("proxy"), upstream) as process:
        yield process


@pytest.fixture(params=["nginx", "HAProxy"])
def impatient(request: pytest.FixtureRequest, upstream: Server, tmp_path: Path) -> Iterator[Proxy]:
    """Run a proxy that cuts a silent stream after a second."""
    proxy: Proxy
    if request.param == "nginx":
        proxy = Nginx(tmp_path, upstream.port, locations=location("proxy_read_timeout 1s;"))
    else:
        short = re.sub(r"timeout (client|server) .*", r"timeout \1 1s", for_every_path(upstream.port))
        proxy = Haproxy(tmp_path, short)
    with proxy:
        yield proxy


def jobs(upstream: Server) -> list[str]:
    return upstream.get("/jobs").split()


def test_a_stream_without_events_opens(proxy: Proxy) -> None:
    """The head and a ping arrive although no event is ever sent."""
    with proxy.get("/idle?name=opens") as reader:
        assert (reader.status, reader.headers["Content-Type"]) == (200, "text/event-stream")
        reader.until(b":\n")


def test_a_client_that_leaves_is_noticed(proxy: Proxy, upstream: Server) -> None:
    """The stream behind the proxy ends within a second, although nothing is sent on it."""
    with proxy.get("/idle?name=leaves") as reader:
        reader.until(b":\n")
        assert "leaves" in jobs(upstream)
        left = clock()
    until(lambda: "leaves" not in jobs(upstream))
    assert clock() - left < 1


def test_pings_keep_an_idle_stream_from_being_cut(impatient: Proxy, upstream: Server) -> None:
    """After its timeout, the proxy cuts a silent stream, and the application notices; a stream with pings stays."""
    with (
        impatient.get("/idle?name=pinged&ping=0.2") as pinged,
        impatient.get("/idle?name=silent") as silent,
    ):
        began = time.monotonic()
        with pytest.raises(http.client.IncompleteRead):
            silent.rest()
        assert 0.5 < time.monotonic() - began < 3
        until(lambda: jobs(upstream) == ["pinged"])
        pinged.until(b":\n" * 12)
