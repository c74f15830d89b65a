"""The guides for Turbo, Datastar, htmx and React: their blocks of Python and of the page, in Chromium."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from browser.peers import Example, until
from examples.conftest import load_example

TESTS = Path(__file__).parents[1]
DOCS = TESTS.parent / "docs"
CLIENTS = TESTS / "clients" / "node_modules"
SCRIPTS = {
    "turbo": ('<script type="module" src="/clients/@hotwired/turbo/dist/turbo.es2017-esm.js"></script>', ""),
    "datastar": ('<script type="module" src="/clients/@starfederation/datastar/dist/datastar.js"></script>', ""),
    "htmx 2": ('<script src="/browser/htmx.org/dist/htmx.js"></script>', "htmx-ext-sse/dist/sse.js"),
    "htmx 4": ('<script src="/browser/htmx4/dist/htmx.js"></script>', "htmx4/dist/ext/hx-sse.js"),
}
TAGS = "<b>hello</b> & <i>more</i>"

Show = Callable[[ASGIApp, str], tuple[Page, str]]


@pytest.fixture
def show(browser: Browser) -> Iterator[Show]:
    """Return a function that serves an application and a page with this HTML, and opens the page."""
    errors: list[object] = []
    with ExitStack() as stack:

        def opened(app: ASGIApp, html: str) -> tuple[Page, str]:
            static = (("/clients", CLIENTS), ("/browser", TESTS / "browser" / "node_modules"))
            mounts = [Mount(path, StaticFiles(directory=folder)) for path, folder in static]
            page = HTMLResponse(f"<!doctype html><meta charset=utf-8><title>.</title>{html}")
            example = Example(Starlette(routes=[Route("/page", lambda _: page), *mounts, Mount("/", app)]))
            url = stack.enter_context(example).url
            context = stack.enter_context(browser.new_context())
            context.on("weberror", lambda error: errors.append(error.error))
            tab = context.new_page()
            tab.goto(f"{url}/page")
            return tab, url

        yield opened
    assert errors == []


def blocks(page: str, language: str, start: str = "") -> list[str]:
    """Return the blocks of a guide in a language."""
    return re.findall(rf"```{language}\n({start}.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("client", SCRIPTS)
def test_a_list_lives(client: str, show: Show) -> None:
    """A page shows the list and what is added, as text, and once more after a reload."""
    guide = client.partition(" ")[0]
    (html,) = blocks(guide, "html", f"<!-- {client}, a list -->" if guide == "htmx" else "")
    (source,) = [block for block in blocks(guide, "python") if "/lines" in block]
    names: dict[str, Any] = {"__name__": guide}
    exec(source, names)
    script, extension = SCRIPTS[client]
    extra = f'<script src="/browser/{extension}"></script>' if extension else ""
    page, url = show(names["app"], f"{script}{extra}<body>{html}")
    texts: list[str] = []
    for number in (1, 2):
        texts.append(f"{TAGS} {number}")
        until(lambda: names["hub"].state == "up" and names["hub"].stats().connections)
        assert page.request.post(f"{url}/lines?text={quote(texts[-1])}").ok
        expect(page.get_by_role("listitem")).to_have_text(texts)
        page.reload()
        expect(page.get_by_role("listitem")).to_have_text(texts)


def test_the_hook_shows_messages(show: Show, tmp_path: Path) -> None:
    """In StrictMode: the snapshot, then each message once; and it says that it is streaming."""
    hook, chat = blocks("react", "jsx")
    (tmp_path / "messages.js").write_text(hook)
    (tmp_path / "chat.jsx").write_text(chat)
    (tmp_path / "page.jsx").write_text(
        'import {StrictMode} from "react"; import {createRoot} from "react-dom/client";'
        'import {Chat} from "./chat.jsx";'
        "createRoot(document.body).render(<StrictMode><Chat/></StrictMode>);"
    )
    client = TESTS.parent / "src" / "sse_asgi" / "client" / "sse-asgi.js"
    options = ["--bundle", "--jsx=automatic", "--log-level=error", f"--alias:sse-asgi={client}"]
    command = [str(CLIENTS / ".bin" / "esbuild"), "page.jsx", "--loader:.js=jsx", *options]
    environment = {"NODE_PATH": str(CLIENTS), "PATH": "/usr/bin:/bin"}
    script = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    example = load_example("tutorial/step_4/chat")
    page, url = show(example.app, f"<body><script>{script}</script>")
    expect(page.get_by_role("status")).to_have_text("streaming")
    for text in ("one", TAGS):
        assert page.request.post(f"{url}/messages", data={"name": "Ada", "text": text}).ok
    expect(page.get_by_role("listitem")).to_have_text(["Ada: one", f"Ada: {TAGS}"])
    page.reload()
    expect(page.get_by_role("listitem")).to_have_text(["Ada: one", f"Ada: {TAGS}"])
