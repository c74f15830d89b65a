"""The test kit, as a user has it who has installed the wheel."""

import os
import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest

pytest_plugins = ["sse_asgi.testing.plugin"]
"""

TESTS = """
import sse_asgi
from sse_asgi import EventSourceApp, Hub, MemoryBackend
from sse_asgi.testing.contract import BackendContract


def test_the_wheel_is_used():
    assert sse_asgi.__file__.startswith({site!r})


def test_a_stream(sse_client):
    hub = Hub()
    client = sse_client(EventSourceApp(hub))
    with client.stream("/") as stream:
        client.call(hub.publish, "default", "hello")
        assert stream.next_event().data == "hello"


class TestMemory(BackendContract):
    random_logs = 1

    def make_backend(self, **options):
        return MemoryBackend(**options)


def test_an_assertion_is_explained():
    class TestBroken(TestMemory):
        def make_backend(self, **options):
            return MemoryBackend(**{{**options, "history_size": 1}})

    import anyio
    anyio.run(TestBroken().test_history_is_bounded_by_both_ends)
"""


def run(site: Path, where: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # Not measured: the report is about the checkout's files, and these are copies.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_", "PYTEST"))}
    env["PYTHONPATH"] = str(site)
    return subprocess.run((sys.executable, *command), cwd=where, env=env, capture_output=True, text=True, check=False)


def test_the_plugin_and_the_contract_work_from_the_wheel(site: Path, tmp_path: Path) -> None:
    """One line in conftest.py gives the fixtures; pytest explains the assertions of the contract."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_user.py").write_text(TESTS.format(site=str(site)))
    result = run(site, tmp_path, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_user.py")
    assert "\n1 failed, " in result.stdout
    assert "FAILED test_user.py::test_an_assertion_is_explained" in result.stdout
    assert "== ['2', '3']" in result.stdout


def test_the_kit_needs_neither_pytest_nor_uvicorn(site: Path, tmp_path: Path) -> None:
    """Both are imported by what is about them only; importing the library imports no part of the kit."""
    code = """
import sys
sys.modules.update(pytest=None, uvicorn=None, fastapi=None, redis=None)
import sse_asgi
assert not [name for name in sys.modules if name.startswith("sse_asgi.testing")]
from sse_asgi.testing import *
with SyncEventStreamClient(sse_asgi.EventSourceApp(sse_asgi.Hub())) as client, client.stream("/") as stream:
    print(stream.status_code)
"""
    assert run(site, tmp_path, "-W", "error", "-c", code).stdout == "200\n"
