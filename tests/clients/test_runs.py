"""Each client follows a run to its end over a network that breaks, with its recipe of docs/llm.md."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from browser.peers import free_port, until
from clients.conftest import HERE, Process
from clients.runs_server import DOCUMENT, WORDS

PATIENCE = 60.0
TEXT = "".join((*WORDS, "Why?"))
QUESTION = ("--header", "Content-Type: application/json", "--data", '{"text": "Why?"}')


class Outcome(NamedTuple):
    """What the users of the clients have at the end, and what the server was asked for.

    Attributes:
        said: The text and the words for the end, by client.
        starts: How often the model was asked, by prefix.
        requests: Method, path, Last-Event-ID and status of each request, by prefix.
    """

    said: dict[str, tuple[str, str]]
    starts: dict[str, int]
    requests: dict[str, list[list[Any]]]


@pytest.fixture(scope="session")
def outcome() -> Iterator[Outcome]:
    """Let each client ask once."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    snippet = DOCUMENT.partition("// Asks, and gives")[2].partition("```")[0].partition("\n")[2]
    server = Process(sys.executable, "-m", "uvicorn", "clients.runs_server:app", "--port", str(port))
    with server, (HERE / "runs_in_node.mjs").open() as program:
        until(lambda: facts(url), PATIENCE)
        node = subprocess.Popen(
            ["node", "--input-type=module", "-", url, snippet],
            cwd=HERE,
            stdin=program,
            stdout=subprocess.PIPE,
            text=True,
        )
        said = {"curl": with_curl(f"{url}/curl/answers")}
        lines = node.communicate(timeout=PATIENCE)[0].splitlines()
        said |= {name: (text, end) for name, text, end in map(json.loads, lines)}
        yield Outcome(said, **facts(url))


def facts(url: str) -> Any:
    with suppress(OSError), urllib.request.urlopen(f"{url}/facts", timeout=PATIENCE) as response:
        return json.load(response)
    return None


def curl(*arguments: str) -> tuple[int, str]:
    command = ["curl", "--silent", "--no-buffer", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def with_curl(url: str) -> tuple[str, str]:
    """Do by hand what the document says, until the response is complete."""
    code, output = curl(*QUESTION, "--header", "Idempotency-Key: 42", url)
    codes = [code]
    while code and len(codes) < 9:
        complete = output.rpartition("\n\n")[0] + "\n\n"
        last = re.findall(r"^id: (.*)$", complete, re.MULTILINE)[-1]
        code, more = curl("--header", f"Last-Event-ID: {last}", f"{url}/42")
        output = complete + more
        codes.append(code)
    frames = [frame for frame in output.split("\n\n") if "event:" not in frame]
    text = "".join("\n".join(re.findall(r"^data: (.*)$", frame, re.MULTILINE)) for frame in frames)
    return text, f"{codes[0] != 0}, {codes[-1]}, {re.findall(r'state.*', output)}"


ENDS = {
    "eventsource": "finished",
    "fetch": "finished",
    "fetch that is aborted": "AbortError, finished",
    "curl": 'True, 0, [\'state":"finished"}\']',
    "ai_sdk": "ready, ready, 0 others",
    "tanstack": "ready",
    "langgraph": "finished",
}


@pytest.mark.parametrize("client", ENDS)
def test_it_has_the_whole_text(outcome: Outcome, client: str) -> None:
    """Every character once, though its connection broke; and it knows how the run ended."""
    assert outcome.said[client] == (TEXT, ENDS[client])


def test_each_run_began_once(outcome: Outcome) -> None:
    """However often it was asked for; fetch has two questions."""
    assert outcome.starts == dict.fromkeys(("eventsource", "curl", "ai_sdk", "tanstack", "langgraph"), 1) | {"fetch": 2}


def test_a_key_of_another_question_is_a_conflict(outcome: Outcome) -> None:
    """It gets neither the other answer nor one of its own."""
    assert outcome.said["fetch with a key of another question"] == ("", "status 409")


def asked(outcome: Outcome, client: str) -> list[tuple[Any, ...]]:
    """Return the method, the path behind the prefix, whether there was a Last-Event-ID, and the status."""
    return [
        (method, path.removeprefix(f"/{client}"), bool(last), status)
        for method, path, last, status in outcome.requests[client]
    ]


def test_clients_resume_as_the_document_says(outcome: Outcome) -> None:
    """The AI SDK by a GET, with 204 before; TanStack by a POST, LangGraph by a GET of Location, with the last id."""
    assert asked(outcome, "ai_sdk")[:3] == [
        ("GET", "/api/chat/c/stream", False, 204),
        ("POST", "/api/chat", False, 200),
        ("GET", "/api/chat/c/stream", False, 200),
    ]
    assert asked(outcome, "tanstack")[:2] == [("POST", "/api/chat", False, 200), ("POST", "/api/chat", True, 200)]
    first, second, *_ = asked(outcome, "langgraph")
    assert first == ("POST", "/threads/t/runs/stream", False, 200)
    assert (second[0], second[1].startswith("/threads/t/runs/"), *second[2:]) == ("GET", True, True, 200)
