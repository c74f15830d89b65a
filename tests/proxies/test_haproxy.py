"""What a client sees through a real HAProxy, with the configuration that the documentation gives."""

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
from proxies.peers import Haproxy, documented_haproxy, new_certificate, publish, start_app
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


def configuration(upstream: Server, *, without: str = "#") -> str:
    """Return the documented configuration, for every path."""
    return documented_haproxy(upstream.port, without=without).replace("path_beg /events/", "path_beg /")


@pytest.fixture(scope="module")
def haproxy(upstream: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Haproxy]:
    with Haproxy(tmp_path_factory.mktemp("haproxy"), configuration(upstream)) as process:
        yield process


def jobs(upstream: Server) -> list[str]:
    return upstream.get("/jobs").split()


# Nothing is held back


def delays(haproxy: Haproxy, upstream: Server, *, events: int) -> list[float]:
    """Measure from before an event is published until it was read; the next, which might push it on, comes later."""
    took = []
    with haproxy.get("/events/") as reader:
        reader.until(b"\n\n")
        for number in range(events):
            began = time.monotonic()
            assert publish(upstream.port, number)
            took.append(reader.until(b"data: %d\n\n" % number) - began)
    return took


def test_each_event_passes_within_50_ms(haproxy: Haproxy, upstream: Server) -> None:
    """Though it is small."""
    took = delays(haproxy, upstream, events=21)
    assert statistics.median(took) < 0.05, took


def test_without_no_delay_events_are_late(upstream: Server, tmp_path: Path) -> None:
    """Which is what the documentation has the option for."""
    with Haproxy(tmp_path, configuration(upstream, without="http-no-delay")) as haproxy:
        took = delays(haproxy, upstream, events=5)
    assert statistics.median(took) > 0.1, took


def test_a_stream_without_events_opens(haproxy: Haproxy) -> None:
    """The head and a ping come although nothing is ever said."""
    with haproxy.get("/idle?name=opens") as reader:
        assert (reader.status, reader.headers["Content-Type"]) == (200, "text/event-stream")
        reader.until(b":\n")


# Silence, and clients that leave


def test_pings_keep_an_idle_stream_from_being_cut(upstream: Server, tmp_path: Path) -> None:
    """Beyond its timeouts a silent stream is cut, of which the application hears, and one with pings is not."""
    short = re.sub(r"timeout (client|server) .*", r"timeout \1 1s", configuration(upstream))
    with (
        Haproxy(tmp_path, short) as haproxy,
        haproxy.get("/idle?name=pinged&ping=0.2") as pinged,
        haproxy.get("/idle?name=silent") as silent,
    ):
        began = time.monotonic()
        with pytest.raises(http.client.IncompleteRead):
            silent.rest()
        assert 0.5 < time.monotonic() - began < 3
        until(lambda: jobs(upstream) == ["pinged"])
        pinged.until(b":\n" * 12)


def test_a_client_that_leaves_is_noticed(haproxy: Haproxy, upstream: Server) -> None:
    """The stream behind it ends within a second, though nothing is sent on it."""
    with haproxy.get("/idle?name=leaves") as reader:
        reader.until(b":\n")
        assert "leaves" in jobs(upstream)
        left = time.monotonic()
    until(lambda: "leaves" not in jobs(upstream))
    assert time.monotonic() - left < 1


# Restarts


def test_a_stopped_upstream_is_a_retry(start: Start, port: int, tmp_path: Path) -> None:
    """The stream ends with a retry, as do those until it is back, at different times; other paths have their 503."""
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


def test_what_the_application_answers_passes(haproxy: Haproxy) -> None:
    """Also what ends an EventSource."""
    seen = {}
    for code in (204, 401, 403, 404, 500, 503):
        with haproxy.get(f"/events/status/{code}") as reader:
            seen[code] = reader.status
    assert seen == {code: code for code in seen}


def test_the_application_knows_its_own_origin(haproxy: Haproxy) -> None:
    """The Host is passed on, so that what the page's own origin asks for is not taken for another's."""
    statuses = []
    for origin in (f"https://127.0.0.1:{haproxy.port}", "http://elsewhere.example"):
        with haproxy.get("/events/", Origin=origin) as reader:
            statuses.append(reader.status)
    assert statuses == [200, 403]


def test_a_reload_leaves_the_streams(upstream: Server, tmp_path: Path) -> None:
    """To the old process, which ends with the last of them, while new ones go through the new process."""
    with Haproxy(tmp_path, configuration(upstream)) as haproxy:
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
    """Of the old process, after the time that it is given; the id that a client has by then is good for the new one."""
    with Haproxy(tmp_path, "global\n    hard-stop-after 500ms\n" + configuration(upstream)) as haproxy:
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
    """Between browser and HAProxy streams share a connection, and each gets its events."""
    key, certificate = new_certificate(tmp_path)
    certificate.write_text(key.read_text() + certificate.read_text())
    bind = f"ssl crt {certificate} alpn h2,http/1.1"
    with Haproxy(tmp_path, configuration(upstream), bind=bind) as haproxy:
        page.goto(f"https://127.0.0.1:{haproxy.port}/jobs")
        page.evaluate("window.seen = 0")
        page.evaluate(OPEN, 10)
        until(lambda: page.evaluate(OPENED) == 10)
        page.evaluate("sources.forEach(source => source.onmessage = () => seen++)")
        assert publish(upstream.port, "h2")
        until(lambda: page.evaluate("seen") == 10)
        page.close()
