"""The page of the dashboard example in a browser, with and without a proxy that blocks streams."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from browser.peers import Example, Wire, until
from examples.conftest import EXAMPLES, load_example
from modules import SOURCE

PAGE = EXAMPLES / "dashboard" / "page"
CLIENT = SOURCE / "client" / "sse-asgi.js"


class Site(Example):
    """The dashboard, behind a proxy that can block streams."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app)
        self.streams_pass = True
        self.asked: list[tuple[bool, bool]] = []  # whether it was a poll, and whether it had an id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        asks = scope["type"] == "http" and scope["path"] == "/events/"
        polls = asks and b"poll=1" in scope["query_string"]
        if asks and scope["method"] == "GET":  # not the preflight
            self.asked.append((polls, b"last-event-id" in dict(scope["headers"])))
        if asks and not self.streams_pass and not polls:
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

    def later() -> bool:
        page.clock.fast_forward(1_000)
        return page.get_by_role("status").inner_text() == state

    until(later)
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
    """The page changes from streaming to polling and back, and resumes each time without a new state."""
    site.streams_pass = False
    visit()
    is_(page, "polling")
    site.streams_pass = True
    is_(page, "streaming")
    site.streams_pass = False
    site.stop()
    site.start()
    is_(page, "polling")
    expect(page.get_by_role("note")).to_be_empty()
    assert site.asked[:3] == [(False, False), (False, False), (True, False)]
    assert all(has_id for _, has_id in site.asked[3:])


def test_it_comes_back_with_the_server(page: Page, site: Site, visit: Callable[[], None]) -> None:
    """The page says that there is no answer, and streams again when the server is back."""
    visit()
    is_(page, "streaming")
    site.stop()
    expect(page.get_by_role("status")).to_have_text("away")
    site.start()
    is_(page, "streaming")


def test_a_refusal_is_final(page: Page, wire: Wire) -> None:
    """After a refusal the page does not ask again."""
    wire.answers["/events/client.js"] = lambda _: FileResponse(CLIENT)
    wire.answers["/events/"] = lambda _: PlainTextResponse("no", 404)
    page.goto(wire.url)
    expect(page.get_by_role("status")).to_have_text("closed")
    page.clock.fast_forward(60_000)
    assert len(wire.asked("/events/")) == 1


def test_it_can_be_closed(page: Page, visit: Callable[[], None]) -> None:
    """close() stops the page, also while it polls, and removes the page's listeners."""
    visit()
    outcome = page.evaluate(
        """async url => {
          const {connect} = await import(`${url}client.js`);
          const states = [];
          let connection;
          await new Promise(resolve => {
            connection = connect(url, {on: {init: resolve}, state: name => states.push(name)});
          });
          connection.close();
          await null;
          return states;
        }""",
        f"{page.url.partition('server=')[2]}/events/",
    )
    assert outcome == ["connecting", "streaming", "closed"]
