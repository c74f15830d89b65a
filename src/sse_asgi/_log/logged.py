"""What a line of the log says: text from outside, made safe, and fields for machines."""

from collections.abc import Iterable, Mapping
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


def route_of(scope: Mapping[str, Any]) -> str | None:
    """Return the path of a request's route, with the names of its parameters; None if the framework names no route.

    So that there are few different ones, the parameters' values are not in it.
    """
    route = scope.get("route")
    path = getattr(route, "path_format", None)
    if not isinstance(path, str):
        return None
    names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
    root: str = scope.get("root_path", "").rstrip("/")
    # The path of a Mount, which has no endpoint, is in the root path already.
    return "/".join(names.get(part, part) for part in root.split("/")) + path * hasattr(route, "endpoint") or "/"


def about(event: str, scope: Mapping[str, Any] | None = None, channels: Iterable[str] = ()) -> dict[str, Any]:
    """Return the `extra` of a line of the log.

    Args:
        event: The name of what has happened, which stays the same when the text changes.
        scope: The request's.
        channels: The channels that the line is about.
    """
    extra: dict[str, Any] = {"sse_event": event}
    if scope is not None and (route := route_of(scope)) is not None:
        extra["sse_route"] = route
    if channels := [*channels]:
        extra["sse_channels"] = channels
    return extra
