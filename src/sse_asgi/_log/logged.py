"""Functions that make text from outside safe for a line of the log."""

from typing import Any


def one_line(text: object) -> str:
    """Escape characters that are not printable: line ends, terminal control sequences, lone surrogates."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain)


def named(scope: Any) -> str:
    """Return the method and path of a request; the path is percent-decoded, so it may have any character."""
    return one_line(f"{scope['method']} {scope.get('path')}")
