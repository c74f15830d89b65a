"""The server of the chat with a language model, in process; tests/browser has its page."""

import uuid
from typing import Any

import httpx
import pytest

from examples.conftest import Load, served
from sse_asgi import BackendError

pytestmark = pytest.mark.anyio
CHAT = "/chats/a-chat-of-mine"


@pytest.fixture
def example(load: Load, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("WORD_SECONDS", "0")
    return load("llm_chat/app")


def asked(text: str = "Why?", **fields: Any) -> dict[str, Any]:
    return {"id": str(uuid.uuid4()), "messages": [{"role": "user", "content": text}], **fields}


async def ask(http: httpx.AsyncClient, question: dict[str, Any], chat: str = CHAT) -> httpx.Response:
    return await http.post(f"{chat}/questions", json=question)


async def test_a_question_that_is_sent_twice_is_answered_once(example: Any) -> None:
    """The second request attaches, and the page is told of one question."""
    question = asked()
    async with served(example) as (streams, http):
        answers = [(await ask(http, question)).json() for _ in range(2)]
        await ask(http, asked("Another?"))
        async with streams.stream(f"{CHAT}/questions") as stream:
            events = [await stream.next_event() for _ in range(3)]
    assert answers == [{"started": True}, {"started": False}]
    assert [event.event for event in events] == ["about", "question", "question"]
    assert '"text":"Another?"' in events[2].data


async def test_an_answer_belongs_to_its_chat(example: Any) -> None:
    """Under another chat, the same question has no answer and cannot be stopped."""
    question = asked()
    async with served(example) as (streams, http):
        await ask(http, question)
        path = f"/answers/{question['id']}/0"
        assert (await http.get(f"/chats/another-chat{path}")).status_code == 404
        cancelled = (await http.post(f"/chats/another-chat{path}/cancel")).json()
        async with streams.stream(f"{CHAT}{path}") as stream:
            body = await stream.read()
    assert cancelled == {"cancelled": False}
    assert body.rpartition(b"event: ")[2].endswith(b'data: {"state":"finished"}\n\n')


async def test_going_on_begins_with_the_text_so_far(example: Any) -> None:
    """So a page that is opened later reads the whole answer from one run."""
    so_far = (example.HERE / "words.txt").read_text().format(question="Why?")[:100]
    question = asked(part=1)
    question["messages"].append({"role": "assistant", "content": so_far})
    async with served(example) as (streams, http):
        await ask(http, question)
        async with streams.stream(f"{CHAT}/answers/{question['id']}/1") as stream:
            events = [await stream.next_event() for _ in range(3)]
    assert events[0].event == "writer"
    assert events[1].data == so_far
    assert (example.HERE / "words.txt").read_text().format(question="Why?")[100:].startswith(events[2].data)


async def test_a_store_that_is_away_is_a_503(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page asks again, with the same id."""

    async def away(*args: object, **options: object) -> None:
        what = "Redis is away"
        raise BackendError(what)

    async with served(example) as (_, http):
        monkeypatch.setattr(example.Hub, "start_run", away)
        answer = await ask(http, asked())
    assert (answer.status_code, answer.json()) == (503, {"detail": "Redis is away"})


@pytest.mark.parametrize("chat", ["/chats/short", "/chats/with%0Aline", f"/chats/{'x' * 65}"])
async def test_a_chat_has_a_proper_name(example: Any, chat: str) -> None:
    """Others are refused."""
    async with served(example) as (_, http):
        assert (await ask(http, asked(), chat)).status_code == 422
