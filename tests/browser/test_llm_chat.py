"""The chat with a language model, as people use it: in one process, and in two on Redis.

A person asks, reloads, opens the chat on a phone, and presses Stop anywhere; an operator kills the process that writes.
The model is a server that says half of its answer, and the rest when the test lets it.
"""

import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

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
WORDS = [f"{number}: Grüße,\n\n<i>世界</i> 😀 " for number in range(60)]
HALF, ANSWER = "".join(WORDS[:30]), "".join(WORDS)
START_SECONDS = 60.0  # two processes start at once
WORKERS = ("--workers", "2", "--timeout-worker-healthcheck", "60")

Open = Callable[..., Page]


class Model(Wire):
    """A server of OpenAI's protocol. Its first half comes at once; the second half waits, unless it is asked to go on.

    Attributes:
        released: Whether the second half comes.
        bodies: What it was asked.
        closed: How many of its answers have ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.released = False
        self.bodies: list[dict[str, Any]] = []
        self.closed = 0
        self.answers["/v1/chat/completions"] = lambda request: EventSourceResponse(self._say(request), dialect=OPENAI)

    async def _say(self, request: Request) -> AsyncIterator[object]:
        body = await request.json()
        self.bodies.append(body)
        so_far = next((one["content"] for one in body["messages"] if one["role"] == "assistant"), "")
        try:
            for number, word in enumerate(WORDS):
                while number == 30 and not (self.released or so_far):
                    await anyio.sleep(0.02)
                if number >= so_far.count(":"):
                    yield {"choices": [{"delta": {"content": word}}]}
        finally:
            self.closed += 1


@pytest.fixture(scope="module")
def model_server() -> Iterator[Model]:
    with Model() as model:
        yield model


@pytest.fixture
def model(model_server: Model) -> Model:
    model_server.released = False
    model_server.bodies.clear()
    model_server.closed = 0
    return model_server


def serve(*options: str, port: int = 0, environment: dict[str, str]) -> Server:
    port = port or free_port()
    command = ["uvicorn", "app:app", "--app-dir", str(FOLDER), "--port", str(port), "--no-access-log", *options]
    server = Server([sys.executable, "-m", *command], port, environment)
    until(lambda: answers(server), START_SECONDS)
    return server


def answers(server: Server) -> str | None:
    """Return its answer; None if it does not answer yet."""
    assert server.process.poll() is None, server.log()
    with suppress(OSError):
        return server.get("/")
    return None


def asking(model: Model) -> dict[str, str]:
    return {"LLM_URL": f"{model.url}/v1", "LLM_MODEL": "half-a-model"}


@pytest.fixture(scope="module")
def single(model_server: Model) -> Iterator[Server]:
    """Serve the chat in one process, in memory."""
    server = serve(environment=asking(model_server))
    yield server
    server.remove()


@pytest.fixture(scope="module")
def double(shared_redis: RedisServer, model_server: Model) -> Iterator[Server]:
    """Serve the chat in two processes, on Redis."""
    hub = {"SSE_BACKEND_URL": shared_redis.url, "SSE_HUB_NAME": secrets.token_hex(8), "SSE_PRESENCE_TTL": "3"}
    server = serve(*WORKERS, environment=asking(model_server) | hub)
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


def ask(page: Page) -> None:
    page.get_by_label("Question").fill(QUESTION)
    page.get_by_role("button", name="Ask").click()


def says(page: Page, text: str, state: str) -> None:
    """Wait until the page has exactly this text, and shows this state of it."""
    expect(page.locator("article")).to_have_attribute("data-state", state)
    page.wait_for_function("text => document.querySelector('.text').textContent === text", arg=text)


def go_on(page: Page) -> None:
    page.get_by_role("button", name="Go on").click()


def process_of(page: Page) -> int:
    """Return the process that writes, as the page names it."""
    return int(page.locator(".writer").inner_text().rpartition(" ")[2])


def test_a_text_is_the_same_everywhere(server: Server, model: Model, open_: Open) -> None:
    """In a tab that is reloaded in the middle, one that stays, a phone, and a page that is opened later."""
    first = open_(url_of(server))
    ask(first)
    says(first, HALF, "writing")
    other, phone = open_(first.url), open_(first.url, **PHONE)
    first.reload()
    for page in (first, other, phone):
        says(page, HALF, "writing")
    model.released = True
    for page in (first, other, phone, open_(first.url)):
        says(page, ANSWER, "finished")
    assert len(model.bodies) == 1
    expect(first.locator(".asked")).to_have_text([QUESTION])
    expect(phone.locator("body")).to_have_js_property("scrollWidth", 390)


def test_it_is_stopped_from_another_page(server: Server, model: Model, open_: Open) -> None:
    """The request to the model is closed, and all pages say so; each of them lets it go on, to the same end."""
    first = open_(url_of(server))
    ask(first)
    phone = open_(first.url, **PHONE)
    says(phone, HALF, "writing")
    phone.get_by_role("button", name="Stop").click()
    for page in (first, phone, open_(first.url)):
        says(page, HALF, "cancelled")
    expect(first.locator(".state")).to_have_text("Stopped.")
    until(lambda: model.closed == 1)
    go_on(first)
    for page in (first, phone, open_(first.url)):
        says(page, ANSWER, "finished")


def test_the_process_that_writes_is_killed(double: Server, model: Model, open_: Open) -> None:
    """Within the lease and a third, all pages say that the answer was interrupted; another process goes on."""
    first = open_(url_of(double))
    ask(first)
    phone = open_(first.url, **PHONE)
    for page in (first, phone):
        says(page, HALF, "writing")
    victim = process_of(first)
    os.kill(victim, signal.SIGKILL)
    for page in (first, phone, open_(first.url)):
        says(page, HALF, "lost")
    go_on(phone)
    for page in (first, phone):
        says(page, ANSWER, "finished")
    assert process_of(first) != victim


def test_the_only_process_is_killed(model: Model, open_: Open) -> None:
    """Its memory is lost, and the page is not: it says so when the next process is there, and goes on."""
    server = serve(environment=asking(model))
    try:
        page = open_(url_of(server))
        ask(page)
        says(page, HALF, "writing")
        server.process.kill()
        server.process.wait()
        expect(page.get_by_role("status")).to_have_text("Reconnecting…")
        again = serve(port=server.port, environment=asking(model))
    finally:
        server.remove()
    try:
        says(page, HALF, "gone")
        go_on(page)
        says(page, ANSWER, "finished")
        says(open_(page.url), ANSWER, "finished")
    finally:
        again.remove()


def test_a_model_gets_the_conversation(single: Server, model: Model, open_: Open) -> None:
    """The earlier question and its answer; the same question is asked again, and the page shows the model's name."""
    model.released = True
    page = open_(url_of(single))
    expect(page.locator("#model")).to_have_text("half-a-model")
    ask(page)
    says(page, ANSWER, "finished")
    ask(page)
    expect(page.locator("article.finished")).to_have_count(2)
    question = {"role": "user", "content": QUESTION}
    assert [body["model"] for body in model.bodies] == ["half-a-model"] * 2
    assert model.bodies[1]["messages"] == [question, {"role": "assistant", "content": ANSWER}, question]


def test_without_a_model_it_says_so(open_: Open) -> None:
    """The built-in text is not passed off as an answer."""
    server = serve(environment={"WORD_SECONDS": "0"})
    try:
        page = open_(url_of(server))
        expect(page.locator("#model")).to_have_text("built-in text, not a language model")
        ask(page)
        says(page, (FOLDER / "words.txt").read_text().format(question=QUESTION), "finished")
    finally:
        server.remove()
