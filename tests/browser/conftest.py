"""One Chromium and one demo for all of these tests, and visitors of the chat."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from browser.engines import Chromium, Firefox, Tab, WebKit
from browser.peers import Demo, Line, Wire
from browser.visitor import Visitor

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

Enter = Callable[..., Visitor]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put these tests last: playwright keeps an event loop in this thread, with which async tests cannot run."""
    items.sort(key=lambda item: "browser" in item.path.parts)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=10_000)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=FLAGS,
            ignore_default_args=["--disable-back-forward-cache"],  # pages that were left live on, as they do for people
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def firefox() -> Iterator[Tab]:
    with Firefox() as tab:
        yield tab


@pytest.fixture(scope="session")
def webkit() -> Iterator[Tab]:
    with WebKit() as tab:
        yield tab


@pytest.fixture
def chromium(browser: Browser) -> Iterator[Tab]:
    with browser.new_context() as context:
        yield Chromium(context.new_page())


@pytest.fixture(params=["chromium", "firefox", "webkit"])
def tab(request: pytest.FixtureRequest, wire: Wire) -> Iterator[Tab]:
    """Return a tab of each engine in turn, at the wire's page."""
    tab: Tab = request.getfixturevalue(request.param)
    tab.goto(wire.url)
    yield tab
    tab.goto("about:blank")


@pytest.fixture(scope="session")
def chat() -> Iterator[Demo]:
    """Return a demo that no test stops."""
    with Demo() as demo:
        yield demo


@pytest.fixture
def own_chat() -> Iterator[Demo]:
    """Return a demo that one test may stop and start again."""
    with Demo() as demo:
        yield demo


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as server:
        yield server


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """Return the name of a room for one test."""
    return str(request.node.name)[-40:]


@pytest.fixture
def enter(browser: Browser, room: str) -> Iterator[Enter]:
    """Return a function that lets a visitor enter a room in a new profile; a page's error fails the test."""
    visitors: list[Visitor] = []

    def enter_room(name: str, server: Demo | Line, *, to: str = room, live: bool = True, **options: object) -> Visitor:
        visitor = Visitor(browser.new_context(**options), name)  # type: ignore[arg-type]
        visitors.append(visitor)
        visitor.enter(server.url, to)
        if live:
            visitor.is_live()
        return visitor

    yield enter_room
    errors = [error for visitor in visitors for error in visitor.errors]
    for visitor in visitors:
        visitor.context.close()
    assert errors == []
