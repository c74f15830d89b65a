"""Errors as problems: their titles, and errors without a body."""

import json
from typing import Any

import pytest
from starlette.exceptions import HTTPException

from mount.posts import post, posted
from sse_asgi._mount.problem import problem

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
