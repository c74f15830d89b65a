"""The commands of the client's side: their arguments, exit codes and errors."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cli.conftest import Run
from cli.scripted import Answer, Asked, Scripted
from sse_asgi._cli import app
from sse_asgi._cli.bench import Bench
from sse_asgi._cli.doctor import Examination, Plan, Report
from sse_asgi._cli.following import StreamError
from sse_asgi._cli.request import StreamRequest

END = b"event: sse.end\nid: sse.end\ndata: {}\n\n"


async def finished(asked: Asked, answer: Answer) -> None:
    """Stream two events and the end."""
    await answer.begin()
    await answer.send(b"id: 1\ndata: a\n\ndata: b\n\n" + END)


async def endless(asked: Asked, answer: Answer) -> None:
    """Stream an event after the other."""
    await answer.begin()
    while True:
        await answer.send(b"data: x\n\n")


def test_a_finished_stream_is_a_success(run: Run) -> None:
    """All options reach the request."""
    options = ("-H", "X-Key: 1", "-H", "X-Other: 2", "-d", '{"q": 1}', "-X", "put", "--last-event-id", "9")
    with Scripted(finished) as server:
        code, output, errors = run("tail", server.url, *options)
    (asked,) = server.asked
    assert (code, len(output.splitlines()), errors) == (0, 3, "the stream is finished\n")
    assert (asked.method, asked.body) == ("PUT", b'{"q": 1}')
    assert [asked.headers[name] for name in ("x-key", "x-other", "last-event-id")] == ["1", "2", "9"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("tail",), "Missing argument 'URL'"),
        (("tail", "http://a", "--nothing"), "No such option: --nothing"),
        (("tail", "example.com"), "the URL must begin with http:// or https:// and name a host (got 'example.com')"),
    ],
)
def test_a_wrong_argument_is_one_line(run: Run, arguments: tuple[str, ...], error: str) -> None:
    """It names the help, and the exit code is 2."""
    code, output, errors = run(*arguments)
    assert (code, output) == (2, "")
    assert errors == f"sse-asgi tail: {error}. See: sse-asgi tail --help\n"


def test_a_refusal_is_one_line(run: Run) -> None:
    """The exit code is 1."""

    async def script(asked: Asked, answer: Answer) -> None:
        await answer.refuse("404 Not Found")

    with Scripted(script) as server:
        code, output, errors = run("tail", server.url)
    assert (code, output) == (1, "")
    assert errors == f"{server.url} answered 404 Not Found: check the path, and whether it ends in a slash\n"


def test_an_error_of_a_stream_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the message of the error, without a traceback."""

    async def fail(*_: object, **__: object) -> None:
        message = "the stream cannot be followed"
        raise StreamError(message)

    monkeypatch.setattr(app, "tail", fail)
    assert run("tail", "http://127.0.0.1:1/") == (1, "", "the stream cannot be followed\n")


@pytest.mark.parametrize("command", ["tail", "bench", "doctor"])
def test_each_command_has_a_help(run: Run, command: str) -> None:
    """With an example."""
    code, output, _ = run(command, "--help")
    assert code == 0
    assert f"Example: sse-asgi {command} https://" in " ".join(output.split())


def test_the_options_of_the_doctor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reach the plan; the direct URL gets the same request."""
    plans: list[Plan] = []

    async def examine(examination: Examination) -> Report:
        plans.append(examination._plan)
        return Report()

    monkeypatch.setattr(Examination, "run", examine)
    options = ("--wait", "2", "--publish", "p", "--restart", "r", "--origin", "https://o", "-H", "A: b", "-d", "x")
    code, output, errors = run("doctor", "http://a", "--direct", "http://b", *options)
    request = StreamRequest("http://a", "POST", {"A": "b"}, b"x")
    assert plans == [Plan(request, replace(request, url="http://b"), 2.0, "https://o", "p", "r")]
    assert (code, output, errors) == (0, "\nNo problems found\n", "Watching http://a for 2 s ...\n")


def test_the_options_of_the_bench(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reach it; with --json nothing else is printed."""
    seen: list[Bench] = []

    async def measure(work: Bench) -> None:
        seen.append(work)
        work.measurement.opened, work.measurement.connecting = [0.5], 1.0

    monkeypatch.setattr(Bench, "run", measure)
    code, output, errors = run("bench", "http://a", "-n", "7", "-s", "2", "--time-field", "at", "--json")
    assert (code, json.loads(output)["readers"], errors) == (0, 7, "")
    assert (seen[0]._seconds, seen[0]._time_field) == (2.0, "at")


def test_an_interrupt_is_130(run: Run) -> None:
    """Ctrl-C prints nothing."""

    async def interrupting(asked: Asked, answer: Answer) -> None:
        await answer.begin()
        await answer.send(b"data: x\n\n")
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background command ignores it
    try:
        with Scripted(interrupting) as server:
            code, _, errors = run("tail", server.url)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert (code, errors) == (130, "")


def test_a_closed_pipe_ends_it_quietly() -> None:
    """`tail ... | head -1` prints a line, and no traceback."""
    with Scripted(endless) as server:
        command = (sys.executable, "-m", "sse_asgi", "tail", server.url)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith(b"  x\n")
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(10) == 1
