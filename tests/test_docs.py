"""The blocks of Python in the documents run, and the README keeps its bounds."""

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from servers.kinds import KINDS, STOP_SECONDS
from sse_asgi.config import _EVERY_RULE, _RULES, Settings, _redis_url, _variable
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


@pytest.mark.anyio
@pytest.mark.parametrize("room", ["%0A", "*", "x" * 600])
async def test_the_first_example_refuses_what_is_no_room(room: str) -> None:
    """It is no failure of the server, and no way to another channel."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[0].values[0]), names)
    async with EventStreamClient(names["app"]) as client:
        async with client.stream(f"/rooms/{room}/events") as stream:
            assert stream.status_code == 422


def configuration_table() -> dict[str, str]:
    """Read the README's table: variables to defaults."""
    rows = re.findall(r"^\| (`SSE_.*?) \| (.*?) ?\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    pairs = [(re.findall("`(.+?)`", names), re.findall("`(.+?)`", defaults)) for names, defaults in rows]
    return {name: default for names, defaults in pairs for name, default in zip_longest(names, defaults, fillvalue="")}


def test_the_table_has_every_variable() -> None:
    """Each that is read, and no other."""
    assert sorted(configuration_table()) == sorted(map(_variable, _EVERY_RULE))


def test_the_table_has_the_defaults() -> None:
    """Those of the settings."""
    table = configuration_table()
    for name in _RULES:
        field = Settings.__dataclass_fields__[name]
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default or "")
        assert table[_variable(name)] == default
    host, port, database = (table[f"SSE_REDIS_{part}"] for part in ("HOST", "PORT", "DB"))
    assert _redis_url() == f"redis://{host}:{port}/{database}"


def test_every_server_is_in_the_table_of_stops() -> None:
    """With all its measurements, of which each is that of a test."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \|" + r" ([\d.]+) s \|" * 5 + "$", text, re.MULTILINE)}
    assert set(KINDS) == set(rows)
    assert all(float(seconds) <= STOP_SECONDS for row in rows.values() for seconds in row)


def test_the_readme_is_short() -> None:
    """At most 120 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
