"""The Python blocks of the documents run, their tables match the code, and README and ARCHITECTURE stay short."""

import re
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from servers.kinds import KINDS, STOP_SECONDS
from sse_asgi.config import _EVERY_RULE, _RULES, Settings, _redis_url, _variable
from sse_asgi.testing import EventStreamClient

ROOT = Path(__file__).parent.parent
PAGES = ("guide", "fastapi", "llm", "deployment", "telemetry")
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in PAGES))
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]
YIELDS = find_spec("fastapi.sse") is not None


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block: str) -> None:
    """Each block runs unchanged and on its own."""
    if not YIELDS and re.search("response_class=EventSourceResponse|scope=", block):
        pytest.skip("this FastAPI is too old")
    exec(compile(block, "block", "exec"), {"__name__": "block"})


@pytest.mark.anyio
@pytest.mark.skipif(not YIELDS, reason="this FastAPI is too old")
async def test_the_first_example_works() -> None:
    """The first block of the README streams an event that is posted."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[0].values[0]), names)
    app = names["app"]
    assert isinstance(app, FastAPI)
    async with EventStreamClient(app) as client, client.stream("/rooms/lobby/events") as stream:
        async with client.stream("/rooms/lobby?text=hello", method="POST") as answer:
            published = await answer.read()
        event = await stream.next_event()
        async with client.stream("/answer?question=why") as answer:
            assert b'data: {"text":"why"}\n\n' in await answer.read()
    assert (event.event, event.data, f'"{event.id}"'.encode()) == ("said", '{"text":"hello"}', published)


@pytest.mark.anyio
@pytest.mark.skipif(not YIELDS, reason="this FastAPI is too old")
@pytest.mark.parametrize("room", ["%0A", "*", "x" * 600])
async def test_the_first_example_refuses_bad_rooms(room: str) -> None:
    """A name that is not a room is answered 422, and opens no other channel."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[0].values[0]), names)
    async with EventStreamClient(names["app"]) as client:
        async with client.stream(f"/rooms/{room}/events") as stream:
            assert stream.status_code == 422


def app_of_block(text: str) -> FastAPI:
    """Run the block that has this text, and return its application."""
    (block,) = (str(one.values[0]) for one in BLOCKS if text in str(one.values[0]))
    names: dict[str, Any] = {"__name__": "block"}
    exec(block, names)
    app = names["app"]
    assert isinstance(app, FastAPI)
    return app


@pytest.mark.anyio
async def test_def_endpoints_publish_and_stream() -> None:
    """The guide's block with a POST and a GET that are not async."""
    async with EventStreamClient(app_of_block("def order(")) as client:
        async with client.stream("/orders") as stream:
            async with client.stream("/orders?item=tea", method="POST") as answer:
                published = await answer.read()
            event = await stream.next_event()
    assert (event.data, f'"{event.id}"'.encode()) == ('{"item":"tea"}', published)


@pytest.mark.anyio
async def test_an_endpoint_gives_a_permission_as_an_app_does() -> None:
    """The guide's block refuses a reader, and `hub.disconnect` ends the stream of one that it let in."""
    app = app_of_block("/inbox")
    hub: Any = app.user_middleware[0].kwargs["hub"]
    async with EventStreamClient(app) as client:
        async with client.stream("/inbox") as stream:
            assert stream.status_code == 401
        async with client.stream("/inbox", headers={"cookie": "user=ada"}) as stream:
            await hub.publish("user:ada", "hello")
            assert (await stream.next_event()).data == "hello"
            await hub.disconnect(identity="ada")
            assert b"\nretry: " in await stream.read()


def configuration_table() -> dict[str, str]:
    """Return the README's table as a dict of variables to defaults."""
    rows = re.findall(r"^\| (`SSE_.*?) \| (.*?) ?\|", (ROOT / "README.md").read_text(), re.MULTILINE)
    pairs = [(re.findall("`(.+?)`", names), re.findall("`(.+?)`", defaults)) for names, defaults in rows]
    return {name: default for names, defaults in pairs for name, default in zip_longest(names, defaults, fillvalue="")}


def test_the_table_has_every_variable() -> None:
    """The README names each variable that is read, and no other."""
    assert sorted(configuration_table()) == sorted(map(_variable, _EVERY_RULE))


def test_the_table_has_the_defaults() -> None:
    """The defaults in the README are those of the settings."""
    table = configuration_table()
    for name in _RULES:
        field = Settings.__dataclass_fields__[name]
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default or "")
        assert table[_variable(name)] == default
    host, port, database = (table[f"SSE_REDIS_{part}"] for part in ("HOST", "PORT", "DB"))
    assert _redis_url() == f"redis://{host}:{port}/{database}"


def test_every_server_is_in_the_table_of_stops() -> None:
    """Every server has a row in docs/deployment.md, whose times are within the limit of the tests."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \|" + r" ([\d.]+) s \|" * 5 + "$", text, re.MULTILINE)}
    assert set(KINDS) == set(rows)
    assert all(float(seconds) <= STOP_SECONDS for row in rows.values() for seconds in row)


def test_every_logger_is_documented() -> None:
    """Operators filter by the names in the table of docs/deployment.md."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    documented = set(re.findall(r"^\| `(sse_asgi[.\w]*)` \|", text, re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r'^logger(?:: logging\.Logger)? = logging\.getLogger\("([^"]+)"\)', sources, re.MULTILINE))
    assert used
    assert used <= documented


def test_every_line_of_the_log_has_a_documented_event() -> None:
    """Each call of a logger passes `extra=` with an event; docs/deployment.md has the events of each logger."""
    documented: dict[str, set[str]] = {}
    for logger, events in re.findall(
        r"^\| `(sse_asgi[.\w]*)` \|.*\| (.*) ?\|$", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE
    ):
        documented[logger] = set(re.findall(r"`(\w+)`", events))
    used: dict[str, set[str]] = {logger: set() for logger in documented}
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        events = re.findall(r'about\(\s*"(\w+)"|"sse_event": "(\w+)"', text)
        if (
            logger := re.search(r'^logger(?:: logging\.Logger)? = logging\.getLogger\("([^"]+)"\)', text, re.MULTILINE)
        ) is not None:
            calls = len(re.findall(r"\blogger\.(?:debug|info|warning|error|exception)\(", text))
            assert len(events) == calls, path
            used[logger[1]] |= {own or given for own, given in events}
    assert used == documented


def test_every_metric_is_documented() -> None:
    """docs/telemetry.md names each metric and each attribute, and no others."""
    names = re.findall(r'"(sse\.[a-z_.]+)"', (ROOT / "src" / "sse_asgi" / "telemetry.py").read_text())
    rows = re.findall(r"^\| `sse\..*$", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE)
    assert set(names) == set(re.findall(r"`(sse\.[a-z_.]+)`", "\n".join(rows)))


def test_architecture_is_one_page() -> None:
    """A map of at most 90 lines; reasons stand at the head of the modules that they explain."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 90


def test_the_readme_is_short() -> None:
    """It has at most 120 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
