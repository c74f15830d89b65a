"""All examples: they start, and their pages are safe."""

import re
import runpy
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from browser.peers import PATIENCE, free_port, until
from examples.conftest import EXAMPLES, NAMES, load_example, read_function, served

PAGES = [
    *(EXAMPLES / f"{name}.py" for name in NAMES),
    EXAMPLES / "read.js",
    *(EXAMPLES / "dashboard" / "page").iterdir(),
    EXAMPLES / "progress" / "index.html",  # its other page loads htmx, which parses HTML
    EXAMPLES / "llm_chat" / "index.html",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_server_runs_it(name: str) -> None:
    """`uvicorn x:app` in its folder serves the page, and stops at a signal."""
    path = EXAMPLES / name
    port = free_port()
    command = (sys.executable, "-m", "uvicorn", f"{path.name}:app", "--port", str(port), "--log-level", "warning")
    with subprocess.Popen(command, cwd=path.parent, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: process.poll() is not None or answers(port))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
                page = response.read().decode()
            process.terminate()
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert page.startswith("<!doctype html>")
    assert errors == ""


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_python_runs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script passes its application to uvicorn."""
    given: list[Any] = []
    monkeypatch.setattr(uvicorn, "run", given.append)
    names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert given == [names["app"]]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_page_shows_text_as_text(path: Path) -> None:
    """No page parses text of a server as HTML."""
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", path.read_text())


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in NAMES if "/" not in name])
async def test_a_page_reads_by_the_function_of_the_guide(name: str) -> None:
    """The page loads read.js, which its server sends, and makes no EventSource itself."""
    text = (EXAMPLES / f"{name}.py").read_text()
    assert '<script src="read.js"></script>' in text
    assert "new EventSource(" not in text
    async with served(load_example(name)) as (_, http):
        answer = await http.get("/read.js")
    assert answer.text == (EXAMPLES / "read.js").read_text()
    assert answer.headers["content-type"].startswith("text/javascript")


def test_the_function_is_that_of_the_guide() -> None:
    """read.js has the guide's code; comments may differ."""
    ours, guides = (re.sub(r"\s*//.*", "", text) for text in ((EXAMPLES / "read.js").read_text(), read_function()))
    assert ours == guides
    assert ours.count("new EventSource(") == 1


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_page_needs_nothing_from_elsewhere(path: Path) -> None:
    """Sources, links and imports of a page do not name another host."""
    text = path.read_text()
    assert not re.search(r"""(?:src|href|action|from|import|url\()\s*=?\s*\(?["']?(?:https?:)?//""", text)
