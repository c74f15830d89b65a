"""The headers of a request, read from its scope.

Starlette's `request.headers` makes a list of its own, which an idle connection would keep.
"""

from starlette.types import Scope


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, several lines of it joined by commas; None if the request does not have it."""
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1") if values else None
