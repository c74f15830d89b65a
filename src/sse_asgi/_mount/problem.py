"""Error responses: `application/problem+json` for programs, plain text for browsers.

https://www.rfc-editor.org/rfc/rfc9457
"""

from collections.abc import Mapping
from http.client import responses
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

BODILESS = (204, 304)  # responses with these statuses must not have a body


class Problem(JSONResponse):
    """One error in the form that the standard defines."""

    media_type = "application/problem+json"

    def __init__(self, status: int, detail: Any, headers: Mapping[str, str] | None = None) -> None:
        """Write the error; `detail` says how the client can correct it."""
        content = {"type": "about:blank", "title": responses.get(status, "Error"), "status": status, "detail": detail}
        super().__init__(content, status, {"cache-control": "no-store", **(headers or {})})


def problem(status: int, detail: Any, headers: Mapping[str, str] | None = None) -> Response:
    """Return a problem, or a response without a body if the status forbids one."""
    if status in BODILESS:
        return Response(status_code=status, headers=headers)
    return Problem(status, detail, headers)


def problem_response(error: HTTPException, headers: Mapping[str, str]) -> Response:
    """Return the problem for an exception; its own headers win over `headers`."""
    return problem(error.status_code, error.detail, {**headers, **(error.headers or {})})


def plain_response(error: HTTPException) -> Response:
    """Return the response that Starlette's own handler makes of an exception."""
    if error.status_code in BODILESS:
        return Response(status_code=error.status_code, headers=error.headers)
    return PlainTextResponse(str(error.detail), error.status_code, error.headers)


def with_headers(error: HTTPException, headers: dict[str, str]) -> HTTPException:
    """Return a copy of an exception with the headers of one request; an application may raise one object to many."""
    twin = type(error).__new__(type(error), *error.args)
    vars(twin).update(vars(error), headers={**headers, **(error.headers or {})})
    return twin
