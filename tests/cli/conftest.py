"""The command in this process."""

import sys
from collections.abc import Callable

import pytest

from sse_asgi import __main__

Run = Callable[..., tuple[int | str | None, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command with these arguments; it returns its exit code, stdout and stderr."""

    def main(*arguments: str) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["sse-asgi", *arguments])
        code: int | str | None = 0
        try:
            __main__.main()
        except SystemExit as exit_:
            code = exit_.code
        output = capsys.readouterr()
        return code, output.out, output.err

    return main
