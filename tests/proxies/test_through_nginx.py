"""A real Chromium behind a real nginx: compression, HTTP/2, and twenty restarts of the application under load."""

import itertools
import json
import re
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from playwright.sync_api import Browser, Page

from browser.peers import until
from proxies.conftest import Start
from proxies.peers import Nginx, documented, location, new_certificate, publish, start_app
from servers.processes import Server

GZIP = "gzip on; gzip_types text/event-stream;"
RESTARTS = 20
TABS = 4

OPEN = """count => {
  window.sources = Array.from({length: count}, (_, number) => new EventSource(`/idle?name=${number}`));
}"""
OPENED = "sources.filter(source => source.readyState === EventSource.OPEN).length"

MEASURE = """() => {
  window.delays = [];
  const source = new EventSource("/events/");
  source.onmessage = event => delays.push(Date.now() - Number(event.data));
  return new Promise(resolve => source.onopen = resolve);
}"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    server = start_app()
    yield server
    server.kill()


# Compression, HTTP/2


def test_chromium_gets_each_event_at_once_and_compressed(upstream: Server, page: Page, tmp_path: Path) -> None:
    """Within 50 ms of its publication. The next event is published after its arrival, so that it cannot push it on."""
    encodings: list[str | None] = []
    page.on("response", lambda response: encodings.append(response.headers.get("content-encoding")))
    with Nginx(tmp_path, upstream.port, locations=location(), options=GZIP) as nginx:
        page.goto(f"http://127.0.0.1:{nginx.port}/jobs")
        page.evaluate(MEASURE)
        for count in range(1, 16):
            assert publish(upstream.port, int(time.time() * 1000))
            until(lambda: page.evaluate("delays.length") == count)  # noqa: B023 - asked at once
        delays = page.evaluate("delays")
    assert encodings[-1] == "gzip"
    assert statistics.median(delays) < 50, delays


def test_http_1_has_six_connections(upstream: Server, page: Page, tmp_path: Path) -> None:
    """The seventh stream of a browser to the same host waits until one of the six is closed."""
    with Nginx(tmp_path, upstream.port, locations=location()) as nginx:
        page.goto(f"http://127.0.0.1:{nginx.port}/jobs")
        page.evaluate(OPEN, 10)
        until(lambda: page.evaluate(OPENED) == 6)
        before = set(upstream.get("/jobs").split())
        page.evaluate("sources.find(source => source.readyState === EventSource.OPEN).close()")
        until(lambda: set(upstream.get("/jobs").split()) - before)
        until(lambda: page.evaluate(OPENED) == 6)
        assert (len(before), len(upstream.get("/jobs").split())) == (6, 6)
        page.close()


def test_http_2_has_room_for_more(upstream: Server, page: Page, tmp_path: Path) -> None:
    """With HTTP/2 between browser and nginx, streams share a connection, and ten are open at once."""
    key, certificate = new_certificate(tmp_path)
    options = f"ssl_certificate {certificate}; ssl_certificate_key {key};"
    with Nginx(tmp_path, upstream.port, locations=location(), options=options, listen="ssl http2") as nginx:
        page.goto(f"https://127.0.0.1:{nginx.port}/jobs")
        page.evaluate(OPEN, 10)
        until(lambda: page.evaluate(OPENED) == 10)
        assert len(upstream.get("/jobs").split()) == 10
        page.close()


# Restarts


class Load:
    """Publishes numbers until it is left, also while the application is down, and keeps the confirmed ones."""

    def __init__(self, port: int) -> None:
        self.acknowledged: list[int] = []
        self._port = port
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        """Start publishing."""
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop publishing."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        for number in itertools.count():
            if publish(self._port, number):
                self.acknowledged.append(number)
            if self._stopped.wait(0.02):
                return

    def next(self) -> int:
        """Wait for the next number that is confirmed, and return it."""
        count = len(self.acknowledged)
        return until(lambda: self.acknowledged[count:])[0]


def test_twenty_restarts_under_load(browser: Browser, start: Start, port: int, tmp_path: Path) -> None:
    """Every tab is live again after each restart, half of which are kills. In the end each has every event, in order.

    The log outlives its process, so no event may be missing, and no gap may be announced. The configuration is the
    documented one, with a shorter retry, so that the test does not take a minute.
    """
    log = str(tmp_path / "log")
    document = documented(port)
    options = re.sub(r"\d+;", "200;", document["options"]) + GZIP
    locations = document["locations"] + location()
    server = start(KEPT=log, RETRY="50")
    with (
        Nginx(tmp_path / "nginx", port, locations=locations, options=options) as nginx,
        browser.new_context() as context,
    ):
        tabs = [context.new_page() for _ in range(TABS)]
        for tab in tabs:
            tab.goto(f"http://127.0.0.1:{nginx.port}/")
            until(lambda: tab.evaluate("source.readyState") == 1)  # noqa: B023 - asked at once
        with Load(port) as load:
            for restart in range(RESTARTS):
                have(tabs, load.next())
                server.stop(signal.SIGKILL if restart % 2 else signal.SIGTERM)
                server = start(KEPT=log, RETRY="50")
            have(tabs, load.next())
        kept = [int(json.loads(line)[1]) for line in Path(log).read_text().splitlines()]
        have(tabs, kept[-1])
        seen = [tab.evaluate("[seen, gaps]") for tab in tabs]
        refused = nginx.log.read_text().count("200 502\n")
    assert seen == [[kept, []]] * TABS
    assert set(kept) >= set(load.acknowledged)
    assert len(kept) > 5 * RESTARTS
    assert refused > RESTARTS


def have(tabs: list[Page], number: int) -> None:
    """Wait until every tab has received this number."""
    until(lambda: all(tab.evaluate("seen.at(-1) ?? -1") >= number for tab in tabs))
