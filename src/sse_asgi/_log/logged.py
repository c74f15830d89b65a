"""Text that others wrote, made safe to be put into a line of the log."""

from typing import Any


def one_line(text: object) -> str:
    """Escape what is not printable: line ends, also Unicode's, terminals' control sequences, lone surrogates."""
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in plain)


def named(scope: Any) -> str:
    """Name a request by its method and path; the path is percent-decoded, so it may hold any character."""
    return one_line(f"{scope['method']} {scope.get('path')}")
