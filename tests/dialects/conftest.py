"""One run of all clients of all protocols against one real server; the tests judge what their users saw."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from servers.processes import Server

TESTS = Path(__file__).parents[1]
PATIENCE = 60.0
SCENARIOS = "text,error,interruption,empty,published,passed_on,unfinished"


class Seen(NamedTuple):
    """What the user of a client has at the end: the text, and the exception that was raised, if one was."""

    text: str
    error: str | None
    message: str | None


Run = dict[tuple[str, str], Seen]


@pytest.fixture(scope="session")
def dialect_server() -> Iterator[Server]:
    command = ("uvicorn", "dialects.server:app", "--app-dir", str(TESTS), "--port", "{port}", "--log-level", "error")
    server = Server.start(command)
    yield server
    server.remove()


@pytest.fixture(scope="session")
def seen(dialect_server: Server) -> Run:
    """Let each client read each scenario once."""
    arguments = (f"http://127.0.0.1:{dialect_server.port}", SCENARIOS)
    python = subprocess.Popen(
        [sys.executable, "-m", "dialects.in_python", *arguments], cwd=TESTS, stdout=subprocess.PIPE, text=True
    )
    # Read from standard input, so that packages are looked up in the working directory.
    node = subprocess.run(
        ["node", "--input-type=module", "-", *arguments],
        cwd=TESTS / "clients",
        input=(TESTS / "dialects" / "in_node.mjs").read_text(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    lines = (python.communicate(timeout=PATIENCE)[0] + node.stdout).split("\n")
    found = [json.loads(line) for line in lines if line]
    return {(client, scenario): Seen(*rest) for client, scenario, *rest in found}
