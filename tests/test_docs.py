"""The blocks of the documents run, their links lead somewhere, their tables match the code, and README stays short."""

import logging
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI

from servers.kinds import KINDS, STOP_SECONDS
from sse_asgi.config import _EVERY_RULE, _RULES, Settings, _redis_url, _variable
from sse_asgi.testing import EventStreamClient
from test_package import WINGS

ROOT = Path(__file__).parent.parent
SOURCE = "https://github.com/sse-asgi/sse-asgi/blob/main/"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = sorted({*ROOT.glob("*.md"), *PAGES, *(ROOT / "examples").rglob("*.md"), *ROOT.glob("src/**/*.md")})
YIELDS = find_spec("fastapi.sse") is not None
# Blocks that are neither run nor parsed here, and how they are checked instead.
ELSEWHERE = {
    "nginx": "tests/proxies runs them",
    "haproxy": "tests/proxies runs it",
    "caddyfile": "its heading says that it was not run",
    "yaml": "tests/browser/test_site.py parses them, because only the site's environment has a parser",
    "jsx": "tests/browser/test_guides.py runs it",
    "text": "no code: lists that tests read, and output",
}


class Block(NamedTuple):
    """One block of code of a document, without the lines of its fence."""

    name: str
    language: str
    text: str
    reason: str
    """Why it is not run, as the comment above the block says; empty if it is run."""


def blocks_of(path: Path) -> Iterator[Block]:
    """Find each block of a document; one that is included from a file is not a block."""
    found = re.finditer(
        r"(?:<!-- not run: ([^>]+) -->\n)?^```(\w*).*?\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL
    )
    for number, match in enumerate(found):
        if not match[3].startswith("--8<--"):
            name = f"{path.relative_to(ROOT).with_suffix('').as_posix().removeprefix('docs/')}-{number}"
            yield Block(name, match[2], match[3], match[1] or "")


ALL_BLOCKS = [block for path in (ROOT / "README.md", *PAGES) for block in blocks_of(path)]
BLOCKS = [
    pytest.param(block.text, id=block.name) for block in ALL_BLOCKS if block.language == "python" and not block.reason
]


@pytest.fixture
def levels() -> Iterator[None]:
    """Restore the levels of the package's loggers, of which a block silences one."""
    yield
    for name in logging.root.manager.loggerDict:
        if name.startswith("sse_asgi"):
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.mark.usefixtures("levels")
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block: str) -> None:
    """Each block runs unchanged and on its own."""
    if not YIELDS and re.search("response_class=EventSourceResponse|scope=", block):
        pytest.skip("this FastAPI is too old")
    exec(compile(block, "block", "exec"), {"__name__": "block"})


def of_language(*languages: str) -> list[Any]:
    """Return the blocks in these languages as parameters of a test."""
    return [pytest.param(block.text, id=block.name) for block in ALL_BLOCKS if block.language in languages]


@pytest.mark.parametrize("block", of_language("sh"))
def test_a_block_for_a_shell_can_be_read(block: str) -> None:
    """A shell can parse it, its files exist, and pip installs extras that the package has."""
    subprocess.run(["sh", "-n"], input=block, text=True, check=True)
    project = (ROOT / "pyproject.toml").read_text()
    extras = ",".join(re.findall(r"sse-asgi\[([\w,]+)\]", block)).split(",")
    assert [one for one in extras if one and not re.search(rf"^{one} = \[", project, re.MULTILINE)] == []
    files = re.findall(r"^(?:python )?((?:\./scripts/|examples/)\S+)", block, re.MULTILINE)
    assert [one for one in files if not (ROOT / one).is_file()] == []


@pytest.mark.parametrize("block", of_language("js"))
def test_a_block_of_javascript_can_be_read(block: str) -> None:
    """It is a module without an error of syntax."""
    node = ["node", "--input-type=module", "--check"]
    result = subprocess.run(node, input=block, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("block", of_language("html"))
def test_a_block_of_html_is_balanced(block: str) -> None:
    """Each element that is opened is closed."""
    open_elements: list[str] = []

    class Elements(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"input", "meta", "link", "br", "img"}:
                open_elements.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_elements.pop() == tag

    Elements().feed(block)
    assert open_elements == []


def test_every_block_is_checked() -> None:
    """Each block has a language, and each language has a check."""
    here = {"python", "sh", "js", "html"}
    assert [block.name for block in ALL_BLOCKS if block.language not in here | ELSEWHERE.keys()] == []
    for block in ALL_BLOCKS:
        assert not block.reason or block.language == "python", f"{block.name}: only Python is run"


def indented(text: str) -> list[str]:
    """Return the first line of each block of code that is indented, not fenced."""
    found, in_list, before = [], False, ""
    for line in without_blocks(text).split("\n"):
        in_list = bool(re.match(r" *([-*]|\d+\.) |:::|!!!", line)) or (in_list and line[:1] in ("", " "))
        if line.startswith("    ") and not before and not in_list:
            found.append(line)
        before = line
    return found


def without_blocks(text: str) -> str:
    """Return a document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.stem)
def test_no_block_is_indented(path: Path) -> None:
    """Fences have a language, by which a block is checked."""
    assert indented(path.read_text()) == []


def test_indented_blocks_are_found() -> None:
    """After a paragraph, but not within a list."""
    assert indented("one\n\n    two\n    three\n\n- four\n\n    five\n") == ["    two"]


# Links


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them, and those of the names in the reference."""
    text = without_blocks(path.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}
    return made | set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """To files of the repository, also by their address there, and to headings.

    A page of docs/ names files elsewhere by their address, because the site does not have them.
    """
    top = ROOT / "docs" if path in PAGES else ROOT
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub("`[^`]*`", "", without_blocks(path.read_text()))):
        name, _, anchor = target.removeprefix(SOURCE).partition("#")
        if name.startswith(("http:", "https:", "mailto:")):
            continue
        file = ROOT / name if target.startswith(SOURCE) else path.parent / name if name else path
        assert file.exists(), target
        assert file.resolve().is_relative_to(ROOT if target.startswith(SOURCE) else top), f"{SOURCE}..., not {target}"
        assert not anchor or anchor in anchors_of(file), target


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_documents_that_the_code_names_exist(path: Path) -> None:
    """In errors, docstrings and comments."""
    assert [name for name in re.findall(r"\bdocs/[\w./-]+\.md", path.read_text()) if not (ROOT / name).is_file()] == []


# Examples of the documents


def app_of_block(text: str) -> FastAPI:
    """Run the block that has this text, and return its application."""
    (block,) = (str(one.values[0]) for one in BLOCKS if text in str(one.values[0]))
    names: dict[str, Any] = {"__name__": "block"}
    exec(block, names)
    app = names["app"]
    assert isinstance(app, FastAPI)
    return app


@pytest.mark.anyio
@pytest.mark.skipif(not YIELDS, reason="this FastAPI is too old")
async def test_the_first_example_works() -> None:
    """The first block of the README streams what it yields."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[0].values[0]), names)
    async with EventStreamClient(names["app"]) as client, client.stream("/answer?question=why") as answer:
        assert b'data: {"text":"why"}\n\n' in await answer.read()


@pytest.mark.anyio
async def test_the_second_example_works() -> None:
    """The hub of the README sends what is published, and serves the client for pages."""
    names: dict[str, Any] = {"__name__": "block"}
    exec(str(BLOCKS[1].values[0]), names)
    async with EventStreamClient(names["app"]) as client, client.stream("/events/?channel=news") as stream:
        await names["hub"].publish("news", "hello")
        assert (await stream.next_event()).data == "hello"
        async with client.stream("/events/client.js") as script:
            assert b"connect" in await script.read()


@pytest.mark.anyio
async def test_the_rooms_of_the_hub_work() -> None:
    """The block of docs/hub.md streams an event that is posted."""
    app = app_of_block("async def say(")
    async with EventStreamClient(app) as client, client.stream("/rooms/lobby/events") as stream:
        async with client.stream("/rooms/lobby?text=hello", method="POST") as answer:
            published = await answer.read()
        event = await stream.next_event()
    assert (event.event, event.data, f'"{event.id}"'.encode()) == ("said", '{"text":"hello"}', published)


@pytest.mark.anyio
@pytest.mark.parametrize("room", ["%0A", "*", "x" * 600])
async def test_the_rooms_of_the_hub_refuse_bad_names(room: str) -> None:
    """A name that is not a room is answered 422, and opens no other channel."""
    async with EventStreamClient(app_of_block("async def say(")) as client:
        async with client.stream(f"/rooms/{room}/events") as stream:
            assert stream.status_code == 422


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
    """Return the table of docs/reference/settings.md as a dict of variables to defaults."""
    text = (ROOT / "docs" / "reference" / "settings.md").read_text()
    rows = re.findall(r"^\| (`SSE_.*?) \| (.*?) ?\|", text, re.MULTILINE)
    pairs = [(re.findall("`(.+?)`", names), re.findall("`(.+?)`", defaults)) for names, defaults in rows]
    return {name: default for names, defaults in pairs for name, default in zip_longest(names, defaults, fillvalue="")}


def test_the_table_has_every_variable() -> None:
    """It names each variable that is read, and no other."""
    assert sorted(configuration_table()) == sorted(map(_variable, _EVERY_RULE))


def test_the_table_has_the_defaults() -> None:
    """They are those of the settings."""
    table = configuration_table()
    for name in _RULES:
        field = Settings.__dataclass_fields__[name]
        default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default or "")
        assert table[_variable(name)] == default
    host, port, database = (table[f"SSE_REDIS_{part}"] for part in ("HOST", "PORT", "DB"))
    assert _redis_url() == f"redis://{host}:{port}/{database}"


def test_every_server_is_in_the_table_of_stops() -> None:
    """Every server has a row in docs/shutdown.md, whose times are within the limit of the tests."""
    text = (ROOT / "docs" / "shutdown.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| (.+?) \|" + r" ([\d.]+) s \|" * 5 + "$", text, re.MULTILINE)}
    assert set(KINDS) == set(rows)
    assert all(float(seconds) <= STOP_SECONDS for row in rows.values() for seconds in row)


def test_every_logger_is_documented() -> None:
    """Operators filter by the names in the table of docs/telemetry.md."""
    text = (ROOT / "docs" / "telemetry.md").read_text()
    documented = set(re.findall(r"^\| `(sse_asgi[.\w]*)` \|", text, re.MULTILINE))
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    used = set(re.findall(r'^logger(?:: logging\.Logger)? = logging\.getLogger\("([^"]+)"\)', sources, re.MULTILINE))
    assert used
    assert used <= documented


def test_every_line_of_the_log_has_a_documented_event() -> None:
    """Each call of a logger passes `extra=` with an event; docs/telemetry.md has the events of each logger."""
    documented: dict[str, set[str]] = {}
    for logger, events in re.findall(
        r"^\| `(sse_asgi[.\w]*)` \|.*\| (.*) ?\|$", (ROOT / "docs" / "telemetry.md").read_text(), re.MULTILINE
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


def test_every_page_is_in_the_navigation() -> None:
    """Each page of docs/ is in zensical.toml, once."""
    listed = re.findall(r'= "([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text())
    assert sorted(listed) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in PAGES)


def test_the_picture_of_the_wings_is_right() -> None:
    """docs/diagrams/wings.svg has wings in the order in which they may import each other."""
    picture = (ROOT / "docs" / "diagrams" / "wings.svg").read_text()
    shown = [name.strip("/") for name in re.findall(r'class="name"[^>]*>([^<]+)<', picture)]
    levels = {wing: level for level, row in enumerate(WINGS) for wing in row}
    order = [levels["" if name == "sse_asgi" else name.partition(",")[0]] for name in shown]
    assert order == sorted(order, reverse=True)
    assert {name for name in levels if name.startswith("_")} - {*shown} == {
        "_annotations",
        "_cli",
        "_openapi",
        "_demo",
        "__main__",
    }


def test_architecture_is_one_page() -> None:
    """A map of at most 90 lines; reasons stand at the head of the modules that they explain."""
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 90


def test_the_comparison_is_that_of_the_benchmarks() -> None:
    """Each figure of the README is the median of a table in benchmarks/README.md."""
    measured = (ROOT / "benchmarks" / "README.md").read_text()
    tables = [
        measured.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0]
        for name in ("fanout", "latency")
    ]
    rows = re.findall(r"^\| ([^|]+) \| ([\d.,]+) \| ([\d.,]+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) > 4
    for name, *figures in rows:
        cells = [
            re.findall(rf"^\| {re.escape(name)}(?:, [^|]*)? \| (.*) \|$", table, re.MULTILINE)[0].split(" | ")
            for table in tables
        ]
        assert figures == [cells[0][0].split()[0], cells[1][1].split()[0]], name


def test_the_readme_is_short() -> None:
    """It has at most 120 lines."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
