"""Errors as problems: their titles, and errors without a body."""

import json
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from mount.posts import post, posted
from sse_asgi._mount.problem import plain_response, problem, problem_response, with_headers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("status", "title"), [(403, "Forbidden"), (499, "Error")])
async def test_a_problem_has_a_title(status: int, title: str) -> None:
    """It is the standard's name of the status, if there is one."""
    assert json.loads(bytes(problem(status, "why").body))["title"] == title


async def test_an_answer_without_a_body_has_none() -> None:
    """A function may refuse with 204."""

    def refuse(*_: Any) -> None:
        raise HTTPException(204)

    async with posted(publish=refuse) as (_, client):
        answer = await post(client)
        assert (answer.status, answer.content) == (204, b"")


def test_a_problem_has_the_headers_of_its_exception() -> None:
    """They win over the headers of the app."""
    response = problem_response(HTTPException(401, "no key", {"x-mine": "1"}), {"x-mine": "2", "vary": "Origin"})
    assert (response.status_code, response.headers["x-mine"], response.headers["vary"]) == (401, "1", "Origin")
    assert response.media_type == "application/problem+json"


@pytest.mark.parametrize(("code", "body"), [(403, b"not for you"), (204, b""), (304, b"")])
def test_a_plain_answer_has_the_detail(code: int, body: bytes) -> None:
    """Responses with some statuses must not have a body."""
    response = plain_response(HTTPException(code, "not for you", {"x-mine": "1"}))
    assert (response.status_code, response.body, response.headers["x-mine"]) == (code, body, "1")


def test_a_copy_of_an_exception_has_headers_of_its_own() -> None:
    """The exception object itself, which may be raised to others too, is not changed; its own headers win."""
    error = HTTPException(403, "not for you", {"x-mine": "1"})
    twin = with_headers(error, {"x-mine": "2", "vary": "Origin"})
    assert (type(twin), twin.status_code, twin.detail) == (HTTPException, 403, "not for you")
    assert twin.headers == {"x-mine": "1", "vary": "Origin"}
    assert error.headers == {"x-mine": "1"}
