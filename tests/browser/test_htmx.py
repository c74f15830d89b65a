"""A finished job under htmx, with the snippets of the guide."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse
from starlette.types import ASGIApp

from browser.peers import Wire
from sse_asgi import EventSourceResponse

MODULES = Path(__file__).with_name("node_modules")
GUIDE = (Path(__file__).parents[2] / "docs" / "htmx.md").read_text()
SCRIPTS = {
    2: ("htmx.org/dist/htmx.js", "htmx-ext-sse/dist/sse.js"),
    4: ("htmx4/dist/htmx.js", "htmx4/dist/ext/hx-sse.js"),
}


def recipe(version: int) -> str:
    """Return the guide's snippet for a version of htmx."""
    found = re.search(rf"```html\n(<!-- htmx {version} -->\n.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(params=SCRIPTS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        errors: list[object] = []
        context.on("weberror", lambda error: errors.append(error.error))
        yield context.new_page()
        assert errors == []


def file(path: Path) -> Callable[[Request], ASGIApp]:
    return lambda _: FileResponse(path)


def serve(wire: Wire, version: int, body: str) -> None:
    """Answer the root with a page that has this body and htmx."""
    tags = []
    for script in SCRIPTS[version]:
        wire.answers[f"/{script}"] = file(MODULES / script)
        tags.append(f'<script src="/{script}"></script>')
    page = f"<!doctype html><title>.</title>{''.join(tags)}<body>{body}"
    wire.answers["/"] = lambda _: HTMLResponse(page)


def test_a_finished_job_runs_once(page: Page, wire: Wire, version: int) -> None:
    """The page shows every event of the job; htmx closes the stream at the end and does not reconnect."""
    runs: list[int] = []

    def job() -> Iterator[str]:
        runs.append(1)
        yield "<b>one</b>"
        yield "<i>two</i>"

    wire.answers["/job"] = lambda _: EventSourceResponse(job(), retry=50)
    serve(wire, version, recipe(version))
    page.add_init_script(
        'for (const name of ["htmx:sseClose", "htmx:sse:close"])'
        " addEventListener(name, () => { window.ended = true; }, true);"
    )
    page.goto(wire.url)
    page.wait_for_function("window.ended")
    expect(page.locator("b, i")).to_have_text(["one", "two"])
    assert len(wire.asked("/job")) == 1
    assert len(runs) == 1
