"""Where the commands print: results on stdout, and all else on stderr, so that a script can read the results."""

import sys
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class _Screen(Console):
    """A console that leaves the closed pipe of `| head` to its caller; rich's own exits, also inside an event loop."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise the BrokenPipeError."""
        self.quiet = True
        error = sys.exc_info()[1] or BrokenPipeError()
        raise error


def results() -> Console:
    """Return a console on stdout that prints texts as they are."""
    return _Screen(soft_wrap=True, highlight=False, emoji=False, markup=False)


def notes() -> Console:
    """Return a console on stderr that prints texts as they are."""
    return _Screen(stderr=True, soft_wrap=True, highlight=False, emoji=False, markup=False)


def progress(label: str) -> Progress:
    """Return a bar on stderr that is gone at its end, and is not shown at all if stderr is not a terminal."""
    console = Console(stderr=True)
    console.quiet = not console.is_terminal  # old versions print an empty line even if the bar is disabled
    columns = (TextColumn(label), BarColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True, disable=console.quiet)


def printable(text: str) -> str:
    """Return a text whose control characters, which could change the terminal, are written as escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
