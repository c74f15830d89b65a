"""Reading over HTTP: resuming, the options of streams, and the report of their end."""

import json
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.requests import Request

from mount.helpers import mounted, status
from mount.polls import poll, polled
from sse_asgi import (
    Hub,
    ServerSentEvent,
    Subscription,
)
from sse_asgi._hub.options import is_personal

pytestmark = pytest.mark.anyio


# Resuming


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId"])
async def test_the_id_may_come_in_the_query(name: str) -> None:
    """A page that made a new EventSource can send its last id."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream(f"/events/?{name}={first}") as stream:
            assert (await stream.next_event()).data == "2"


async def test_the_header_wins() -> None:
    """A browser that reconnects sends both, and the header is newer."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        second = await hub.publish("default", "2")
        await hub.publish("default", "3")
        async with client.stream(f"/events/?last_event_id={first}", last_event_id=second) as stream:
            assert (await stream.next_event()).data == "3"


@pytest.mark.parametrize("name", ["evs_last_event_id", "Last-Event-ID"])
async def test_polyfills_give_the_id_by_names_of_their_own(name: str) -> None:
    """Some polyfills cannot set the header."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream(f"/events/?{name}={first}") as stream:
            assert (await stream.next_event()).data == "2"


@pytest.mark.parametrize(
    "query",
    [
        "last_event_id=x&lastEventId={}",
        "lastEventId={}&last_event_id=x",
        "lastEventId=x&lastEventId={}",
        "lastEventId=x&evs_last_event_id={}",
        "last_event_id=x&last_event_id={}",
        "last_event_id={}&lastEventId=",
    ],
)
async def test_the_newest_of_several_ids_counts(query: str) -> None:
    """A polyfill's id is newer than the id in the page's URL, and the last of several ids is the newest."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream(f"/events/?{query.format(first)}") as stream:
            assert (await stream.next_event()).data == "2"


@pytest.mark.parametrize("bad", ["x", "é😀", "0" * 4096])
async def test_an_unreadable_id_is_a_gap_never_an_error(bad: str) -> None:
    """The status is 200, and the stream begins with `sse.gap`."""
    async with mounted() as (_, client), client.stream("/events/", last_event_id=bad) as stream:
        assert stream.status_code == 200
        assert (await stream.next_event()).event == "sse.gap"


# Options of subscriptions and of responses


async def test_options_of_subscribe_and_the_response_are_passed_on() -> None:
    """Initial events, snapshot, transform, retry and headers apply to each stream."""

    async def snapshot() -> str:
        return "state"

    options: dict[str, Any] = {
        "initial": ["hello"],
        "snapshot": snapshot,
        "transform": lambda event, _: ServerSentEvent(f"<{event.data}>"),
        "retry": 5000,
        "headers": {"X-Mine": "1"},
    }
    async with mounted(**options) as (hub, client), client.stream("/events/") as stream:
        await hub.publish("default", "x")
        assert [(await stream.next_event()).data for _ in range(3)] == ["hello", "state", "<x>"]
        assert stream.retry == 5000
        assert stream.headers["x-mine"] == "1"


async def test_a_snapshot_may_be_made_for_its_reader() -> None:
    """A snapshot with a parameter gets the subscription, which has the channels and the properties."""

    async def state(subscription: Subscription) -> str:
        return f"{subscription.options.properties} reads {', '.join(subscription.channels)}"

    names = iter(["ada", "bob"])
    async with mounted(authorize=lambda *_: next(names), snapshot=state) as (_, client):
        for name in ("ada", "bob"):
            async with client.stream("/events/?channel=a&channel=b") as stream:
                event = await stream.next_event()
                assert (event.event, event.data) == ("snapshot", f"{name} reads a, b")


async def test_a_snapshot_without_a_known_signature_gets_no_arguments() -> None:
    """A function with only defaults, or written in C, is called without arguments."""
    async with mounted(snapshot=AsyncMock(return_value="x")) as (_, client), client.stream("/events/") as stream:
        assert (await stream.next_event()).data == "x"
    assert not is_personal(str)  # type: ignore[arg-type]


# The end


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_disconnect_hears_of_the_end(kind: str) -> None:
    """It is called with the request, the subscription and the reason, after the stream has left its channels."""
    heard: list[Any] = []

    def left(request: Request, subscription: Subscription, reason: str) -> None:
        heard.append((request.url.path, subscription.channels, reason, hub.stats().connections))

    async def left_async(request: Request, subscription: Subscription, reason: str) -> None:
        left(request, subscription, reason)

    hub = Hub()
    async with mounted(hub, on_disconnect=left if kind == "sync" else left_async) as (_, client):
        async with client.stream("/events/") as stream:
            stream.disconnect()
            await stream.ended()
        async with client.stream("/events/") as stream:
            await hub.drain()
            await stream.read()
        assert await status(client, method="HEAD") == 200
        assert await status(client, "?channel=other") == 403
    assert heard == [("/events/", ("default",), "client", 0), ("/events/", ("default",), "shutdown", 0)]


async def test_a_poll_may_ask_for_the_newest_events() -> None:
    """A poll rewinds as a stream does."""
    async with mounted(max_rewind=2) as (hub, client):
        for number in range(3):
            await hub.publish("default", number)
        async with client.stream("/events/?poll=1&rewind=all", headers={"accept": "*/*"}) as answer:
            told = json.loads(await answer.read())
    assert [event["data"] for event in told["events"]] == ["1", "2"]


async def test_an_app_may_pad_for_all() -> None:
    """`padding=` applies to requests without `?padding=`."""
    async with mounted(padding=100) as (_, client):
        async with client.stream("/events/") as stream:
            await stream.received(b"id: ")
            assert stream.content.index(b"\n") == 99
        async with client.stream("/events/?padding=false") as stream:
            await stream.received(b"id: ")
            assert stream.content.startswith(b"id: ")


async def test_the_position_moves_without_an_event() -> None:
    """The id of a quiet reader never falls out of history, even if streams have no position frames."""
    async with polled(channels=["a", "b"], position_frames=False) as (hub, client):
        start = (await poll(client, query="&channel=a"))["last_event_id"]
        last = await hub.publish("b", "x")
        assert start
        assert (await poll(client, start, "&channel=a"))["last_event_id"] == last
