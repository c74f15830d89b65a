"""The id of the last event that a client has seen: header, query, and which of them wins."""

import pytest

from sse_asgi import Hub
from sse_asgi._log.last_event_id import last_event_id
from stream.helpers import numbers, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "evs_last_event_id", "Last-Event-ID"])
async def test_the_query_may_say_that_the_end_was_seen(name: str) -> None:
    """Polyfills cannot set the header."""
    async with serve(numbers).stream(f"/?{name}=sse.end") as stream:
        assert (stream.status_code, await stream.read()) == (204, b"")
        assert stream.headers["cache-control"] == "no-store"


async def test_the_header_wins_over_the_query() -> None:
    """The header is newer, because a browser keeps the URL."""
    async with serve(numbers).stream("/?last_event_id=sse.end", last_event_id="x") as stream:
        assert b"data: 2" in await stream.read()


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId"])
async def test_a_subscription_resumes_from_the_query(name: str) -> None:
    """A response in an endpoint resumes as the app does."""
    async with Hub() as hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        client = serve(lambda: hub.subscribe("a"))
        async with client.stream(f"/?{name}={first}") as stream:
            assert (await stream.next_event()).data == "2"
        client = serve(lambda: hub.subscribe("a", last_event_id=""))
        async with client.stream(f"/?{name}={first}") as stream:
            await stream.received(b"id: ")
            await hub.publish("a", "3")
            await stream.received(b"data: 3")
            assert b"data: 2" not in stream.content


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (b"", None),
        (b"channel=a", None),
        (b"last_event_id=1", "1"),
        (b"last_event_id=1&last_event_id=2", "2"),
        (b"last_event_id=1&lastEventId=2", "2"),
        (b"lastEventId=2&last_event_id=1", "2"),
        (b"lastEventId=&last_event_id=1", "1"),
    ],
)
async def test_the_newest_id_of_the_query_counts(query: bytes, found: str | None) -> None:
    """A polyfill adds its parameter behind the page's, at each reconnect."""
    assert last_event_id({"headers": [], "query_string": query}) == found


async def test_a_header_may_have_any_bytes() -> None:
    """It comes from the client."""
    assert last_event_id({"headers": [(b"accept", b"*/*"), (b"last-event-id", b"\xff")]}) == "\ufffd"
    assert last_event_id({"headers": []}) is None
