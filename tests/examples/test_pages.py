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
from examples.conftest import EXAMPLES, NAMES, load_example, served
from modules import SOURCE

CLIENT = SOURCE / "client" / "sse-asgi.js"
CLIENTS = ("/client/sse-asgi.js", "/events/client.js", "/stream/client.js")
PAGES = [
    *(EXAMPLES / f"{name}.py" for name in NAMES),
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
@pytest.mark.parametrize("name", NAMES)
async def test_a_page_reads_by_the_client(name: str) -> None:
    """Its server sends the package's client, and the page makes no EventSource itself."""
    text = "".join(path.read_text() for path in PAGES if path.stem in (name, "index"))
    assert "connect(" in text
    assert "new EventSource(" not in text
    async with served(load_example(name)) as (_, http):
        page = (await http.get("/")).text
        answers = [await http.get(url) for url in CLIENTS if url in page]
    assert [answer.content for answer in answers] == [CLIENT.read_bytes()]
    assert answers[0].headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_page_needs_nothing_from_elsewhere(path: Path) -> None:
    """Sources, links and imports of a page do not name another host."""
    text = path.read_text()
    assert not re.search(r"""(?:src|href|action|from|import|url\()\s*=?\s*\(?["']?(?:https?:)?//""", text)
