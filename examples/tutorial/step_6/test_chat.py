"""Two people in the chat; `pytest` runs it, without a server."""

import json
from collections.abc import AsyncIterator

import pytest
from chat import app

from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run the tests on asyncio."""
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[EventStreamClient]:
    """Run the application from its startup to its shutdown."""
    async with EventStreamClient(app) as client:
        yield client


async def log_in(client: EventStreamClient, name: str) -> dict[str, str]:
    """Return the header with the cookie of a new session."""
    async with client.stream("/login", method="POST", json={"name": name}) as answer:
        return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


async def test_strangers_may_not_read(client: EventStreamClient) -> None:
    """Without a session, the answer is 401, which ends the page's client."""
    async with client.stream("/events") as stream:
        assert stream.status_code == 401


async def test_a_message_reaches_everybody(client: EventStreamClient) -> None:
    """It has its author, and a newcomer gets it in the snapshot."""
    ada, bob = await log_in(client, "Ada"), await log_in(client, "Bob")
    async with client.stream("/events", headers=ada) as stream:
        assert (await stream.next_event()).event == "snapshot"
        async with client.stream("/messages", method="POST", headers=bob, json={"text": "hello"}) as answer:
            assert answer.status_code == 204
        events = [await stream.next_event(), await stream.next_event()]
        assert [event.event for event in events] == ["sse.join", "message"]
        assert json.loads(events[1].data) == {"name": "Bob", "text": "hello"}
    async with client.stream("/events", headers=bob) as stream:
        state = json.loads((await stream.next_event()).data)
    assert [message["text"] for message in state["messages"]] == ["hello"]


async def test_a_reconnect_misses_nothing(client: EventStreamClient) -> None:
    """A reader that comes back with its last id gets what was said meanwhile."""
    ada = await log_in(client, "Ada")
    async with client.stream("/events", headers=ada) as stream:
        await stream.next_event()
        last = stream.last_event_id
    async with client.stream("/messages", method="POST", headers=ada, json={"text": "missed"}) as answer:
        assert answer.status_code == 204
    async with client.stream("/events", headers=ada, last_event_id=last) as stream:
        while (event := await stream.next_event()).event != "message":
            pass
    assert json.loads(event.data)["text"] == "missed"
