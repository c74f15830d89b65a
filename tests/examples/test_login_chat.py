"""The example of a chat with a login."""

import json
from datetime import UTC, datetime

import pytest

from examples.conftest import Load, served
from sse_asgi import BackendError

pytestmark = pytest.mark.anyio


async def test_a_message_has_its_author_and_the_servers_time(load: Load) -> None:
    """The author is the session's user, or anonymous; the time is in whole seconds; the answer is 204."""
    async with served(load("login_chat")) as (streams, http), streams.stream("/stream") as stream:
        answers = [await http.post("/post", data={"message": "who am I?"})]
        await http.post("/login", data={"user": "Ada"})
        answers.append(await http.post("/post", data={"message": "¡hölá! 😀"}))
        events = [json.loads((await stream.next_event()).data) for _ in answers]
    assert [(event["user"], event["text"]) for event in events] == [("anonymous", "who am I?"), ("Ada", "¡hölá! 😀")]
    assert [(answer.status_code, answer.content) for answer in answers] == [(204, b"")] * 2
    time = datetime.fromisoformat(events[0]["time"])
    assert time.microsecond == 0
    assert abs((datetime.now(UTC) - time).total_seconds()) < 60


async def test_the_login_leads_back_to_the_page(load: Load) -> None:
    """The answer is 303, and the page shows any name as text."""
    async with served(load("login_chat")) as (_, http):
        assert "<b>anonymous</b>" in (await http.get("/")).text
        answer = await http.post("/login", data={"user": "<i>Ada</i>"})
        page = await http.get(answer.headers["location"])
    assert answer.status_code == 303
    assert "<b>&lt;i&gt;Ada&lt;/i&gt;</b>" in page.text


@pytest.mark.parametrize("message", ["", "   ", "x" * 2001])
async def test_a_message_has_a_length(load: Load, message: str) -> None:
    """Empty and too long messages are refused."""
    async with served(load("login_chat")) as (_, http):
        answer = await http.post("/post", data={"message": message})
    assert (answer.status_code, answer.text) == (400, "message must have 1 to 2000 characters")


async def test_a_message_that_cannot_be_stored_is_a_503(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 503, so the page keeps the text."""
    example = load("login_chat")

    async def fail(*_: object) -> None:
        msg = "away"
        raise BackendError(msg)

    monkeypatch.setattr("sse_asgi.Hub.publish", fail)
    async with served(example) as (_, http):
        assert (await http.post("/post", data={"message": "x"})).status_code == 503
