"""The AI SDK's `useChat({resume: true})` in a page, with the recipe of docs/llm.md."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route

from browser.peers import Example
from clients import runs_server
from clients.runs_server import WORDS, recipe, starts

CLIENTS = Path(__file__).parents[1] / "clients"
TEXT = "".join((*WORDS, "Why?"))
PAGE = '<!doctype html><meta charset="utf-8"><title>.</title><body><script src="/page.js"></script>'


@pytest.fixture(scope="module")
def script() -> bytes:
    """Bundle the page."""
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="production"', "--log-level=error"]
    command = [str(CLIENTS / "node_modules" / ".bin" / "esbuild"), "use_chat.jsx", *options]
    return subprocess.run(command, cwd=CLIENTS, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture
def url(script: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the page and the recipe, whose model takes its time."""
    monkeypatch.setattr(runs_server, "WORD_SECONDS", 0.5)

    async def page(_: Request) -> Response:
        return HTMLResponse(PAGE)

    async def bundle(_: Request) -> Response:
        return Response(script, media_type="text/javascript")

    starts.clear()
    app = Starlette(routes=[Route("/", page), Route("/page.js", bundle), Mount("/", recipe("ai_sdk"))])
    with Example(app) as server:
        yield f"{server.url}/?chat=c"


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context() as context:
        errors: list[object] = []
        context.on("weberror", lambda error: errors.append(error.error))
        yield context
        assert errors == []


def opened(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    expect(page.get_by_role("status")).to_be_visible()
    return page


def text_of(page: Page, status: str = "ready") -> str:
    """Wait for the end; return the answer."""
    expect(page.get_by_role("status")).to_have_text(status)
    return page.locator(".assistant").evaluate("node => node.textContent")  # type: ignore[no-any-return]


def test_it_resumes(context: BrowserContext, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is reloaded in the middle, and a second one, have the whole text of one run; later, none is run."""
    page = opened(context, url)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".assistant")).to_contain_text("2: ")
    page.reload()
    other = opened(context, url)
    for one in (page, other):
        expect(one.locator(".assistant")).to_contain_text("3: ")
    monkeypatch.setattr(runs_server, "WORD_SECONDS", 0.01)
    assert (text_of(page), text_of(other)) == (TEXT, TEXT)
    late = opened(context, url)
    expect(late.get_by_role("status")).to_have_text("ready")
    assert starts["ai_sdk"] == 1


def test_it_is_stopped(context: BrowserContext, url: str) -> None:
    """By the recipe's own request, and every page says so."""
    page = opened(context, url)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".assistant")).to_contain_text("2: ")
    other = opened(context, url)
    expect(other.locator(".assistant")).to_contain_text("2: ")
    other.get_by_role("button", name="Stop").click()
    assert TEXT.startswith(text_of(page, "error"))
    for one in (page, other):
        expect(one.get_by_role("alert")).to_have_text("This answer was stopped.")
