"""The wheel that people install."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from browser.peers import Demo

ROOT = Path(__file__).parents[2]
CHAT = "sse_asgi/examples/fastapi_chat"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel, and return its path."""
    directory = tmp_path_factory.mktemp("wheel")
    build = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT))
    result = subprocess.run(build, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return next(directory.glob("*.whl"))


def test_the_wheel_has_the_chat_and_the_types(wheel: Path) -> None:
    """The wheel has the chat's files and the typing marker, but no caches and no tests."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {f"{CHAT}/{name}" for name in ("__init__.py", "chat.py", "index.html", "README.md")}
    wanted |= {f"sse_asgi/client/{name}" for name in ("sse-asgi.js", "sse-asgi.d.ts", "package.json", "README.md")}
    assert names >= wanted | {"sse_asgi/py.typed", "sse_asgi/__main__.py"}
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sse_asgi"}
    assert not any("__pycache__" in name for name in names)


def test_the_chat_runs_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """With only the wheel installed, the demo serves the page and a stream."""
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile")
    subprocess.run([*pip, "--disable-pip-version-check", "--target", str(target), str(wheel)], check=True)
    page = target / CHAT / "index.html"
    page.write_text(page.read_text().replace("<title>Chat</title>", "<title>Installed</title>"))
    # Not measured: the report is about the checkout's files, and these are copies.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    with Demo(cwd=tmp_path, env={**env, "PYTHONPATH": str(target)}) as demo:
        with demo.stream(room="lobby", name="Ada") as stream:
            assert '"Ada"' in stream.next("snapshot").data
        assert "<title>Installed</title>" in demo.get("")
        assert demo.get("client/sse-asgi.js") == (ROOT / "src" / "sse_asgi" / "client" / "sse-asgi.js").read_text()
