"""`sse-asgi.js`, the page's client, in real browsers: what it asks for, when it goes on, and when it is over."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from browser.engines import Firefox, Tab
from browser.peers import Example, Line, Wire, until
from browser.test_wire import CASES
from proxies.peers import Nginx, location
from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub
from sse_asgi.decoder import DecodedEvent, EventDecoder
from sse_asgi.encoder import encode

STREAM = "text/event-stream"
CLIENT = Router([Mount("/events", EventSourceApp(Hub()))])

# Connects, and keeps what the page was told. `tokens` are the values of a header, one for each call of the function.
CONNECT = """async ([url, options, types, tokens]) => {
  const {connect} = await import("/events/client.js");
  Object.assign(window, {got: [], states: [], asked: []});
  const on = {};
  for (const type of types) {
    on[type] = event => {
      window.act?.(event);
      got.push([event.type, event.data, event.lastEventId]);
    };
  }
  if (tokens) options.headers = async ({status}) => { asked.push(status); return {Authorization: tokens.shift()}; };
  const state = (name, {status, wait}) => states.push([name, status, wait]);
  window.connection = connect(url, {...options, on, state});
}"""
IN_TAB = f"(...values) => ({CONNECT})(values)"
TYPES = ["message", "sse.gap", "sse.end"]


class Site(Example):
    """A mounted app with a page and an event stream, whose next answers a test may replace."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        events = EventSourceApp(hub, **{"retry": 50, **options})
        page = Route("/", lambda _: HTMLResponse("<!doctype html><title>.</title>"))
        self.app = EventSourceMiddleware(Starlette(routes=[page, Mount("/events", events)]), hub=hub)
        super().__init__(self.app)
        self.hub = hub
        self.open = 0
        self.requests: list[Request] = []
        self.answers: list[ASGIApp] = []
        self.replaced: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        self._loop = asyncio.get_running_loop()
        if scope["type"] != "http" or scope["path"] != "/events/":
            await super().__call__(scope, receive, send)
            return
        self.requests.append(Request(scope))
        self.open += 1
        try:
            replaced = self.answers.pop(0) if self.answers else self.replaced
            await (replaced or self.app)(scope, receive, send)
        finally:
            self.open -= 1

    def call(self, function: Callable[..., object], *values: object) -> None:
        """Call a function in the server's event loop."""
        self._loop.call_soon_threadsafe(function, *values)

    def ids(self) -> list[str | None]:
        """Return the Last-Event-ID of each request."""
        return [request.headers.get("last-event-id") for request in self.requests]

    def end_streams(self) -> None:
        """End the streams, as their lifetime does; the pages come back."""
        for one in self.hub.subscriptions():
            self.call(one.end, "lifetime")

    def publish(self, text: str) -> str | None:
        return self.hub.publish_from_thread("default", text)


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with Site(Hub()) as site:
        yield site


@pytest.fixture
def site(served: Site) -> Iterator[Site]:
    """Return the site of all tests as if it were new, apart from what it keeps."""
    yield served
    until(lambda: served.open == 0)
    served.requests.clear()
    served.answers.clear()
    served.replaced = None


@pytest.fixture(params=["chromium", "firefox", "webkit"])
def any_tab(request: pytest.FixtureRequest, site: Site) -> Iterator[Tab]:
    """Return a tab of each engine in turn, at the site's page."""
    tab: Tab = request.getfixturevalue(request.param)
    tab.goto(site.url)
    yield tab
    tab.goto("about:blank")


@pytest.fixture(scope="module")
def opened(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


@pytest.fixture
def page(opened: Page, site: Site) -> Iterator[Page]:
    """Return the page of all tests at the site; an error of the page fails the test."""
    errors: list[str] = []
    opened.context.on("weberror", note := lambda error: errors.append(str(error.error)))
    opened.goto(site.url)
    yield opened
    opened.goto("about:blank")
    opened.context.remove_listener("weberror", note)
    assert errors == []


@pytest.fixture
def timed(browser: Browser, site: Site) -> Iterator[Page]:
    """Return a page whose clock the test can advance."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(site.url)
        page.clock.install()
        yield page


def connect(page: Page, url: str = "/events/", *, tokens: list[str] | None = None, **options: Any) -> None:
    page.evaluate(CONNECT, [url, options, TYPES, tokens])


def texts(page: Page) -> list[str]:
    return [data for kind, data, _ in page.evaluate("got") if kind == "message"]


def states(page: Page) -> list[str]:
    return [name for name, *_ in page.evaluate("states")]


def is_(page: Page, state: str, status: int | None = None) -> None:
    """Wait until the page was told this state, and the status of the last answer."""
    page.wait_for_function("name => states.at(-1)?.[0] === name", arg=state)
    assert status is None or page.evaluate("states.at(-1)[1]") == status


def in_time(page: Page, fact: Callable[[], bool]) -> None:
    """Advance the page's clock until it is true."""

    def later() -> bool:
        page.clock.fast_forward(1_000)
        return fact()

    until(later)


def until_subscribed(site: Site, count: int = 1) -> None:
    until(lambda: site.hub.stats().connections == count)


# In every engine


def test_it_misses_nothing_while_the_connection_is_cut(any_tab: Tab, site: Site) -> None:
    """It says what it does, and comes back with the id of the last event."""
    with Line(site.port) as line:
        any_tab.goto(line.url)
        any_tab.call(IN_TAB, "/events/", {}, TYPES)
        until_subscribed(site)
        last = site.publish("before")
        until(lambda: any_tab.call("() => got.length"))
        line.cut()
        site.publish("meanwhile")
        until(lambda: any_tab.call("() => states.at(-1)[0] === 'away'"))
        line.mend()
        until(lambda: any_tab.call("() => got.length === 2"))
        until(lambda: any_tab.call("() => states.at(-1)[0] === 'streaming'"))  # a second failure makes it poll once
        told = [name for name, *_ in any_tab.call("() => states")]
        assert [data for _, data, _ in any_tab.call("() => got")] == ["before", "meanwhile"]
        any_tab.goto("about:blank")
    assert site.ids()[:2] == [None, last]
    assert told[:2] == ["connecting", "streaming"]
    assert "away" in told


def test_a_new_token_is_asked_for_once(any_tab: Tab, site: Site) -> None:
    """After a 401 the function of the headers is called again, with the status; the second 401 is final."""
    refused = PlainTextResponse("no", 401)
    site.answers = [refused]
    any_tab.call(IN_TAB, "/events/", {}, TYPES, ["old", "new", "bad", "worse"])
    until_subscribed(site)
    site.answers = [refused, refused]
    site.end_streams()
    until(lambda: any_tab.call("() => states.at(-1)[0] === 'closed'"))
    assert any_tab.call("() => asked") == [0, 401, 200, 401]
    assert [one.headers["authorization"] for one in site.requests] == ["old", "new", "bad", "worse"]


def test_it_reads_events_as_the_standard_says(any_tab: Tab, site: Site) -> None:
    """Types, data and ids are those of EventDecoder, wherever the bytes are cut, and whatever ends the lines."""
    body = b"".join(encode(**case._asdict()) for case in CASES if case.retry is None)
    body += b"data: \xef\xbb\xbf\n\nid\ndata\r\ndata:\r\rdata:x\revent: last\r\r\n\n" + encode("", event="done")
    expected = EventDecoder().feed(body)
    chunks = [body[start : start + 997] for start in range(0, len(body), 997)]
    site.answers = [StreamingResponse(iter(chunks), media_type=STREAM)]
    any_tab.call(IN_TAB, "/events/", {}, sorted({event.event for event in expected}))
    until(lambda: any_tab.call("() => got.at(-1)?.[0] === 'done'"))
    any_tab.call("() => connection.close()")
    assert [DecodedEvent(*event) for event in any_tab.call("() => got")] == expected


# Attempts


def test_it_backs_off_by_chance_and_up_to_a_limit(timed: Page, site: Site) -> None:
    """The wait is anything up to a bound that doubles, and a temporary refusal is no end."""
    site.answers = [PlainTextResponse("no", status) for status in (502, 503, 429, 425, 500, 404)]
    timed.evaluate("Math.random = () => 0.5")
    connect(timed, tokens=[str(number) for number in range(9)])
    for count in range(1, 6):
        timed.wait_for_function("count => states.filter(([name]) => name === 'away').length === count", arg=count)
        timed.clock.fast_forward(16_000)
    is_(timed, "closed", 404)
    waits = [wait for name, _, wait in timed.evaluate("states") if name == "away"]
    assert waits == [1, 2, 4, 8, 15]
    assert timed.evaluate("asked") == [0, 502, 503, 429, 425, 500]  # the headers are asked for at each attempt
    assert [one.headers["authorization"] for one in site.requests] == [str(number) for number in range(6)]


@pytest.mark.parametrize("status", [204, 403])
def test_a_refusal_is_the_end(page: Page, site: Site, status: int) -> None:
    """The page learns the status, and nothing more is asked."""
    site.answers = [Response(status_code=status)]
    connect(page)
    is_(page, "closed", status)
    page.evaluate("dispatchEvent(new Event('online'))")
    assert len(site.requests) == 1


def test_the_end_is_the_end(page: Page, site: Site) -> None:
    """The page gets the last events and `sse.end`; a finished job is not asked for again."""
    site.answers = [EventSourceResponse(["one"])]
    connect(page)
    is_(page, "closed", 200)
    assert page.evaluate("got") == [["message", "one", ""], ["sse.end", '{"state":"finished"}', "sse.end"]]
    assert len(site.requests) == 1


def test_a_page_that_closes_it_is_told_and_gets_nothing_more(page: Page, site: Site) -> None:
    """Also if it closes it while it handles an event with others behind it."""
    site.answers = [Response("data: 1\n\ndata: 2\n\n", media_type=STREAM)]
    page.evaluate("void (window.act = () => connection.close())")
    connect(page)
    is_(page, "closed", 200)
    page.evaluate("dispatchEvent(new Event('online'))")
    assert texts(page) == ["1"]
    assert len(site.requests) == 1


def test_a_gap_is_an_event(page: Page, site: Site) -> None:
    """The page gets it before the events that are still kept."""
    site.publish("kept")
    connect(page, "/events/?last_event_id=nonsense")
    page.wait_for_function("got.at(-1)?.[1] === 'kept'")
    assert page.evaluate("got[0].slice(0, 2)") == ["sse.gap", '{"reason":"malformed"}']


def test_an_id_of_any_text_is_sent_as_the_standard_says(page: Page, site: Site) -> None:
    """In UTF-8, with the next request."""
    site.answers = [Response("retry: 1\nid: é€😀\ndata: x\n\n", media_type=STREAM)]
    connect(page)
    until(lambda: len(site.requests) > 1)
    assert dict(site.requests[1].scope["headers"])[b"last-event-id"] == "é€😀".encode()


def test_a_handler_that_fails_stops_nothing(browser: Browser, site: Site) -> None:
    """Its error is one of the page, as in any listener."""
    with browser.new_context() as context:
        errors: list[str] = []
        context.on("weberror", lambda error: errors.append(str(error.error)))
        page = context.new_page()
        page.goto(site.url)
        site.answers = [Response("data: 1\n\ndata: 2\n\n", media_type=STREAM)]
        page.evaluate("void (window.act = ({data}) => { if (data === '1') throw Error('mine'); })")
        connect(page)
        page.wait_for_function("got.length")
        assert texts(page) == ["2"]
        assert ["mine" in error for error in errors] == [True]


# A POST


def test_a_post_is_sent_once(page: Page, site: Site) -> None:
    """It has the method and the body; a complete answer is the end."""
    bodies: list[bytes] = []

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        bodies.append(await Request(scope, receive).body())
        await EventSourceResponse(["one"])(scope, receive, send)

    site.answers = [answer]
    connect(page, method="POST", body="ask")
    is_(page, "closed", 200)
    assert texts(page) == ["one"]
    assert ([one.method for one in site.requests], bodies) == (["POST"], [b"ask"])


def broken_off(*frames: bytes) -> ASGIApp:
    """Return an application whose body stays incomplete."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", STREAM.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await asyncio.sleep(0.1)  # a reset would overtake the frames
        raise ConnectionAbortedError

    return answer


def test_a_post_is_not_repeated_where_it_could_run_twice(page: Page, site: Site) -> None:
    """An answer that breaks off before an id is an error, which the page is told."""
    site.answers = [broken_off(b"data: half\n\n")]
    connect(page, method="POST", body="ask")
    is_(page, "closed", 200)
    assert texts(page) == ["half"]
    assert len(site.requests) == 1


def test_a_post_is_repeated_where_it_can_go_on(page: Page, site: Site) -> None:
    """After a refusal that is temporary, and after an id, which it sends."""
    site.answers = [
        PlainTextResponse("later", 503),
        broken_off(encode("one", id="1", retry=1)),
        Response(encode("two", id="2"), media_type=STREAM),
    ]
    connect(page, method="POST", body="ask")
    is_(page, "closed", 200)
    assert texts(page) == ["one", "two"]
    assert site.ids() == [None, None, "1"]


# Other origins


def test_it_reads_from_another_origin(page: Page, wire: Wire) -> None:
    """The client comes from there as well; cookies and headers go with every request, also with the next one."""
    origin = page.url.rstrip("/")
    with Site(Hub(), cors_origins=[origin]) as other:
        page.context.add_cookies([{"name": "user", "value": "ada", "url": other.url}])
        page.evaluate(
            CONNECT.replace("/events/client.js", f"{other.url}/events/client.js"),
            [f"{other.url}/events/", {"credentials": "include"}, TYPES, ["Bearer 1", "Bearer 2"]],
        )
        until_subscribed(other)
        last = other.publish("one")
        page.wait_for_function("got.length")
        other.end_streams()
        until(lambda: len([one for one in other.requests if one.method == "GET"]) == 2)
        first, second = (one for one in other.requests if one.method == "GET")
        assert (first.cookies, second.cookies) == ({"user": "ada"}, {"user": "ada"})
        assert [one.headers["authorization"] for one in (first, second)] == ["Bearer 1", "Bearer 2"]
        assert second.headers["last-event-id"] == last
        page.evaluate("connection.close()")


# Pages that are left, and computers that sleep


def test_a_page_that_was_left_holds_no_stream(page: Page, site: Site, wire: Wire) -> None:
    """Chromium keeps the page; when the user goes back, it misses nothing."""
    connect(page)
    until_subscribed(site)
    site.publish("one")
    page.wait_for_function("got.length")
    page.goto(wire.url)
    until(lambda: site.open == 0)
    site.publish("two")
    page.evaluate("setTimeout(() => history.back())")
    until_subscribed(site)
    site.publish("three")
    page.wait_for_function("window.got?.length === 3")
    assert texts(page) == ["one", "two", "three"]


def test_a_computer_that_slept_streams_again(timed: Page, site: Site) -> None:
    """The connection died without a sign, and the clock has moved."""
    connect(timed)
    until_subscribed(site)
    last = site.publish("one")
    timed.wait_for_function("got.length")
    timed.clock.fast_forward("08:00:00")
    until(lambda: site.ids() == [None, last])
    is_(timed, "streaming")


def test_a_silent_connection_is_given_up(browser: Browser) -> None:
    """The page learns how often the server pings, and takes two intervals of silence for a dead connection."""
    with Site(Hub(ping_interval=1.1)) as site, Silent(site.port) as line, browser.new_context() as context:
        page = context.new_page()
        page.goto(line.url)
        page.clock.install()
        connect(page)
        until_subscribed(site)
        page.wait_for_timeout(1500)  # for a ping
        last = site.publish("one")
        page.wait_for_function("got.length")
        line.hold()
        site.publish("two")
        page.clock.fast_forward(5_000)
        until(lambda: len(site.requests) == 2)
        assert site.ids() == [None, last]
        page.wait_for_function("got.length === 2")
        page.close()


class Silent(Line):
    """A proxy whose connections can fall silent without being closed, as when a router forgets them."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._held: set[socket.socket] = set()

    def hold(self) -> None:
        self._held = {*self._sockets}

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self._held:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("change", ["online", "offline"])
def test_a_change_of_the_network_is_a_reason_to_ask_again(page: Page, site: Site, change: str) -> None:
    """A connection may be dead without an error. The stream resumes."""
    connect(page)
    until_subscribed(site)
    last = site.publish("one")
    page.wait_for_function("got.length")
    page.evaluate("change => dispatchEvent(new Event(change))", change)
    until(lambda: site.ids() == [None, last])
    is_(page, "streaming")


# Where streams do not pass


def test_it_polls_where_a_proxy_refuses_streams(timed: Page, site: Site) -> None:
    """It misses nothing from the stream to the polls and back, and soon tries to stream again."""

    async def polls_only(scope: Scope, receive: Receive, send: Send) -> None:
        polls = b"poll=1" in scope["query_string"]
        await (site.app if polls else PlainTextResponse("no streams", 502))(scope, receive, send)

    timed.evaluate("Math.random = () => 0.5")
    connect(timed)
    until_subscribed(site)
    site.publish("streamed")
    timed.wait_for_function("got.length === 1")
    site.replaced = polls_only
    site.end_streams()
    in_time(timed, lambda: states(timed)[-1] == "polling")
    site.publish("polled")
    in_time(timed, lambda: texts(timed) == ["streamed", "polled"])
    site.replaced = None
    timed.clock.fast_forward(31_000)
    in_time(timed, lambda: states(timed)[-1] == "streaming")
    site.publish("again")
    timed.wait_for_function("got.length === 3")
    assert texts(timed) == ["streamed", "polled", "again"]


def test_it_polls_behind_a_proxy_that_buffers(browser: Browser, tmp_path: Path) -> None:
    """A real nginx holds every answer until it is complete; each event comes by a poll that waits for it."""
    with Site(Hub()) as site, browser.new_context() as context:
        options = "gzip on; gzip_types text/event-stream; proxy_ignore_headers X-Accel-Buffering;"
        with Nginx(tmp_path, site.port, locations=location(), options=options) as nginx:
            page = context.new_page()
            page.goto(f"http://127.0.0.1:{nginx.port}/")
            page.clock.install()
            connect(page)
            until(lambda: site.open == 1)
            page.clock.fast_forward(7_000)
            is_(page, "polling")
            page.clock.resume()
            for number in range(3):
                site.publish(str(number))
            page.wait_for_function("got.length === 3")
            assert texts(page) == ["0", "1", "2"]
            assert states(page) == ["connecting", "polling"]
            page.close()


# One connection for all tabs


class Tabs:
    """Tabs of one profile, each of which reads the same stream by one connection for all."""

    def __init__(self, browser: Browser, site: Site) -> None:
        self.site = site
        self.context = browser.new_context()
        self.pages: list[Page] = []

    def open(self, count: int = 1, **options: Any) -> None:
        """Open tabs, and wait until each has the beginning of the stream."""
        for _ in range(count):
            page = self.context.new_page()
            page.goto(self.site.url)
            connect(page, share=True, **options)
            is_(page, "streaming")
            self.pages.append(page)

    def read(self, *expected: str) -> None:
        """Wait until each tab has read exactly these texts."""
        for page in self.pages:
            page.wait_for_function("last => got.at(-1)?.[1] === last", arg=expected[-1])
            assert texts(page) == [*expected]


@pytest.fixture
def tabs(browser: Browser, site: Site) -> Iterator[Tabs]:
    tabs = Tabs(browser, site)
    yield tabs
    tabs.context.close()


def test_twelve_tabs_have_one_connection(tabs: Tabs) -> None:
    """Over HTTP/1.1 a browser opens six to a server. Every tab reads everything, and a fetch does not wait."""
    tabs.open(12)
    until(lambda: tabs.site.open == 1)
    for number in range(5):
        tabs.site.publish(str(number))
    tabs.read(*map(str, range(5)))
    assert tabs.site.open == 1
    milliseconds = tabs.pages[-1].evaluate("""async () => {
      const began = performance.now();
      await fetch("/");
      return performance.now() - began;
    }""")
    assert milliseconds < 1000


def test_another_tab_goes_on_when_the_first_is_closed(tabs: Tabs) -> None:
    """Within two seconds; nothing is missed, also of what was published meanwhile."""
    tabs.open(3)
    tabs.site.publish("before")
    tabs.read("before")
    tabs.pages.pop(0).close()
    began = time.monotonic()
    tabs.site.publish("meanwhile")
    tabs.read("before", "meanwhile")
    assert time.monotonic() - began < 2
    until(lambda: tabs.site.open == 1)


def test_another_tab_goes_on_when_the_first_hangs(tabs: Tabs) -> None:
    """Within two seconds. The tab that hung gets what it missed."""
    tabs.open(3)
    tabs.site.publish("before")
    tabs.read("before")
    hung = tabs.pages.pop(0)
    hung.evaluate("setTimeout(() => { for (const end = Date.now() + 4_000; Date.now() < end;); })")
    hung_at = time.monotonic()
    tabs.pages[0].wait_for_timeout(100)
    tabs.site.publish("meanwhile")
    tabs.read("before", "meanwhile")
    assert time.monotonic() - hung_at < 3
    tabs.site.publish("after")
    tabs.pages.append(hung)
    tabs.read("before", "meanwhile", "after")
    until(lambda: tabs.site.open == 1)


def test_a_tab_that_hung_does_not_pass_on_old_events(tabs: Tabs) -> None:
    """A tab that was opened meanwhile begins as of then; for the others nothing is missing and nothing comes twice."""
    tabs.open(2)
    hung = tabs.pages[0]
    hung.evaluate("setTimeout(() => { for (const end = Date.now() + 2_500; Date.now() < end;); })")
    old = [f"old {number}" for number in range(5)]
    for text in old:
        tabs.site.publish(text)
    older = [tabs.pages.pop(), tabs.pages.pop()]
    tabs.open()
    hung.evaluate("null")  # it is over
    tabs.site.publish("new")
    tabs.read("new")
    tabs.pages = older
    tabs.read(*old, "new")


def test_another_tab_goes_on_when_the_first_is_frozen(tabs: Tabs) -> None:
    """Chromium freezes tabs in the background. When it wakes one, the tab gets what it missed."""
    tabs.open(2)
    tabs.site.publish("before")
    tabs.read("before")
    frozen = tabs.pages.pop(0)
    session = tabs.context.new_cdp_session(frozen)
    session.send("Page.setWebLifecycleState", {"state": "frozen"})
    tabs.site.publish("meanwhile")
    tabs.read("before", "meanwhile")
    session.send("Page.setWebLifecycleState", {"state": "active"})
    tabs.pages.append(frozen)
    tabs.site.publish("after")
    tabs.read("before", "meanwhile", "after")
    until(lambda: tabs.site.open == 1)


def test_a_new_tab_begins_as_every_reader_does(browser: Browser) -> None:
    """It gets the snapshot, then every later event once, although the connection is an older tab's."""
    kept: list[str] = []

    async def snapshot() -> list[str]:
        return [*kept]

    with Site(Hub(), snapshot=snapshot) as site:
        tabs = Tabs(browser, site)
        for number in range(3):
            kept.append(f"state {number}")
            tabs.open()
            site.publish(str(number))
            tabs.pages[-1].wait_for_function("last => got.at(-1)?.[1] === last", arg=str(number))
        assert [texts(page) for page in tabs.pages] == [["0", "1", "2"], ["1", "2"], ["2"]]
        tabs.context.close()


def test_a_refusal_is_the_end_for_all_tabs(tabs: Tabs) -> None:
    """They are told the status."""
    tabs.open(2)
    tabs.site.answers = [PlainTextResponse("no", 403)]
    tabs.site.end_streams()
    for page in tabs.pages:
        is_(page, "closed", 403)


def test_a_tab_that_closes_its_connection_leaves_the_others(tabs: Tabs) -> None:
    """Also if it had the connection."""
    tabs.open(3)
    tabs.pages.pop(0).evaluate("connection.close()")
    tabs.site.publish("after")
    tabs.read("after")


def test_tabs_of_firefox_have_one_connection(firefox: Firefox, site: Site) -> None:
    """When the tab that has it is closed, another one goes on, and nothing is missed."""
    firefox.goto(site.url)
    tabs = [firefox.tab() for _ in range(3)]
    for tab in tabs:
        tab.goto(site.url)
        tab.call(IN_TAB, "/events/", {"share": True}, TYPES)
        until(lambda: tab.call("() => states.at(-1)?.[0] === 'streaming'"))  # noqa: B023 - asked at once
    assert site.open == 1
    site.publish("before")
    for tab in tabs:
        until(lambda: tab.call("() => got.length"))  # noqa: B023
    tabs.pop(0).close()
    site.publish("meanwhile")
    for tab in tabs:
        until(lambda: tab.call("() => got.length === 2"))  # noqa: B023
        assert [data for _, data, _ in tab.call("() => got")] == ["before", "meanwhile"]
    until(lambda: site.open == 1)
    for tab in tabs:
        tab.close()


# Options


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("connect('/x', {header: {}})", "header must be left out: the options are headers,method,body"),
        ("connect('/x', {headers: 'x'})", "headers must be object or function"),
        ("connect('/x', {on: {message: 1}})", "on.message must be a function"),
        ("connect('/x', {state: {}})", "state must be function"),
        ("connect('/x', {body: 'x'})", 'body needs method: "POST"'),
        ("connect('/x', {method: 'POST', share: true})", 'share needs "GET"'),
        ("connect('/x', {headers: {}, share: true})", "share must name the user"),
        ("connect('http://')", "Invalid URL"),
    ],
)
def test_a_wrong_option_is_a_type_error(page: Page, call: str, message: str) -> None:
    """It says what to do."""
    code = f"import('/events/client.js').then(({{connect}}) => {call}).catch(error => [error.name, error.message])"
    name, told = page.evaluate(code)
    assert (name, message in told) == ("TypeError", True), told


def test_an_option_that_is_undefined_is_left_out(page: Page, site: Site) -> None:
    """As with fetch."""
    page.evaluate(
        "import('/events/client.js').then(({connect}) => { connect('/events/', {headers: undefined, on: undefined}); })"
    )
    until_subscribed(site)
