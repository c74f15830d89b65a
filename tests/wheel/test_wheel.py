"""The wheel that people install."""

import json
import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

from browser.peers import Demo

ROOT = Path(__file__).parents[2]
PYRIGHT = Path(__file__).parent / "node_modules/pyright/index.js"
CHAT = "sse_asgi/examples/fastapi_chat"


def test_the_wheel_has_the_chat_and_the_types(wheel: Path) -> None:
    """The wheel has the chat's files and the typing marker, but no caches and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {f"{CHAT}/{name}" for name in ("__init__.py", "chat.py", "index.html", "README.md")}
    wanted |= {f"sse_asgi/client/{name}" for name in ("sse-asgi.js", "sse-asgi.d.ts", "package.json", "README.md")}
    assert names >= wanted | {"sse_asgi/py.typed", "sse_asgi/__main__.py"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sse_asgi"}
    assert not any("__pycache__" in name for name in names)


def test_the_chat_runs_from_the_wheel(site: Path, tmp_path: Path) -> None:
    """With only the wheel installed, the demo serves the page and a stream."""
    page = site / CHAT / "index.html"
    page.write_text(page.read_text().replace("<title>Chat</title>", "<title>Installed</title>"))
    # Not measured: the report is about the checkout's files, and these are copies.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with Demo(cwd=tmp_path, env={**env, "PYTHONPATH": str(site)}) as demo:
        with demo.stream(room="lobby", name="Ada") as stream:
            assert '"Ada"' in stream.next("snapshot").data
        assert "<title>Installed</title>" in demo.get("")
        assert demo.get("client/sse-asgi.js") == (ROOT / "src" / "sse_asgi" / "client" / "sse-asgi.js").read_text()


def test_every_public_name_has_a_known_type(site: Path) -> None:
    """A user's strict type checker sees no unknown type: pyright rates the package at 100 %."""
    env = {**os.environ, "PYTHONPATH": str(site), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = ("node", str(PYRIGHT), "--verifytypes", "sse_asgi", "--ignoreexternal", "--outputjson")
    result = subprocess.run(command, cwd=site, env=env, capture_output=True, text=True, check=False)
    types = json.loads(result.stdout)["typeCompleteness"]
    unknown = {
        symbol["name"]: [problem["message"] for problem in symbol["diagnostics"]]
        for symbol in types["symbols"]
        if symbol["diagnostics"]
    }
    assert (unknown, types["completenessScore"]) == ({}, 1.0)
    assert "sse_asgi.backends.redis" in [module["name"] for module in types["modules"]]


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_readme_has_links_that_work_on_a_package_index(metadata: Message) -> None:
    """Each is the address of a file of the repository, or an address already in the README."""
    base = f"{dict(url.split(', ') for url in metadata.get_all('Project-URL', ()))['Source']}/blob/main/"
    inside = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text())
    links = re.findall(r"\]\(([^)#]+)", str(metadata.get_payload()))
    assert {"docs/index.md", "LICENSE"} <= set(inside)
    assert [link for link in links if not link.startswith("https://")] == []
    assert [link.removeprefix(base) for link in links if link.startswith(base)] == inside
    assert [name for name in inside if not (ROOT / name).is_file()] == []


def test_the_package_index_links_to_the_project(metadata: Message) -> None:
    """The labels are those that PyPI knows."""
    urls = dict(url.split(", ") for url in metadata.get_all("Project-URL", ()))
    assert sorted(urls) == ["Changelog", "Documentation", "Issues", "Source"]
    files = [url.partition("/blob/main/")[2] for url in urls.values() if "/blob/main/" in url]
    assert [name for name in files if not (ROOT / name).is_file()] == []
