"""The example that publishes the body of a request."""

import pytest

from examples.conftest import Load, served

pytestmark = pytest.mark.anyio


async def test_what_is_posted_is_read(load: Load) -> None:
    """Readers at the same address get a form, JSON and text, and each publisher gets the id."""
    async with served(load("publish_subscribe")) as (streams, http), streams.stream("/events") as stream:
        answers = [
            await http.post("/events", data={"data": "a form"}),
            await http.post("/events", json={"n": 1}),
            await http.post("/events", content="text", headers={"content-type": "text/plain"}),
        ]
        events = [await stream.next_event() for _ in answers]
    assert [event.data for event in events] == ["a form", '{"n":1}', "text"]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert [answer.json()["id"] for answer in answers] == [event.id for event in events]


async def test_readers_are_counted(load: Load) -> None:
    """The debug page has the number of current readers."""
    async with served(load("publish_subscribe")) as (streams, http):
        before = await http.get("/debug")
        async with streams.stream("/events") as one, streams.stream("/events") as other:
            await http.post("/events", data={"data": "x"})
            await one.next_event()
            await other.next_event()
            during = await http.get("/debug")
    assert before.text == "Currently 0 subscriptions, 0 events published\n"
    assert during.text == "Currently 2 subscriptions, 1 events published\n"


async def test_a_token_can_be_asked_for(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PUBLISH_TOKEN, requests without the token are refused."""
    monkeypatch.setenv("PUBLISH_TOKEN", "sesame")
    statuses = []
    async with served(load("publish_subscribe")) as (_, http):
        for header in ({}, {"authorization": "Bearer open"}, {"authorization": "Bearer sesame"}):
            answer = await http.post("/events", data={"data": "x"}, headers=header)
            statuses.append(answer.status_code)
    assert statuses == [401, 401, 202]
