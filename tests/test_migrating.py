"""docs/migrating.md: every row of the ancestors is there, and what shows it too."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAST_ROWS = (22, 20, 16, 15, 18)
ROWS = re.findall(r"^\| (\d\.\d+) \|.*\| ([^|]+) \|$", (ROOT / "docs" / "migrating.md").read_text(), re.MULTILINE)


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


def test_links_lead_somewhere() -> None:
    """To files and to headings of this and other documents."""
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "docs" / "migrating.md").read_text()):
        path, _, anchor = target.partition("#")
        file = ROOT / "docs" / (path or "migrating.md")
        assert file.is_file(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, (
            target
        )
