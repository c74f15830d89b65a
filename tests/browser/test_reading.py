"""The guide's function `read`, and the pages of the examples: the part of reading a stream that is the page's own."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from browser.engines import Tab
from browser.peers import Example, Wire, until
from examples.conftest import EXAMPLES, NAMES, load_example, read_function
from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub

READ = f"""url => {{
  {read_function()}
  window.got = [];
  window.errors = [];
  read(url, {{message: event => got.push(event.data), error: ({{target}}) => errors.push(target.readyState)}});
}}"""
WITHOUT_STREAM = ("progress/progress",)  # it reads while the report is made
GOT = "() => got"


def test_it_opens_a_stream_again_that_was_closed_for_good(tab: Tab, wire: Wire) -> None:
    """After a proxy's error page, it resumes from its position, which it has even before its first event."""
    queries: list[str] = []
    app = Router([Mount("/events", EventSourceApp(wire.hub, retry=50, max_lifetime=0.2))])

    def answer(request: Request) -> ASGIApp:
        queries.append(request.url.query)
        return PlainTextResponse("no", 502) if len(queries) == 2 else app

    wire.answers["/events/"] = answer
    before = wire.hub.publish_from_thread("default", "before")
    tab.call(READ, "/events/")
    until(lambda: len(queries) > 1)
    wire.hub.publish_from_thread("default", "meanwhile")
    until(lambda: tab.call(GOT))
    assert tab.call(GOT) == ["meanwhile"]
    assert queries[:3] == ["", "", f"last_event_id={before}"]


def test_it_survives_a_restart_of_another_origins_server(tab: Tab) -> None:
    """The restarted server refuses the stream once, after which Firefox gives it up for good."""
    hub = Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub, cors_origins="*", retry=50))])
    with Example(EventSourceMiddleware(app, hub=hub)) as server:
        tab.call(READ, f"{server.url}/events/")
        until(lambda: hub.stats().connections)
        server.stop()
        until(lambda: len(tab.call("() => errors")) > 1)
        server.start()
        until(lambda: hub.stats().connections)
        hub.publish_from_thread("default", "after")
        until(lambda: tab.call(GOT))
    assert tab.call(GOT) == ["after"]


def test_it_stops_at_the_end(tab: Tab, wire: Wire) -> None:
    """The page does not ask again for a finished stream."""
    wire.answers["/job"] = lambda _: EventSourceResponse(["one"], retry=50)
    tab.call(READ.replace("got.push(event.data)", "{ got.push(event.data); window.source = event.target; }"), "/job")
    until(lambda: tab.call("() => window.source?.readyState === EventSource.CLOSED"))
    assert tab.call(GOT) == ["one"]
    assert [last for _, last in wire.asked("/job")] == [None]


# Pages that were left


class Counting(Example):
    """A server that counts its unfinished answers."""

    open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        counts = scope["type"] == "http"
        self.open += counts
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.open -= counts


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_STREAM])
def test_a_page_that_was_left_holds_no_stream(browser: Browser, wire: Wire, name: str) -> None:
    """Chromium keeps a page that was left; when the user goes back, the page reads again."""
    with Counting(load_example(name).app) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        page.evaluate("window.kept = true")
        until(lambda: server.open == 1)
        page.goto(wire.url)
        until(lambda: server.open == 0)
        page.evaluate("setTimeout(() => history.back())")
        until(lambda: server.open == 1)
        page.wait_for_function("window.kept")


def test_the_readmes_page_works(browser: Browser, wire: Wire) -> None:
    """It shows messages, holds no stream after it was left, and misses no message when the user goes back."""
    python, script = re.findall(r"```(?:python|js)\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)[
        :2
    ]
    names: dict[str, Any] = {"__name__": "block"}
    exec(python, names)
    with Counting(names["app"]) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/openapi.json")
        page.add_script_tag(content="got = []; show = text => got.push(text); reload = () => got.push('gap');")
        page.add_script_tag(content=script)
        page.wait_for_function("last")  # it has its position
        context.request.post(f"{server.url}/rooms/lobby?text=one")
        page.wait_for_function("got.length === 1")
        page.goto(wire.url)
        until(lambda: server.open == 0)
        context.request.post(f"{server.url}/rooms/lobby?text=two")
        page.evaluate("setTimeout(() => history.back())")
        until(lambda: server.open == 1)
        context.request.post(f"{server.url}/rooms/lobby?text=three")
        page.wait_for_function("window.got?.at(-1) === 'three'")
        assert page.evaluate("got") == ["one", "two", "three"]
