"""EventSourceApp: resuming, options, methods and paths, and where it can be mounted."""

from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from mounting import mounted, status
from sse_asgi import EventSourceApp, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


async def test_it_streams_the_default_channel() -> None:
    """Without any option there is one channel, and nothing to ask for."""
    async with mounted() as (hub, client), client.stream("/events/") as stream:
        await hub.publish("default", "x")
        assert (await stream.next_event()).data == "x"
        assert stream.headers["content-type"] == "text/event-stream"


async def test_it_is_secure_by_default() -> None:
    """Another channel is refused unless it was allowed."""
    async with mounted() as (_, client):
        assert await status(client, "?channel=default") == 200
        assert await status(client, "?channel=secret") == 403


async def test_the_default_channel_has_the_name_you_give() -> None:
    """`default_channel`."""
    async with mounted(default_channel="news") as (hub, client), client.stream("/events/") as stream:
        await hub.publish("news", "x")
        assert (await stream.next_event()).data == "x"


# Resuming


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId"])
async def test_the_id_may_come_in_the_query(name: str) -> None:
    """For a page that made a new EventSource."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream(f"/events/?{name}={first}") as stream:
            assert (await stream.next_event()).data == "2"


async def test_the_header_wins() -> None:
    """A browser that reconnects sends both; the header is the newer one."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        second = await hub.publish("default", "2")
        await hub.publish("default", "3")
        async with client.stream(f"/events/?last_event_id={first}", last_event_id=second) as stream:
            assert (await stream.next_event()).data == "3"


@pytest.mark.parametrize("bad", ["x", "é😀", "0" * 4096])
async def test_an_unreadable_id_is_a_gap_never_an_error(bad: str) -> None:
    """200, and the stream begins with sse.gap."""
    async with mounted() as (_, client), client.stream("/events/", last_event_id=bad) as stream:
        assert stream.status_code == 200
        assert (await stream.next_event()).event == "sse.gap"


# Options of subscribe and of the response


async def test_options_of_subscribe_and_the_response_are_passed_on() -> None:
    """Initial, snapshot and transform, retry and headers."""

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


async def test_unknown_options_are_refused_at_once() -> None:
    """Where the app is made, not at the first request."""
    with pytest.raises(TypeError, match="pingg"):
        EventSourceApp(Hub(), pingg=3)
    with pytest.raises(ValueError, match="ping_interval"):
        EventSourceApp(Hub(), ping_interval=0)
    with pytest.raises(ValueError, match="channel"):
        EventSourceApp(Hub(), default_channel="")
    with pytest.raises(TypeError, match="authorize"):
        EventSourceApp(Hub(), authorize=True)  # type: ignore[arg-type]


async def test_streams_have_a_lifetime_where_history_makes_it_lossless(monkeypatch: pytest.MonkeyPatch) -> None:
    """1800 s with history, none without, and whatever was given."""
    seen: list[Any] = []

    def respond(_: Any, **options: Any) -> PlainTextResponse:
        seen.append(options["max_lifetime"])
        return PlainTextResponse("")

    monkeypatch.setattr("sse_asgi._app.EventSourceResponse", respond)
    async with mounted() as (_, client):
        await status(client)
    async with mounted(Hub(MemoryBackend(history_size=0))) as (_, client):
        await status(client)
    async with mounted(Hub(MemoryBackend(history_size=0)), max_lifetime=5.0) as (_, client):
        await status(client)
    assert seen[1::2] == [1800.0, None, 5.0]


# Methods and paths


async def test_head_has_headers_and_no_body() -> None:
    """And subscribes nothing."""
    async with mounted() as (hub, client), client.stream("/events/", method="HEAD") as stream:
        assert await stream.read() == b""
        assert stream.headers["content-type"] == "text/event-stream"
        assert hub._registry is not None
        assert not hub._registry._channels


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405_with_allow(method: str) -> None:
    """Nothing else is served."""
    async with mounted() as (_, client), client.stream("/events/", method=method) as stream:
        assert (stream.status_code, stream.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_paths_below_are_404() -> None:
    """Only the mount point itself is served."""
    async with mounted() as (_, client), client.stream("/events/below") as stream:
        assert stream.status_code == 404


async def test_the_path_without_slash_is_redirected() -> None:
    """By Starlette, which EventSource follows."""
    async with mounted() as (_, client), client.stream("/events") as stream:
        assert (stream.status_code, stream.headers["location"]) == (307, "http://testserver/events/")


async def test_it_can_be_the_outermost_application() -> None:
    """Then it opens the hub itself, and answers refusals itself."""
    hub = Hub()
    async with EventStreamClient(EventSourceApp(hub)) as client:
        assert hub.state == "up"
        async with client.stream("/") as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
        async with client.stream("/?channel=other") as stream:
            assert stream.status_code == 403
            assert b"'other' is not served here" in await stream.read()
    assert hub.state == "closed"


async def test_a_websocket_is_closed() -> None:
    """There is nothing behind it."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await EventSourceApp(Hub())({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close"}]
