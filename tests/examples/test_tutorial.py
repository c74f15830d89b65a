"""The steps of the tutorial: each one runs, and its page of the documents includes its files."""

import json
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.conftest import EXAMPLES, Load, cookies, served
from real_redis.launcher import RedisServer

pytestmark = pytest.mark.anyio
DOCS = EXAMPLES.parent / "docs" / "tutorial"
HELLO = {"name": "Ada", "text": "hello"}


@pytest.fixture
def anyio_backend() -> str:
    """Return asyncio only, on which uvicorn runs the steps."""
    return "asyncio"


async def test_step_1_streams_what_it_yields(load: Load) -> None:
    """Two messages, and the end that the tutorial shows."""
    pytest.importorskip("fastapi.sse", reason="this FastAPI is too old")
    async with served(load("tutorial/step_1/chat")) as (streams, _), streams.stream("/events") as stream:
        text = (await stream.read()).decode()
    (shown,) = re.findall(r"```text\n(.*?)```", (DOCS / "1.md").read_text(), re.DOTALL)
    assert text.removesuffix("\n") == shown


@pytest.mark.parametrize("step", [2, 3])
async def test_steps_2_and_3_publish_to_everybody(load: Load, step: int) -> None:
    """Every reader gets a message."""
    async with served(load(f"tutorial/step_{step}/chat")) as (streams, http):
        async with streams.stream("/events") as one, streams.stream("/events") as other:
            assert (await http.post("/messages", json=HELLO)).status_code == 204
            for stream in (one, other):
                assert json.loads((await stream.next_event()).data) == HELLO


async def test_step_2_announces_a_gap(load: Load) -> None:
    """As the tutorial says, for the id that it shows."""
    (given,) = re.findall(r"Last-Event-ID: (\S+)'", (DOCS / "2.md").read_text())
    async with served(load("tutorial/step_2/chat")) as (streams, _):
        async with streams.stream("/events", last_event_id=given) as stream:
            assert (await stream.next_event()).event == "sse.gap"


async def test_step_4_begins_with_what_was_said(load: Load) -> None:
    """The snapshot has the id that the message had on the stream."""
    async with served(load("tutorial/step_4/chat")) as (streams, http):
        async with streams.stream("/events") as stream:
            assert (await stream.next_event()).data == "[]"
            await http.post("/messages", json=HELLO)
            message = await stream.next_event()
        async with streams.stream("/events") as stream:
            snapshot = await stream.next_event()
    assert json.loads(snapshot.data) == [{"id": message.id, **HELLO}]


async def test_step_5_asks_for_a_session(load: Load) -> None:
    """Reading and writing are refused without one; the list has the visitor."""
    async with served(load("tutorial/step_5/chat")) as (streams, http):
        assert [(await http.get("/events")).status_code, (await http.post("/messages", json=HELLO)).status_code] == [
            401
        ] * 2
        await http.post("/login", json={"name": " Ada "})
        assert (await http.post("/messages", json={"text": " "})).status_code == 422
        async with streams.stream("/events", headers=cookies(http)) as stream:
            await stream.next_event()
            assert (await stream.next_event()).event == "sse.join"
            await http.post("/messages", json={"text": "hello"})
            assert json.loads((await stream.next_event()).data) == HELLO


def test_step_6_passes_its_own_tests(tmp_path: Path) -> None:
    """In a folder of its own, as a reader of the tutorial runs them."""
    folder = shutil.copytree(EXAMPLES / "tutorial" / "step_6", tmp_path / "chat")
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:valkey")
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


async def test_step_6_is_one_chat_in_several_processes(
    load: Load, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Redis and one secret, a session and a message of one process count in the other."""
    for name, value in {"BACKEND_URL": shared_redis.url, "HUB_NAME": secrets.token_hex(8)}.items():
        monkeypatch.setenv(f"SSE_{name}", value)
    monkeypatch.setenv("SECRET", "of all processes")
    step = "tutorial/step_6/chat"
    async with served(load(step)) as one, served(load(step)) as other:
        await one.http.post("/login", json={"name": "Ada"})
        async with other.streams.stream("/events", headers=cookies(one.http)) as stream:
            await stream.next_event()
            await one.http.post("/messages", json={"text": "hello"})
            while (event := await stream.next_event()).event != "message":
                pass
        assert (await one.http.get("/health/ready")).json() == {"status": "up"}
    assert json.loads(event.data) == HELLO


@pytest.mark.parametrize("step", range(1, 7))
def test_a_page_includes_the_files_of_its_step(step: int) -> None:
    """All of them, but a page that has not changed since the step before."""
    folder = EXAMPLES / "tutorial" / f"step_{step}"
    included = set(
        re.findall(rf"^examples/tutorial/step_{step}/([\w.]+)$", (DOCS / f"{step}.md").read_text(), re.MULTILINE)
    )
    before = folder.with_name(f"step_{step - 1}")
    unchanged = {one.name for one in before.glob("*.html") if one.read_text() == (folder / one.name).read_text()}
    assert included == {one.name for one in folder.glob("*.*")} - unchanged
