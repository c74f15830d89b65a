"""The blocks of Python in the documents run, and the README keeps its bounds."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from servers.kinds import KINDS, STOP_SECONDS
from sse_asgi.config import Settings
from sse_asgi.testing import EventStreamClient

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", ROOT / "docs" / "guide.md", ROOT / "docs" / "deployment.md")
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block: str) -> None:
    """As it stands, on its own."""
    exec(compile(block, "block", "exec"), {"__name__": "block"})


@pytest.mark.anyio
async def test_the_first_example_works() -> None:
    """What the README begins with: a stream, and an event on it."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[0].values[0]), names)
    app = names["app"]
    assert isinstance(app, FastAPI)
    async with EventStreamClient(app) as client, client.stream("/rooms/lobby/events") as stream:
        async with client.stream("/rooms/lobby?text=hello", method="POST") as answer:
            published = await answer.read()
        event = await stream.next_event()
    assert (event.event, event.data, f'"{event.id}"'.encode()) == ("said", '{"text":"hello"}', published)


def test_every_setting_is_in_the_readme() -> None:
    """With the default that it has."""
    text = (ROOT / "README.md").read_text()
    for name, field in Settings.__dataclass_fields__.items():
        assert f"`SSE_{name.upper()}`" in text
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert f"`{default}`" in text


def test_every_server_is_in_the_table_of_stops() -> None:
    """With all its measurements, of which each is that of a test."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \|" + r" ([\d.]+) s \|" * 5 + "$", text, re.MULTILINE)}
    assert set(KINDS) == set(rows)
    assert all(float(seconds) <= STOP_SECONDS for row in rows.values() for seconds in row)


def test_the_readme_is_short() -> None:
    """At most 120 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
