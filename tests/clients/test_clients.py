"""docs/clients.md: each cell is what a real client's user sees, in one run of all clients against a real uvicorn."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import CLIENTS, COLUMNS, ONCE, Outcome

Record = Callable[[str, str, str, str], None]
DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"
MESSAGES = {
    "job": ["one", "two"],
    "silence": [],
    "before": ["1", "2", "3"],
    "live": ["1", "2", "3", "4", "5"],
    "deploy": ["missed", "live"],
}
TWICE = ["one", "one"]  # the content failed, and the client asked again

# What no server can help, by client and column; docs/clients.md explains each.
EXCEPTIONS = {
    ("curl", "before"): [],
    ("curl", "live"): ["1", "2"],
    ("curl", "deploy"): [],
}


def cell(outcome: Outcome, client: str, column: str) -> str:
    """Say in a few words what the user sees."""
    seen = [
        f"`{text}`" if kind == "message" else f"*{kind}*"
        for kind, text in outcome.said.get((client, column), ())
        if kind != "sse.position"
    ]
    return " ".join(seen) or "nothing"


@pytest.mark.parametrize("column", MESSAGES)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_each_message_once(outcome: Outcome, client: str, column: str) -> None:
    """In their order, and nothing else."""
    assert outcome.messages(client, column) == EXCEPTIONS.get((client, column), MESSAGES[column])


@pytest.mark.parametrize("client", CLIENTS)
def test_a_finished_job_has_run_once(outcome: Outcome, client: str) -> None:
    """However often the client asks again."""
    assert outcome.runs[client, "job"] == 1


@pytest.mark.parametrize("client", CLIENTS)
def test_events_that_are_gone_are_announced_before_those_that_are_kept(outcome: Outcome, client: str) -> None:
    """Once; a client that listens to no `sse.gap` gets the messages alone."""
    said = [(kind, text) for kind, text in outcome.said[client, "gap"] if kind != "sse.position"]
    messages = ["1"] if client in ONCE else ["1", "3", "4", "5"]
    assert [text for kind, text in said if kind == "message" and "reason" not in text] == messages
    gaps = [number for number, (kind, text) in enumerate(said) if kind == "sse.gap" or "reason" in text]
    assert gaps in ([1], [] if client in (*ONCE, "htmx 4", "Turbo", "Datastar") else [1])


@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_in_the_middle_comes_after_what_was_sent(outcome: Outcome, client: str) -> None:
    """A client that reconnects by itself runs the content again, because it has not finished."""
    runs = outcome.runs[client, "error"]
    assert outcome.messages(client, "error") == ["one"] * runs
    assert runs == len([one for one in outcome.requests[client, "error"] if one != "sse.end"]) in (1, 2)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_document_says_what_was_seen(outcome: Outcome, client: str, record: Record) -> None:
    """Each cell of the table is this run's; `./scripts/tables` writes them."""
    cells = {column: cell(outcome, client, column) for column in COLUMNS}
    for column, text in cells.items():
        record("clients", client, column, text)
    assert f"| {client} | {' | '.join(cells.values())} |" in DOCUMENT.read_text()
