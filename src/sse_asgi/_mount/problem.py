"""Errors of an HTTP interface as `application/problem+json`.

https://www.rfc-editor.org/rfc/rfc9457
"""

from collections.abc import Mapping
from http.client import responses
from typing import Any

from starlette.responses import JSONResponse, Response

NO_CONTENT = (204, 304)


class Problem(JSONResponse):
    """One error, said in the words of the standard."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: Any, headers: Mapping[str, str] | None = None) -> None:
        """Write it; `detail` says what to do next."""
        content = {"type": "about:blank", "title": responses.get(status, "Error"), "status": status, "detail": detail}
        super().__init__(content, status, {"cache-control": "no-store", **(headers or {})})


def problem(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with an error, or with the bare status where it must not have a body."""
    if status in NO_CONTENT:
        return Response(status_code=status, headers=headers)
    return Problem(status, detail, headers)
