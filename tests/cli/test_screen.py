"""What is printed, and where."""

import pytest

from sse_asgi._cli.screen import notes, printable, progress, results


def test_results_and_notes_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    """On stdout and stderr; neither changes a text."""
    results().print("[red]x[/red] :smile:")
    notes().print("y" * 200)
    assert capsys.readouterr() == ("[red]x[/red] :smile:\n", "y" * 200 + "\n")


def test_a_closed_pipe_is_raised() -> None:
    """The command ends where it can clean up."""
    with pytest.raises(BrokenPipeError):
        results().on_broken_pipe()


def test_control_characters_are_escapes() -> None:
    """Letters of all languages stay as they are."""
    assert printable("caf\u00e9 \x1b[2J\n\u200b") == "caf\u00e9 \\x1b[2J\\n\\u200b"


def test_a_bar_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    """In a script, nothing is printed."""
    with progress("reading") as shown:
        shown.add_task("", total=1.0)
    assert capsys.readouterr() == ("", "")
