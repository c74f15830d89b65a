"""The pages of the small examples, each used once as a person uses it; all text is shown as text."""

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
    """Return a function that serves an example; its result opens the page in a new profile of the browser."""
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
    """Every tab shows the text, and the box is empty afterwards."""
    page = open_("publish_subscribe")
    one, other = page(), page()
    one.get_by_label("Text").fill(TAGS)
    one.get_by_role("button").click()
    for tab in (one, other):
        expect(tab.get_by_role("listitem")).to_have_text([TAGS])
    expect(one.get_by_label("Text")).to_have_value("")


def test_visits_are_shown(open_: Open) -> None:
    """Earlier visitors see the new one, and every tab shows each message once."""
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
    """A message is shown with the session's user."""
    page = open_("login_chat")
    ada, bob = page(), page()
    ada.get_by_placeholder("Another name").fill("<i>Ada</i>")
    ada.get_by_role("button", name="Log in").click()
    expect(ada.locator("b")).to_have_text("<i>Ada</i>")
    for tab, text in ((ada, TAGS), (bob, "hm")):
        tab.get_by_label("Message").fill(text)
        tab.get_by_role("button", name="Send").click()
        expect(bob.get_by_role("listitem").last).to_contain_text(text)
    expect(bob.get_by_role("listitem")).to_contain_text([f"<i>Ada</i>: {TAGS}", "anonymous: hm"])


def test_events_of_a_channel_are_shown(open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows events of the selected channel; it says that it was refused, and the password gives access."""
    monkeypatch.setenv("ADMIN_PASSWORD", "sesame")
    page = open_("mounted_stream")
    one, other = page(), page()
    other.get_by_role("link", name="logs").click()
    for tab in (one, other):
        expect(tab.get_by_role("status")).to_have_text("streaming")
        tab.get_by_role("button", name="Hello").click()
    expect(one.get_by_role("listitem")).to_have_text(["Hello, sse!"])
    expect(other.get_by_role("listitem")).to_have_text(["Hello, logs!"])
    one.get_by_role("link", name="analytics").click()
    expect(one.get_by_role("status")).to_have_text("refused")
    one.get_by_label("Password").fill("sesame")
    one.get_by_role("button", name="Log in").click()
    one.get_by_role("link", name="analytics").click()
    expect(one.get_by_role("status")).to_have_text("streaming")


@pytest.mark.parametrize("step", [3, 4])
def test_a_step_of_the_tutorial_shows_messages(open_: Open, step: int) -> None:
    """Every tab shows a message, once and as text; from step 4 on, a newcomer too."""
    page = open_(f"tutorial/step_{step}/chat")
    one, other = page(), page()
    for tab in (one, other):
        expect(tab.get_by_role("status")).to_have_text("streaming")
    one.get_by_label("Name").fill("Ada")
    one.get_by_label("Message").fill(TAGS)
    one.get_by_role("button").click()
    for tab in (one, other):
        expect(tab.get_by_role("listitem")).to_have_text([f"Ada: {TAGS}"])
    expect(page().get_by_role("listitem")).to_have_count(1 if step == 4 else 0)


def test_the_chat_of_the_tutorial_works(open_: Open) -> None:
    """Visitors log in, see who is here and what was said, and say more."""
    page = open_("tutorial/step_6/chat")
    ada, bob = page(), page()
    for tab, name in ((ada, "Ada"), (bob, "Bob")):
        tab.get_by_label("Name").fill(name)
        tab.get_by_role("button", name="Enter").click()
        expect(tab.get_by_role("status")).to_have_text("streaming")
        expect(tab.locator("#here")).to_contain_text(name)
        tab.get_by_label("Message").fill(f"I am {name}")
        tab.get_by_role("button", name="Send").click()
    for tab in (ada, bob):
        expect(tab.get_by_role("listitem")).to_have_text(["Ada: I am Ada", "Bob: I am Bob"])
        expect(tab.locator("#here")).to_have_text("Ada, Bob")
