"""The headers of a request, read from its scope, and those of a response.

Starlette's `request.headers` makes a list of its own, which an idle connection would keep.
"""

from collections.abc import Iterable

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, several lines of it joined by commas; None if the request does not have it."""
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else None


def value_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """Return the first value of a header of a response, whose names may be in any case; no bytes without it."""
    for key, value in headers:
        if key.lower() == name:
            return value
    return b""
