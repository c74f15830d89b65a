"""docs/migrating.md: every row of the ancestors is there, and what shows it too."""

import inspect
import re
from pathlib import Path

import pytest

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, MemoryBackend, ServerSentEvent, Settings
from sse_asgi.encoder import encode

ROOT = Path(__file__).parent.parent
LAST_ROWS = (22, 20, 16, 15, 18)
TEXT = (ROOT / "docs" / "migrating.md").read_text()
ROWS = re.findall(r"^\| (\d\.\d+) \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE)
OPTIONS = (
    Hub,
    Hub.publish,
    Hub.subscribe,
    Hub.disconnect,
    Hub.history,
    EventSourceApp,
    EventSourceResponse,
    MemoryBackend,
    ServerSentEvent,
    Settings,
    encode,
)


def test_every_row_is_there_once() -> None:
    """In its order."""
    assert [number for number, _ in ROWS] == [
        f"{ancestor}.{row}" for ancestor, last in enumerate(LAST_ROWS) for row in range(1, last + 1)
    ]


@pytest.mark.parametrize(("number", "shown"), ROWS, ids=[number for number, _ in ROWS])
def test_what_shows_a_row_exists(number: str, shown: str) -> None:
    """A test by its name, or a file; and the cell has nothing else."""
    names = re.findall("`([^`]+)`", shown)
    assert names, number
    assert shown == " ".join(f"`{name}`" for name in names)
    for name in names:
        path, _, test = name.partition("::")
        assert (ROOT / path).is_file(), name
        assert not test or re.search(rf"^(?:async )?def {test}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_our_options_are_there() -> None:
    """Each option that is named for here is one of something public."""
    known = {name for one in OPTIONS for name in inspect.signature(one).parameters}
    cells = re.findall(r"^\| (?:\d\.\d+ \| )?[^|]+ \| ([^|]+) \|", TEXT, re.MULTILINE)
    spans = [span for cell in cells for span in re.findall("`([^`]+)`", cell)]
    named = {name for span in spans for name in re.findall(r"(?<![?&\w])(\w+)=", span)}
    assert named >= {"snapshot", "cors_origins", "ping_interval"}
    assert named - known == {"channel"}  # of a URL
