"""docs/comparison.md: each cell is what one run of all peers shows, or names its place in a peer's documents."""

import re
from collections.abc import Callable
from datetime import date

import pytest

from strangers.comparison import page, read
from strangers.comparison.peers import OURS, Peer, peers
from strangers.comparison.run import observe

Record = Callable[[str, str, str, str], None]
Observed = dict[str, dict[str, str]]
FACTS = [(table, fact) for table, facts in page.TABLES.items() for fact in facts]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Peer]:
    """Return the peers that run here."""
    return peers(tmp_path_factory.mktemp("nginx"))


@pytest.fixture(scope="module")
def observed(running: dict[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Observed:
    """Run all peers once."""
    return observe(running, tmp_path_factory.mktemp("comparison"))


def written(table: str, fact: str) -> dict[str, str]:
    """Return the cells of the page, by column."""
    (text,) = re.findall(rf"<!-- table {table} -->(.*?)<!-- end -->", page.DOCUMENT.read_text(), re.DOTALL)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    (cells,) = (cells for first, *cells in rows if first == fact)
    return dict(zip(page.COLUMNS, cells, strict=True))


@pytest.mark.parametrize(("table", "fact"), FACTS)
def test_the_page_says_what_was_seen(table: str, fact: str, observed: Observed, record: Record) -> None:
    """Each cell of the table is this run's; `./scripts/tables` writes them."""
    cells = page.row(fact, observed)
    for column in page.COLUMNS:
        record(table, fact, column, cells[column])
    assert written(table, fact) == cells


@pytest.mark.parametrize("table", page.TABLES)
def test_the_page_says_when_and_with_which_versions(table: str, running: dict[str, Peer], record: Record) -> None:
    """The versions are those that are pinned; ours is the one of the day of the run."""
    cells = page.versions(running)
    for column in page.COLUMNS:
        record(table, page.VERSION, column, cells[column])
    dated = written(table, page.VERSION)
    assert all(date.fromisoformat(text.split(", ")[1]) for text in dated.values())
    for column in {*page.COLUMNS} - {OURS}:
        assert dated[column].split(", ")[0] == cells[column].split(", ")[0]


@pytest.mark.parametrize("fact", page.COSTS)
def test_the_page_repeats_the_benchmarks(fact: str, record: Record) -> None:
    """Each figure is the one of benchmarks/README.md."""
    cells = page.costs(fact)
    for column in page.COLUMNS:
        record("comparison_costs", fact, column, cells[column])
    assert written("comparison_costs", fact) == cells


def test_nothing_is_lost_or_changed_silently_here(observed: Observed) -> None:
    """Bold is for silent losses and for text that becomes a field."""
    assert not [text for text in observed[OURS].values() if "**" in text]


def test_what_was_read_has_a_place() -> None:
    """Each place is a line or a page of a tagged version or of a commit."""
    for column in read.CELLS.values():
        for _, place in column.values():
            assert re.fullmatch(
                r"https://github\.com/[\w./-]+/blob/(v[\d.]+|[0-9a-f]{12})/[\w./-]+(\?plain=1)?(#L[\d-]+L?\d*)?", place
            )
