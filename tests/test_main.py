"""`python -m sse_asgi`: publishing one event from a shell, and the arguments of both commands."""

import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from real_redis.launcher import RedisServer
from redis_hubs import PATIENCE, kept, own_hub
from sse_asgi import Publisher, Settings, __main__, _demo

ROOT = Path(__file__).parent.parent
NOWHERE = "redis://127.0.0.1:1?timeout=0.5"

Run = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def settings(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings with a hub name of the test's own, which the environment has too."""
    settings = own_hub(shared_redis)
    monkeypatch.setenv("SSE_HUB_NAME", settings.hub_name)
    return settings


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process, and returns its exit code, stdout and stderr."""

    def main(*arguments: str, stdin: bytes = b"") -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["sse-asgi", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code: int | str | None = 0
        try:
            __main__.main()
        except SystemExit as exit_:
            code = exit_.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return main


def test_it_publishes_and_prints_the_id(run: Run, settings: Settings) -> None:
    """The id is the only line of output."""
    code, output, errors = run("publish", settings.backend_url, "a", "hello", "--event", "greeting")
    (event,) = kept(settings)
    assert (event.data, event.event) == ("hello", "greeting")
    assert (code, output, errors) == (0, f"{event.id}\n", "")


@pytest.mark.parametrize(
    ("given", "data"), [(b"hello\n", "hello"), (b"two\nlines\n\n", "two\nlines\n"), ("caf\u00e9".encode(), "caf\u00e9")]
)
def test_a_dash_reads_standard_input(run: Run, settings: Settings, given: bytes, data: str) -> None:
    """To its end, as UTF-8, without the line end that the shell adds."""
    assert run("publish", settings.backend_url, "a", "-", stdin=given)[0] == 0
    assert [event.data for event in kept(settings)] == [data]


def test_without_history_there_is_no_id(run: Run, settings: Settings) -> None:
    """The line of output is empty."""
    assert run("publish", f"{settings.backend_url}?history_size=0", "a", "x") == (0, "\n", "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("memory://", "a", "x"), "events in memory:// stay in their process"),
        (("pigeon://", "a", "x"), "SSE_BACKEND_URL='pigeon://': no backend is installed for this scheme"),
        ((NOWHERE, "", "x"), "channel"),
        ((NOWHERE, "a", "x", "--event", "two\nlines"), "event"),
    ],
)
def test_a_mistake_is_one_line(run: Run, arguments: tuple[str, ...], error: str) -> None:
    """A mistake ends the command with a message of one line, which makes the exit code 1."""
    code, output, _ = run("publish", *arguments)
    assert isinstance(code, str)
    assert error in code
    assert "\n" not in code
    assert output == ""


def test_input_that_is_not_utf_8_is_refused(run: Run) -> None:
    """Standard input that is not UTF-8 is an error; replacement characters are not published."""
    code, output, _ = run("publish", NOWHERE, "a", "-", stdin=b"\xff")
    assert "utf-8" in str(code).lower()
    assert output == ""


def test_a_logged_warning_is_printed(run: Run, settings: Settings, shared_redis: RedisServer) -> None:
    """A warning is one line on stderr, and the event is published."""
    code, output, errors = run("publish", f"{settings.backend_url}/0", "a", "x")
    assert (code, errors) == (0, "")
    policy = shared_redis.cli("CONFIG", "GET", "maxmemory-policy").split()[1]
    shared_redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        code, output, errors = run("publish", settings.backend_url, "a", "x")
    finally:
        shared_redis.cli("CONFIG", "SET", "maxmemory-policy", policy)
    assert (code, len(output.splitlines()), len(errors.splitlines())) == (0, 1, 1)
    assert "has maxmemory-policy allkeys-lru" in errors


def test_an_interrupt_ends_it_quietly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the command with the exit code 130, as in shells."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Publisher, "publish", interrupt)
    assert run("publish", NOWHERE, "a", "x") == (130, "", "")


@pytest.mark.parametrize(
    ("arguments", "host", "port"),
    [((), "127.0.0.1", 8000), (("--port", "1"), "127.0.0.1", 1), (("demo", "--host", "::1"), "::1", 8000)],
)
def test_without_a_command_it_is_the_demo(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], host: str, port: int
) -> None:
    """Arguments without a command are options of the demo."""
    calls: list[Any] = []
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.setattr(_demo, "run", lambda *where: calls.append(where))
    assert run(*arguments) == (0, "", "")
    assert calls == [(host, port)]


def test_help_names_each_command(run: Run) -> None:
    """--help lists the commands and runs none of them."""
    code, output, _ = run("--help")
    assert code == 0
    for command in ("demo", "publish", "tail", "bench", "doctor"):
        assert f"\n    {command} " in output


@pytest.mark.parametrize("arguments", [("serve",), ("publish", "redis://localhost"), ("--port", "65536")])
def test_wrong_arguments_are_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    """It names the help, and the exit code is 2."""
    code, _, errors = run(*arguments)
    assert code == 2
    assert re.fullmatch(r"sse-asgi.*: .*\. See: sse-asgi.* --help\n", errors)


@pytest.mark.parametrize(
    ("path", "name"), [("/a/b/sse-asgi", "sse-asgi"), ("/a/sse_asgi/__main__.py", "python -m sse_asgi")]
)
def test_it_calls_itself_as_the_user_does(monkeypatch: pytest.MonkeyPatch, path: str, name: str) -> None:
    """By the script, or by the module."""
    monkeypatch.setattr(sys, "argv", [path])
    assert __main__._prog() == name


def test_a_command_of_the_extra_gets_its_arguments(run: Run) -> None:
    """With its exit code."""
    code, output, errors = run("tail", "nowhere")
    assert (code, output) == (2, "")
    assert "the URL must begin with http:// or https://" in errors


def test_an_interrupt_while_it_starts_is_quiet(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before the command runs."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__.importlib, "import_module", interrupt)  # type: ignore[attr-defined]
    assert run("tail", "http://127.0.0.1:1/") == (130, "", "")


def test_a_missing_extra_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "sse_asgi._cli.app", raising=False)
    code, output, errors = run("tail", "http://127.0.0.1:1/")
    assert (code, output, errors) == ('The command tail needs typer: pip install "sse-asgi[cli]"', "", "")


def test_the_script_is_the_module() -> None:
    """The installed script `sse-asgi` runs the same function."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["sse-asgi"]
    module, _, name = script.partition(":")
    assert getattr(import_module(module), name) is __main__.main


def test_a_real_process_says_why_it_failed() -> None:
    """Without Redis, one line names the address and its error, and the exit code is 1."""
    command = (sys.executable, "-m", "sse_asgi", "publish", NOWHERE, "a", "x")
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith("the event was not published: Redis was away for 0.5 s: Connection refused. ")
