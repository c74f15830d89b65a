"""The answer to a poll: its content, its two forms, and its bounds."""

import pytest

from mount.polls import data, poll, polled, waiting
from sse_asgi import (
    Hub,
    MemoryBackend,
)
from sse_asgi._mount import answer as answer_module
from sse_asgi._mount.answer import MAX_EVENTS
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStream, EventStreamClient

pytestmark = pytest.mark.anyio


async def test_a_first_poll_says_where_to_go_on() -> None:
    """Like a fresh stream it has no earlier events; it has the position after which the next poll continues."""
    async with polled() as (hub, client):
        last = await hub.publish("default", "before")
        assert await poll(client) == {"events": [], "last_event_id": last, "retry": 2000, "more": False}


async def test_a_poll_has_the_new_events() -> None:
    """Each event has a type, data and an id; the last id stands beside them once more."""
    async with polled() as (hub, client):
        first = await hub.publish("default", "1")
        second = await hub.publish("default", {"n": 2}, event="count")
        third = await hub.publish("default", "two\nlines")
        answer = await poll(client, first)
        assert answer["events"] == [
            {"id": second, "event": "count", "data": '{"n":2}'},
            {"id": third, "event": "message", "data": "two\nlines"},
        ]
        assert answer["last_event_id"] == third
        assert data(await poll(client, third)) == []


async def test_gaps_are_events() -> None:
    """A gap has an id, so that the next poll is not told again."""
    async with polled(Hub(MemoryBackend(history_size=1))) as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        last = await hub.publish("default", "3")
        answer = await poll(client, first)
        assert [(one["event"], one["data"]) for one in answer["events"]] == [
            ("sse.gap", '{"reason":"trimmed"}'),
            ("message", "3"),
        ]
        assert answer["last_event_id"] == last
        assert (await poll(client, last))["events"] == []


async def test_an_unreadable_id_is_a_gap() -> None:
    """It is not an error, and it is told once."""
    async with polled() as (_, client):
        answer = await poll(client, "x")
        assert data(answer) == ['{"reason":"malformed"}']
        assert (await poll(client, answer["last_event_id"]))["events"] == []


async def test_without_history_there_are_no_positions() -> None:
    """A poll that waits still gets events that are published meanwhile."""
    async with polled(Hub(MemoryBackend(history_size=0))) as (hub, client):
        assert await poll(client) == {"events": [], "last_event_id": None, "retry": 2000, "more": False}
        async with waiting(client, hub) as answers:
            await hub.publish("default", "x")
        assert answers[0]["events"] == [{"id": None, "event": "message", "data": "x"}]


async def test_a_position_is_not_an_event_of_a_poll() -> None:
    """JSON has it as `last_event_id` alone, and a poll goes on waiting after it."""
    async with polled() as (hub, client):
        before = await hub.publish("default", "before")
        first = await poll(client)
        await hub.publish("other", "elsewhere")
        async with waiting(client, hub) as answers:
            last = await hub.publish("default", "x")
    assert (first["events"], first["last_event_id"]) == ([], before)
    assert (data(answers[0]), answers[0]["last_event_id"]) == (["x"], last)


# As a stream


async def as_stream(client: EventStreamClient, after: str | None, query: str = "") -> EventStream:
    headers = {"accept": "text/event-stream"}
    async with client.stream(f"/events/?poll=1{query}", last_event_id=after, headers=headers) as answer:
        await answer.read()
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.complete
        return answer


def position_stream(position: str | None) -> bytes:
    return f"retry: 2000\nid: {position}\nevent: sse.position\ndata: {{}}\n\n".encode()


async def test_an_event_source_gets_a_stream_that_has_ended() -> None:
    """It has the interval, the frames, and a known length."""
    async with polled() as (hub, client):
        first = await hub.publish("default", "1")
        second = await hub.publish("default", "2")
        answer = await as_stream(client, first)
        assert answer.content == f"retry: 2000\nid: {second}\ndata: 2\n\n".encode()
        assert (await as_stream(client, second)).content == position_stream(second)


# Bounds


async def test_an_event_source_asks_again_at_once_if_there_is_more() -> None:
    """Its reconnection time is 0 then; the last answer has the interval."""
    async with polled(Hub(MemoryBackend(history_size=MAX_EVENTS + 1))) as (hub, client):
        after = (await poll(client))["last_event_id"]
        for number in range(MAX_EVENTS + 1):
            last = await hub.publish("default", number)
        first = await as_stream(client, after)
        *_, event = EventDecoder().feed(first.content)
        second = await as_stream(client, event.id)
    assert first.content.startswith(b"retry: 0\nid: ")
    assert first.content.count(b"retry:") == 1
    assert second.content == f"retry: 2000\nid: {last}\ndata: {MAX_EVENTS}\n\n".encode()


async def test_too_many_events_are_several_answers() -> None:
    """Each answer but the last has `more`; no event is lost or sent twice, and the order stays."""
    count = MAX_EVENTS + 5
    async with polled(Hub(MemoryBackend(history_size=count))) as (hub, client):
        after = (await poll(client))["last_event_id"]
        for number in range(count):
            await hub.publish("default", number)
        first = await poll(client, after)
        second = await poll(client, first["last_event_id"])
    assert (len(first["events"]), first["more"], second["more"]) == (MAX_EVENTS, True, False)
    assert data(first) + data(second) == [str(number) for number in range(count)]


async def test_too_many_bytes_are_several_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are bounded like events; an event that is larger than the bound goes alone."""
    monkeypatch.setattr(answer_module, "MAX_BYTES", 1000)
    async with polled() as (hub, client):
        after = (await poll(client))["last_event_id"]
        texts = ["x" * 400, "y" * 400, "z" * 2000, "w"]
        for text in texts:
            await hub.publish("default", text)
        got = []
        while True:
            answer = await poll(client, after)
            got.append(data(answer))
            after = answer["last_event_id"]
            if not answer["more"]:
                break
    assert got == [texts[:2], texts[2:3], texts[3:]]


async def test_events_without_an_id_are_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next poll could not ask for the other initial events."""
    monkeypatch.setattr(answer_module, "MAX_EVENTS", 2)
    async with polled(initial=["1", "2", "3"]) as (_, client):
        assert data(await poll(client)) == ["1", "2", "3"]
