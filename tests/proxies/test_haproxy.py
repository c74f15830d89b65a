"""A client behind a real HAProxy, with the configuration that the documentation gives."""

import http.client
import re
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from browser.peers import until
from proxies.conftest import Start
from proxies.peers import Haproxy, documented_haproxy, for_every_path, new_certificate, publish, start_app
from servers.processes import Server

OPEN = """count => {
  window.sources = Array.from({length: count}, (_, number) => new EventSource(`/events/?number=${number}`));
}"""
OPENED = "sources.filter(source => source.readyState === EventSource.OPEN).length"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    server = start_app()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def haproxy(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Haproxy]:
    with Haproxy(tmp_path_factory.mktemp("haproxy"), for_every_path(upstream.port)) as process:
        yield process


# Nothing is held back


def delays(haproxy: Haproxy, upstream: Server, *, events: int) -> list[float]:
    """Measure from before a publication until the event was read. The next event cannot push it on: it comes later."""
    took = []
    with haproxy.get("/events/") as reader:
        reader.until(b"\n\n")
        for number in range(events):
            began = time.monotonic()
            assert publish(upstream.port, number)
            took.append(reader.until(b"data: %d\n\n" % number) - began)
    return took


def test_each_event_passes_within_50_ms(haproxy: Haproxy, upstream: Server) -> None:
    """Although it is small."""
    took = delays(haproxy, upstream, events=21)
    assert statistics.median(took) < 0.05, took


def test_without_no_delay_events_are_late(upstream: Server, tmp_path: Path) -> None:
    """The documentation has the option for this reason."""
    with Haproxy(tmp_path, for_every_path(upstream.port, without="http-no-delay")) as haproxy:
        took = delays(haproxy, upstream, events=5)
    assert statistics.median(took) > 0.1, took


# Restarts


def test_a_stopped_upstream_is_a_retry(start: Start, port: int, tmp_path: Path) -> None:
    """The stream ends with a retry, and so do all until it is back, with different times. Other paths get a 503."""
    server = start()
    with Haproxy(tmp_path, documented_haproxy(port)) as haproxy:
        with haproxy.get("/events/") as reader:
            reader.until(b"\n\n")
            server.stop()
            assert reader.rest().splitlines()[-1].startswith(b"retry: ")
        seen = set()
        for _ in range(3):
            with haproxy.get("/events/") as refused:
                assert (refused.status, refused.headers["Content-Type"]) == (200, "text/event-stream")
                assert refused.headers["X-Come-Back"] is None
                seen.add(refused.rest())
        assert all(re.fullmatch(rb"retry: [12]\d\d\d\n\n", one) for one in seen)
        assert len(seen) > 1
        with haproxy.get("/jobs") as other:
            assert other.status == 503
        start()
        with haproxy.get("/events/") as again:
            again.until(b"\n\n")
            assert publish(port, "back")
            again.until(b"data: back\n\n")


def test_the_applications_own_statuses_pass(haproxy: Haproxy) -> None:
    """Also those that end an EventSource."""
    seen = {}
    for code in (204, 401, 403, 404, 500, 503):
        with haproxy.get(f"/events/status/{code}") as reader:
            seen[code] = reader.status
    assert seen == {code: code for code in seen}


def test_the_application_knows_its_own_origin(haproxy: Haproxy) -> None:
    """The Host is passed on, so a request from the page's own origin is accepted, and one from another is not."""
    statuses = []
    for origin in (f"https://127.0.0.1:{haproxy.port}", "http://elsewhere.example"):
        with haproxy.get("/events/", Origin=origin) as reader:
            statuses.append(reader.status)
    assert statuses == [200, 403]


def test_a_reload_leaves_the_streams(upstream: Server, tmp_path: Path) -> None:
    """They stay with the old process, which ends with the last of them. New ones go through the new process."""
    with Haproxy(tmp_path, for_every_path(upstream.port)) as haproxy:
        with haproxy.get("/events/") as old:
            old.until(b"\n\n")
            haproxy.reload()
            with haproxy.get("/events/") as new:
                new.until(b"\n\n")
                assert publish(upstream.port, "reloaded")
                for reader in (old, new):
                    reader.until(b"data: reloaded\n\n")
                assert haproxy.processes[0].poll() is None
        until(lambda: haproxy.processes[0].poll() is not None)
        assert haproxy.processes[1].poll() is None


def test_a_hard_stop_ends_the_streams(upstream: Server, tmp_path: Path) -> None:
    """The old process cuts them after its time is over. A client resumes from its last id through the new process."""
    with Haproxy(tmp_path, "global\n    hard-stop-after 500ms\n" + for_every_path(upstream.port)) as haproxy:
        with haproxy.get("/events/") as old:
            assert publish(upstream.port, "first")
            old.until(b"data: first\n\n")
            haproxy.reload()
            with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
                old.rest()
        assert publish(upstream.port, "second")
        ids = re.findall(rb"id: (.*)\n", old.content)
        with haproxy.get("/events/", **{"Last-Event-ID": ids[-1].decode()}) as new:
            new.until(b"data: second\n\n")
            assert b"sse.gap" not in new.content


# HTTP/2


def test_http_2_has_room_for_ten(upstream: Server, page: Page, tmp_path: Path) -> None:
    """Streams share a connection between browser and HAProxy, and each gets its events."""
    key, certificate = new_certificate(tmp_path)
    certificate.write_text(key.read_text() + certificate.read_text())
    bind = f"ssl crt {certificate} alpn h2,http/1.1"
    with Haproxy(tmp_path, for_every_path(upstream.port), bind=bind) as haproxy:
        page.goto(f"https://127.0.0.1:{haproxy.port}/jobs")
        page.evaluate("window.seen = 0")
        page.evaluate(OPEN, 10)
        until(lambda: page.evaluate(OPENED) == 10)
        page.evaluate("sources.forEach(source => source.onmessage = () => seen++)")
        assert publish(upstream.port, "h2")
        until(lambda: page.evaluate("seen") == 10)
        page.close()
