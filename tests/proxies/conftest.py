"""An upstream that a test can stop and start again, and a browser."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.conftest import FLAGS
from browser.peers import free_port
from proxies.peers import start_app
from servers.processes import Server

Start = Callable[..., Server]


@pytest.fixture
def port() -> int:
    """Return the port of the test's own upstream, which stays reserved while the upstream is stopped."""
    return free_port()


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """Return a function that starts uvicorn on that port, with these options. A test can call it again after a stop."""
    servers: list[Server] = []

    def start(*options: str, **environment: str) -> Server:
        servers.append(start_app(*options, port=port, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Run a Chromium for this module; playwright's event loop ends with it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page of an empty browser profile, which accepts any certificate."""
    with browser.new_context(ignore_https_errors=True) as context:
        yield context.new_page()
