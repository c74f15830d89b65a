"""The query of a reader's request: rewind, padding, poll and wait."""

import json
import math
from urllib.parse import quote

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message

from mount.helpers import mounted, status
from mount.polls import LONG, poll, polled
from sse_asgi import EventSourceApp, Hub

pytestmark = pytest.mark.anyio


# Rewinding


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("rewind=1", ["4"]),
        ("rewind=3", ["2", "3", "4"]),
        ("rewind=4", ["2", "3", "4"]),
        ("rewind=all", ["2", "3", "4"]),
        (f"rewind={'9' * 5000}", ["2", "3", "4"]),
        ("rewind=0", []),
        ("", []),
    ],
)
async def test_a_request_may_ask_for_the_newest_events(query: str, expected: list[str]) -> None:
    """A stream begins with up to `max_rewind` of the newest events, then come live events."""
    async with mounted(max_rewind=3) as (hub, client):
        for number in range(5):
            await hub.publish("default", number)
        async with client.stream(f"/events/?{query}") as stream:
            await hub.publish("default", "live")
            got = [(await stream.next_event()).data for _ in (*expected, "live")]
    assert got == [*expected, "live"]


async def test_a_reconnect_to_the_same_url_does_not_rewind() -> None:
    """An EventSource reconnects with its id, and resumes after it."""
    async with mounted(max_rewind=math.inf) as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream("/events/?rewind=all", last_event_id=first) as stream:
            assert (await stream.next_event()).data == "2"


async def test_an_app_may_rewind_by_itself() -> None:
    """`rewind=` applies to requests without `?rewind=`."""
    async with mounted(rewind=math.inf, max_rewind=1) as (hub, client):
        for number in range(3):
            await hub.publish("default", number)
        async with client.stream("/events/") as stream:
            assert [(await stream.next_event()).data for _ in range(3)] == ["0", "1", "2"]
        async with client.stream("/events/?rewind=5") as stream:
            assert (await stream.next_event()).data == "2"


async def test_rewinding_must_be_allowed() -> None:
    """The answer is 400 and names the option; `?rewind=0` is always allowed."""
    async with mounted() as (_, client):
        assert await status(client, "?rewind=0") == 200
        for asked in ("1", "all"):
            async with client.stream(f"/events/?rewind={asked}") as answer:
                assert answer.status_code == 400
                assert b"max_rewind" in await answer.read()


@pytest.mark.parametrize("bad", ["", "-1", "1.5", "ALL", "inf", "²", "1e3"])
async def test_a_request_for_no_number_of_events_is_refused(bad: str) -> None:
    """The answer is 400 and names the allowed values."""
    async with mounted(max_rewind=5) as (_, client):
        async with client.stream(f"/events/?rewind={quote(bad)}") as answer:
            assert answer.status_code == 400
            assert b"a number of events or all" in await answer.read()


# Padding


@pytest.mark.parametrize(
    ("query", "size"),
    [
        ("padding=true", 2048),
        ("padding=1", 2048),
        ("padding=4000", 4000),
        ("evs_preamble=2056", 2056),
        ("padding=8192", 8192),
    ],
)
async def test_padding_comes_first(query: str, size: int) -> None:
    """The stream begins with a comment of so many bytes, before the retry and the events."""
    async with mounted(retry=1000) as (_, client), client.stream(f"/events/?{query}") as stream:
        await stream.received(b"id: ")
        assert stream.content.startswith(b":" + b" " * (size - 2) + b"\nretry: 1000\n")


@pytest.mark.parametrize("query", ["", "?padding=false", "?padding=", "?padding=0"])
async def test_there_is_no_padding_for_those_that_want_none(query: str) -> None:
    """The stream begins with its position."""
    async with mounted() as (_, client), client.stream(f"/events/{query}") as stream:
        await stream.received(b"\n\n")
        assert stream.content.startswith(b"id: ")


@pytest.mark.parametrize("value", ["x", "-1", "8193", "99999", "1e3", "٣", "9" * 5000])
async def test_bad_padding_is_400(value: str) -> None:
    """The answer names the limit."""
    async with mounted() as (_, client), client.stream(f"/events/?padding={quote(value)}") as stream:
        assert stream.status_code == 400
        assert b"up to 8192" in await stream.read()


# Polls


@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("?poll=1", "*/*", "application/json"),
        ("?poll=1", "application/json", "application/json"),
        ("?poll=1", "text/event-stream", "text/event-stream"),
        ("?poll=1&poll=0", "*/*", "application/json"),
        ("", "application/json, text/plain", "application/json"),
    ],
)
async def test_requests_that_poll(query: str, accept: str, content_type: str) -> None:
    """`?poll=1` polls, and so does an Accept with JSON and without event streams; the first value counts."""
    async with polled() as (_, client):
        async with client.stream(f"/events/{query}", headers={"accept": accept}) as answer:
            await answer.read()
            assert answer.headers["content-type"] == content_type


@pytest.mark.parametrize(
    ("query", "accept"),
    [
        ("", "*/*"),
        ("", "application/json, text/event-stream"),
        ("?poll=0", "application/json"),
        ("?poll=0&poll=1", "*/*"),
    ],
)
async def test_requests_that_stream(query: str, accept: str) -> None:
    """`?poll=0` gets a stream, and so does a request that accepts event streams."""
    async with polled() as (hub, client):
        async with client.stream(f"/events/{query}", headers={"accept": accept}) as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
            assert not stream.complete


@pytest.mark.parametrize(
    "query", ["poll=2", "poll=true", "poll=", "poll=1&wait=x", "poll=1&wait=-1", "poll=1&wait=nan", "poll=1&wait=1e999"]
)
async def test_bad_values_are_400(query: str) -> None:
    """The answer names the value."""
    async with polled() as (_, client), client.stream(f"/events/?{query}") as answer:
        assert answer.status_code == 400
        assert query.rpartition("=")[2].encode() in await answer.read()


async def test_it_waits_no_longer_than_the_app_allows() -> None:
    """`max_wait` bounds `?wait=`; 0 answers at once."""
    async with polled(max_wait=0) as (_, client):
        with anyio.fail_after(5):
            assert (await poll(client, query=f"&wait={LONG:g}"))["events"] == []


QUERY_PARTS = st.sampled_from([b"poll=1", b"wait=", b"wait=0", b"last_event_id=", b"&", b"=", b"%00", b"%ff", b";"])


@given(query=st.lists(QUERY_PARTS | st.binary(max_size=5), max_size=10).map(b"".join), last=st.binary(max_size=20))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_query_breaks_it(query: bytes, last: bytes) -> None:
    """Every query is answered, or refused with a text; none raises an error."""
    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"poll=1&" + query,
        "headers": [(b"last-event-id", last)],
    }
    async with Hub() as hub:
        await EventSourceApp(hub, max_wait=0.0)(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
    if answers[0]["status"] == 200:
        answer = json.loads(answers[1]["body"])
        assert {one["event"] for one in answer["events"]} <= {"sse.gap"}
    else:
        assert answers[0]["status"] == 400
        assert answers[1]["body"]


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_max_wait_must_be_a_number_of_seconds(seconds: float) -> None:
    """Other values are refused when the app is made."""
    with pytest.raises(ValueError, match="max_wait"):
        EventSourceApp(Hub(), max_wait=seconds)
