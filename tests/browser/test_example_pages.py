"""The pages of the small examples, each used once as a person would; whatever is said is shown as text."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Page, expect

from browser.peers import Example
from examples.conftest import load_example

TAGS = '<img src=x onerror="throw 1"> & <b>hello</b>'

Open = Callable[[str], Callable[[], Page]]


@pytest.fixture
def open_(browser: Browser) -> Iterator[Open]:
    """Return a function that serves an example, and returns one that opens its page, in profiles of their own."""
    errors: list[object] = []
    with ExitStack() as stack:

        def serve(name: str) -> Callable[[], Page]:
            example = stack.enter_context(Example(load_example(name).app))

            def page() -> Page:
                context = stack.enter_context(browser.new_context())
                context.on("weberror", lambda error: errors.append(error.error))
                tab = context.new_page()
                tab.goto(example.url)
                return tab

            return page

        yield serve
    assert errors == []


def test_what_is_published_is_shown(open_: Open) -> None:
    """In every tab, and the box is empty for the next."""
    page = open_("publish_subscribe")
    one, other = page(), page()
    one.get_by_label("Text").fill(TAGS)
    one.get_by_role("button").click()
    for tab in (one, other):
        expect(tab.get_by_role("listitem")).to_have_text([TAGS])
    expect(one.get_by_label("Text")).to_have_value("")


def test_who_comes_is_shown(open_: Open) -> None:
    """To those who were there, and what is said to everybody once."""
    page = open_("who_visits")
    ada = page()
    expect(ada.locator("#visits li")).to_have_count(1)
    bob = page()
    expect(ada.locator("#visits li")).to_contain_text(["you", "127.0.0.1"])
    for tab, name in ((ada, "Ada"), (bob, "Bob")):
        tab.get_by_placeholder("Your name").fill(name)
        tab.get_by_role("button").click()
        expect(tab.locator("#chat li")).to_have_text([f"Welcome, {name}!"])
    ada.get_by_placeholder("Message").fill(TAGS)
    ada.get_by_role("button").click()
    expect(bob.locator("#chat li")).to_have_text(["Welcome, Bob!", f"Ada: {TAGS}"])
    expect(ada.locator("#chat li")).to_have_text(["Welcome, Ada!", f"I: {TAGS}"])


def test_what_is_said_is_shown(open_: Open) -> None:
    """With the author that the session knows."""
    page = open_("login_chat")
    ada, bob = page(), page()
    ada.get_by_placeholder("Another name").fill("<i>Ada</i>")
    ada.get_by_role("button", name="Log in").click()
    expect(ada.locator("b")).to_have_text("<i>Ada</i>")
    for tab, text in ((ada, TAGS), (bob, "hm")):
        tab.get_by_label("Message").fill(text)
        tab.get_by_role("button", name="Say").click()
        expect(bob.get_by_role("listitem").last).to_contain_text(text)
    expect(bob.get_by_role("listitem")).to_contain_text([f"<i>Ada</i>: {TAGS}", "anonymous: hm"])


def test_events_of_a_channel_are_shown(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the one that was chosen; a refusal is told, and the password opens the channel."""
    monkeypatch.setenv("ADMIN_PASSWORD", "sesame")
    page = open_("mounted_stream")
    one, other = page(), page()
    other.get_by_role("link", name="logs").click()
    for tab in (one, other):
        expect(tab.get_by_role("status")).to_have_text("reading")
        tab.get_by_role("button", name="Hello").click()
    expect(one.get_by_role("listitem")).to_have_text(["Hello, sse!"])
    expect(other.get_by_role("listitem")).to_have_text(["Hello, logs!"])
    one.get_by_role("link", name="analytics").click()
    expect(one.get_by_role("status")).to_have_text("refused")
    one.get_by_label("Password").fill("sesame")
    one.get_by_role("button", name="Log in").click()
    one.get_by_role("link", name="analytics").click()
    expect(one.get_by_role("status")).to_have_text("reading")
