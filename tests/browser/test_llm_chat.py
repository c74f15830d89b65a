"""The chat with a language model, as people use it: in one process, and in two on Redis.

A person asks, reloads, opens the chat on a phone, and presses Stop anywhere; an operator kills the process that writes.
"""

import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import anyio
import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request

from browser.peers import Wire, free_port, until
from examples.conftest import EXAMPLES
from real_redis.launcher import RedisServer
from servers.processes import Server
from sse_asgi import EventSourceResponse
from sse_asgi.dialects import OPENAI

FOLDER = EXAMPLES / "llm_chat"
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
QUESTION = "What is <b>1 & {1}</b>?"
ANSWER = (FOLDER / "words.txt").read_text().format(question=QUESTION)
BEGUN = re.compile("language model. I am a loop")
START_SECONDS = 60.0  # two processes start at once
WORKERS = ("--workers", "2", "--timeout-worker-healthcheck", "60")

Open = Callable[..., Page]


def serve(*options: str, port: int = 0, **environment: str) -> Server:
    port = port or free_port()
    command = ["uvicorn", "app:app", "--app-dir", str(FOLDER), "--port", str(port), "--no-access-log", *options]
    server = Server([sys.executable, "-m", *command], port, {"WORD_SECONDS": "0.008", **environment})
    until(lambda: answers(server), START_SECONDS)
    return server


def answers(server: Server) -> str | None:
    """Return its answer; None if it does not answer yet."""
    assert server.process.poll() is None, server.log()
    with suppress(OSError):
        return server.get("/read.js")
    return None


@pytest.fixture(scope="module")
def single() -> Iterator[Server]:
    """Serve the chat in one process, in memory."""
    server = serve()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def double(shared_redis: RedisServer) -> Iterator[Server]:
    """Serve the chat in two processes, on Redis."""
    hub = {"SSE_BACKEND_URL": shared_redis.url, "SSE_HUB_NAME": secrets.token_hex(8), "SSE_PRESENCE_TTL": "1"}
    server = serve(*WORKERS, **hub)  # type: ignore[arg-type]
    yield server
    server.remove()


@pytest.fixture(params=["single", "double"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def open_(browser: Browser) -> Iterator[Open]:
    """Return a function that opens an address in a new profile; a page's error fails the test."""
    errors: list[object] = []
    contexts = []

    def page(url: str, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        context.on("weberror", lambda error: errors.append(error.error))
        contexts.append(context)
        tab = context.new_page()
        tab.goto(url)
        return tab

    yield page
    for context in contexts:
        context.close()
    assert errors == []


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/"


def ask(page: Page, question: str = QUESTION) -> None:
    """Ask, and wait until the answer has begun."""
    page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("article")).to_have_attribute("data-state", "writing")


def says(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator(".text")).to_have_text(text)


def ends(page: Page, state: str) -> str:
    """Wait until the page says how the answer has ended; return its text."""
    expect(page.locator("article")).to_have_attribute("data-state", state)
    return page.locator(".text").evaluate("node => node.textContent")  # type: ignore[no-any-return]


def process_of(page: Page) -> int:
    """Return the process that writes, as the page names it."""
    return int(page.locator(".writer").inner_text().rpartition(" ")[2])


def go_on(page: Page) -> None:
    page.get_by_role("button", name="Go on").click()


def test_a_text_is_the_same_everywhere(server: Server, open_: Open) -> None:
    """In a tab that is reloaded in the middle, in one that stays, on a phone, and for who comes after the end."""
    first = open_(url_of(server))
    ask(first)
    says(first, BEGUN)
    others = [open_(first.url), open_(first.url, **PHONE)]
    first.reload()
    pages = [first, *others]
    assert [ends(page, "finished") for page in pages] == [ANSWER] * 3
    assert ends(open_(first.url), "finished") == ANSWER
    expect(first.locator(".asked")).to_have_text([QUESTION])
    expect(others[1].locator("body")).to_have_js_property("scrollWidth", 390)


def test_it_is_stopped_from_another_page(server: Server, open_: Open) -> None:
    """All pages say so and keep the same text; either of them lets it go on, to the same end."""
    first = open_(url_of(server))
    ask(first)
    phone = open_(first.url, **PHONE)
    says(phone, BEGUN)
    phone.get_by_role("button", name="Stop").click()
    texts = {ends(page, "cancelled") for page in (first, phone, open_(first.url))}
    assert len(texts) == 1
    assert ANSWER.startswith(texts.pop())
    expect(first.locator(".state")).to_have_text("Stopped.")
    go_on(first)
    assert {ends(first, "finished"), ends(phone, "finished"), ends(open_(first.url), "finished")} == {ANSWER}


def test_the_process_that_writes_is_killed(double: Server, open_: Open) -> None:
    """Within the lease and a third, all pages say that the answer was interrupted; another process goes on."""
    first = open_(url_of(double))
    ask(first)
    phone = open_(first.url, **PHONE)
    says(phone, BEGUN)
    victim = process_of(first)
    os.kill(victim, signal.SIGKILL)
    texts = {ends(first, "lost"), ends(phone, "lost"), ends(open_(first.url), "lost")}
    assert len(texts) == 1
    assert ANSWER.startswith(texts.pop())
    go_on(phone)
    assert {ends(first, "finished"), ends(phone, "finished")} == {ANSWER}
    assert process_of(first) != victim


def test_the_only_process_is_killed(open_: Open) -> None:
    """Its memory is lost, and the page is not: it says so when the next process is there, and goes on."""
    server = serve()
    try:
        page = open_(url_of(server))
        ask(page)
        says(page, BEGUN)
        server.process.kill()
        server.process.wait()
        expect(page.get_by_role("status")).to_have_text("Reconnecting…")
        again = serve(port=server.port)
    finally:
        server.remove()
    try:
        assert ANSWER.startswith(ends(page, "gone"))
        go_on(page)
        assert ends(page, "finished") == ANSWER
        assert ends(open_(page.url), "finished") == ANSWER
    finally:
        again.remove()


def test_a_model_is_asked(wire: Wire, open_: Open) -> None:
    """Its name is shown, it gets the conversation, and Stop closes the request to it."""
    closed = threading.Event()
    bodies: list[dict[str, object]] = []

    async def completion(request: Request) -> AsyncIterator[object]:
        bodies.append(await request.json())
        try:
            yield {"choices": [{"delta": {"content": "Yes, "}}]}
            if len(bodies) == 1:
                await anyio.sleep_forever()
            yield {"choices": [{"delta": {"content": "it is."}}]}
        finally:
            closed.set()

    wire.answers["/v1/chat/completions"] = lambda request: EventSourceResponse(completion(request), dialect=OPENAI)
    server = serve(LLM_URL=f"{wire.url}/v1", LLM_MODEL="a-model")
    try:
        page = open_(url_of(server))
        ask(page, "Is it?")
        says(page, "Yes, ")
        expect(page.locator("#model")).to_have_text("a-model")
        page.get_by_role("button", name="Stop").click()
        ends(page, "cancelled")
        assert closed.wait(5)
        go_on(page)
        assert ends(page, "finished") == "Yes, Yes, it is."
    finally:
        server.remove()
    question = {"role": "user", "content": "Is it?"}
    assert (bodies[0]["model"], bodies[0]["messages"]) == ("a-model", [question])
    assert isinstance(bodies[1]["messages"], list)
    assert bodies[1]["messages"][:2] == [question, {"role": "assistant", "content": "Yes, "}]
