"""The pages of the examples and of the README, when the user leaves them and goes back."""

import re
from typing import Any

import pytest
from playwright.sync_api import Browser
from starlette.types import Receive, Scope, Send

from browser.peers import Example, Wire, until
from examples.conftest import EXAMPLES, NAMES, load_example

WITHOUT_STREAM = ("progress/progress",)  # it reads while the report is made


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
    blocks = re.findall(r"```(python|js)\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), re.DOTALL)
    script = next(text for language, text in blocks if language == "js")
    names: dict[str, Any] = {"__name__": "block"}
    exec(next(text for language, text in blocks if language == "python" and "EventSourceApp" in text), names)
    hub = names["hub"]
    with Counting(names["app"]) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{server.url}/events/client.js")
        page.add_script_tag(content="got = []; console.log = text => got.push(text);")
        page.add_script_tag(content=script, type="module")
        until(lambda: hub.stats().connections)
        hub.publish_soon("news", "one")
        page.wait_for_function("got.length === 1")
        page.goto(wire.url)
        until(lambda: server.open == 0)
        hub.publish_soon("news", "two")
        page.evaluate("setTimeout(() => history.back())")
        until(lambda: server.open == 1)
        hub.publish_soon("news", "three")
        page.wait_for_function("window.got?.at(-1) === 'three'")
        assert page.evaluate("got") == ["one", "two", "three"]
