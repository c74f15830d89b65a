"""The page of the dashboard example in a browser, with and without a proxy that blocks streams."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from browser.peers import Example, Wire
from examples.conftest import EXAMPLES, load_example

PAGE = EXAMPLES / "dashboard" / "page"


class Site(Example):
    """The dashboard, behind a proxy that can block streams."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.streams_pass = True
        self.queries: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        asks = scope["type"] == "http" and scope["path"] == "/events/"
        if asks:
            self.queries.append(scope["query_string"])
        if asks and not self.streams_pass and b"poll=1" not in scope["query_string"]:
            await PlainTextResponse("no streams", 502)(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


@pytest.fixture
def site() -> Iterator[Site]:
    example = load_example("dashboard/dashboard")
    example.SECONDS = 0.05
    with Site(example.app) as site:
        yield site


@pytest.fixture
def page(browser: Browser, wire: Wire) -> Iterator[Page]:
    """A tab whose clock the test can advance; the page comes from another origin than the events."""
    wire.answers["/"] = lambda _: FileResponse(PAGE / "index.html")
    wire.answers["/connect.js"] = lambda _: FileResponse(PAGE / "connect.js")
    with browser.new_context() as context:
        errors: list[object] = []
        context.on("weberror", lambda error: errors.append(error.error))
        page = context.new_page()
        page.clock.install()
        yield page
        assert errors == []


@pytest.fixture
def visit(page: Page, wire: Wire, site: Site) -> Callable[[], None]:
    """Return a function that opens the page."""

    def go() -> None:
        page.goto(f"{wire.url}/?server={site.url}")

    return go


def is_(page: Page, state: str) -> None:
    """Wait until the page shows this state and new values."""
    expect(page.get_by_role("status")).to_have_text(state)
    shown = page.get_by_role("table").inner_text()
    expect(page.get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("table")).not_to_have_text(shown, use_inner_text=True)


def test_it_streams(page: Page, visit: Callable[[], None]) -> None:
    """The page gets the state and its changes from another origin."""
    visit()
    is_(page, "streaming")


def test_it_polls_where_streams_do_not_pass_and_streams_again(
    page: Page, site: Site, visit: Callable[[], None]
) -> None:
    """The page changes from EventSource to polling and back, and resumes each time without a new state."""
    site.streams_pass = False
    visit()
    is_(page, "polling")
    site.streams_pass = True
    page.clock.fast_forward(31_000)
    is_(page, "streaming")
    site.streams_pass = False
    site.stop()
    site.start()
    is_(page, "polling")
    expect(page.get_by_role("note")).to_be_empty()
    refused, first, *others = site.queries
    assert (refused, first) == (b"", b"poll=1")
    assert all(query.startswith(b"last_event_id=") for query in others)


def test_it_comes_back_with_the_server(page: Page, site: Site, visit: Callable[[], None]) -> None:
    """The page says that there is no answer, and streams again when the server is back."""
    visit()
    is_(page, "streaming")
    site.stop()
    expect(page.get_by_role("status")).to_have_text("away", timeout=20_000)
    site.start()
    is_(page, "streaming")


def test_a_refusal_is_final(page: Page, wire: Wire, site: Site) -> None:
    """After a refusal the page does not ask again."""
    page.goto(f"{wire.url}/?server={site.url}/events")
    expect(page.get_by_role("status")).to_have_text("closed")


def test_it_can_be_closed(page: Page, visit: Callable[[], None]) -> None:
    """close() stops the page, also while it polls, and removes the page's listeners."""
    visit()
    outcome = page.evaluate(
        """async url => {
          const {connect} = await import("./connect.js");
          const states = [];
          let connection;
          await new Promise(resolve => {
            connection = connect({url, on: {init: resolve, state: name => states.push(name)}});
          });
          connection.close();
          return states;
        }""",
        f"{page.url.partition('server=')[2]}/events/",
    )
    assert outcome == ["connecting", "streaming", "closed"]
