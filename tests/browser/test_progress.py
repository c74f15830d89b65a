"""The pages of the report that takes a minute, plain and with htmx, and the worker that is not a web server."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from browser.peers import Example
from examples.conftest import EXAMPLES, load_example
from real_redis.launcher import RedisServer
from sse_asgi import ServerSentEvent

MODULES = Path(__file__).with_name("node_modules")
READY = "60 of 60 shops"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.02")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Return a profile that gets htmx from this machine; the browser compares it with the page's checksum."""

    def package(route: Route) -> None:
        name, _, file = route.request.url.partition("/npm/")[2].partition("@")
        route.fulfill(
            path=MODULES / name / file.partition("/")[2], headers={"access-control-allow-origin": "*"}, status=200
        )

    with browser.new_context() as context:
        context.route("https://cdn.jsdelivr.net/**", package)
        errors: list[object] = []
        context.on("weberror", lambda error: errors.append(error.error))
        yield context
        assert errors == []


@pytest.fixture
def example() -> Any:
    """Return the example, which counts how often the report is made."""
    module = load_example("progress/progress")
    module.made = []
    report = module.report

    def counted() -> Iterator[ServerSentEvent]:
        module.made.append(1)
        yield from report()

    module.report = counted
    return module


@pytest.fixture
def url(example: Any) -> Iterator[str]:
    with Example(example.app) as server:
        yield server.url


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    return page


@pytest.mark.parametrize(("first", "second"), [("/", "/htmx"), ("/htmx", "/")])
def test_it_is_made_once(context: BrowserContext, example: Any, url: str, first: str, second: str) -> None:
    """Started by two pages, it is shown to both, and to one that comes after its end."""
    pages = [opened(context, url + path) for path in (first, second)]
    for page in pages:
        page.get_by_role("button", name="Start").click()
        expect(page.get_by_role("progressbar")).to_be_visible()
    for page in (*pages, opened(context, url), opened(context, f"{url}/htmx")):
        expect(page.locator("#report")).to_contain_text(READY)
    assert example.made == [1]
    expect(context.pages[2].get_by_role("status")).to_have_text("finished")


@pytest.mark.parametrize("path", ["/", "/htmx"])
def test_it_is_cancelled(
    monkeypatch: pytest.MonkeyPatch, context: BrowserContext, example: Any, url: str, path: str
) -> None:
    """From a page; another one says so."""
    monkeypatch.setattr(example, "STEP_SECONDS", 0.2)
    page, other = opened(context, url + path), opened(context, url)
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(other.get_by_role("status")).to_have_text("cancelled")
    expect(other.locator("#report")).not_to_contain_text(READY)


def test_a_worker_makes_it(context: BrowserContext, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not a web server; a page that was open before shows it, and the worker knows the end."""
    monkeypatch.setenv("SSE_BACKEND_URL", shared_redis.url)
    monkeypatch.setenv("SSE_HUB_NAME", secrets.token_hex(8))
    example = load_example("progress/progress")
    with Example(example.app) as server:
        page = opened(context, server.url)
        expect(page.locator("#report")).to_contain_text("Not started yet.")
        command = [sys.executable, str(EXAMPLES / "progress" / "worker.py")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            expect(page.locator("#report")).to_contain_text(READY, timeout=30_000)
            expect(page.get_by_role("status")).to_have_text("finished")
            assert worker.communicate(timeout=30)[0] == "finished\n"
