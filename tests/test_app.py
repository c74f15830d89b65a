"""EventSourceApp: resuming, options, methods and paths, and where it can be mounted."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, NoMatchFound

from mounting import mounted, status
from sse_asgi import EventSourceApp, Hub, MemoryBackend, ServerSentEvent, Subscription
from sse_asgi._options import is_personal
from sse_asgi.backends.base import Sink
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
    """Up to `max_rewind` of them, before what comes later."""
    async with mounted(max_rewind=3) as (hub, client):
        for number in range(5):
            await hub.publish("default", number)
        async with client.stream(f"/events/?{query}") as stream:
            await hub.publish("default", "live")
            got = [(await stream.next_event()).data for _ in (*expected, "live")]
    assert got == [*expected, "live"]


async def test_a_reconnect_to_the_same_url_does_not_rewind() -> None:
    """An EventSource comes back with its id, and goes on after it."""
    async with mounted(max_rewind=math.inf) as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream("/events/?rewind=all", last_event_id=first) as stream:
            assert (await stream.next_event()).data == "2"


async def test_a_poll_may_ask_for_the_newest_events() -> None:
    """As a stream may."""
    async with mounted(max_rewind=2) as (hub, client):
        for number in range(3):
            await hub.publish("default", number)
        async with client.stream("/events/?poll=1&rewind=all", headers={"accept": "*/*"}) as answer:
            told = json.loads(await answer.read())
    assert [event["data"] for event in told["events"]] == ["1", "2"]


async def test_an_app_may_rewind_by_itself() -> None:
    """`rewind=` is for requests that do not say."""
    async with mounted(rewind=math.inf, max_rewind=1) as (hub, client):
        for number in range(3):
            await hub.publish("default", number)
        async with client.stream("/events/") as stream:
            assert [(await stream.next_event()).data for _ in range(3)] == ["0", "1", "2"]
        async with client.stream("/events/?rewind=5") as stream:
            assert (await stream.next_event()).data == "2"


async def test_rewinding_must_be_allowed() -> None:
    """The answer is 400 and names the option; zero asks for nothing."""
    async with mounted() as (_, client):
        assert await status(client, "?rewind=0") == 200
        for asked in ("1", "all"):
            async with client.stream(f"/events/?rewind={asked}") as answer:
                assert answer.status_code == 400
                assert b"max_rewind" in await answer.read()


@pytest.mark.parametrize("bad", ["", "-1", "1.5", "ALL", "inf", "²", "1e3"])
async def test_a_request_for_no_number_of_events_is_refused(bad: str) -> None:
    """400, which says what it may be."""
    async with mounted(max_rewind=5) as (_, client):
        async with client.stream(f"/events/?rewind={quote(bad)}") as answer:
            assert answer.status_code == 400
            assert b"a number of events or all" in await answer.read()


@pytest.mark.parametrize("options", [{"rewind": 1}, {"max_rewind": 1}])
async def test_a_snapshot_excludes_rewinding(options: dict[str, Any]) -> None:
    """At start-up, not at the first request."""
    with pytest.raises(ValueError, match="leave out either snapshot, or rewind and max_rewind"):
        EventSourceApp(Hub(), snapshot=AsyncMock(), **options)
    with pytest.raises(ValueError, match="max_rewind must be a whole number"):
        EventSourceApp(Hub(), max_rewind=-1)


# Unreadable ids


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


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ("chanels", r"did you mean channels=\?"),
        ("ping_intervall", r"did you mean ping_interval=\?"),
        ("ping", r"did you mean ping_interval=\?"),
        ("cors", r"did you mean cors_headers= or cors_origins=\?"),
        ("xyz", "known: auth"),
    ],
)
async def test_a_misspelt_option_is_named_as_the_apps(option: str, advice: str) -> None:
    """The error names the app, and the option that is meant, or all that there are."""
    options: dict[str, Any] = {option: ["a"]}
    with pytest.raises(TypeError, match=f"^EventSourceApp has no option {option}=: {advice}"):
        EventSourceApp(Hub(), **options)


async def test_a_url_is_not_a_hub() -> None:
    """It is a TypeError that names what makes one."""
    with pytest.raises(TypeError, match=r"hub must be a Hub, as create_hub\(\) makes one \(got str\)"):
        EventSourceApp("redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize("initial", ["hello", {"a": 1}, ServerSentEvent("x")])
async def test_initial_events_are_looked_at_at_once(initial: Any) -> None:
    """A single one, whose letters would each be an event, is refused when the app is made."""
    with pytest.raises(TypeError, match=r"initial must be a collection of events, as in initial=\[...\]"):
        EventSourceApp(Hub(), initial=initial)


async def test_a_snapshot_may_be_made_for_its_reader() -> None:
    """If it needs an argument, that is the subscription, which says who reads what."""

    async def state(subscription: Subscription) -> str:
        return f"{subscription.options.properties} reads {', '.join(subscription.channels)}"

    names = iter(["ada", "bob"])
    async with mounted(authorize=lambda *_: next(names), snapshot=state) as (_, client):
        for name in ("ada", "bob"):
            async with client.stream("/events/?channel=a&channel=b") as stream:
                event = await stream.next_event()
                assert (event.event, event.data) == ("snapshot", f"{name} reads a, b")


async def test_a_snapshot_of_which_nothing_is_known_is_called_without_arguments() -> None:
    """Of one with a default, as of one that is written in C."""
    async with mounted(snapshot=AsyncMock(return_value="x")) as (_, client), client.stream("/events/") as stream:
        assert (await stream.next_event()).data == "x"
    assert not is_personal(str)  # type: ignore[arg-type]


async def test_streams_have_a_lifetime_where_it_costs_nothing_or_bounds_a_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1800 s with history, also before its backend was there, or with `authorize`; else none, or whatever was given."""

    class Away(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            sink.state(up=False)
            yield

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
    async with mounted(Hub(MemoryBackend(history_size=0)), authorize=lambda *_: None) as (_, client):
        await status(client)
    async with mounted(Hub(Away())) as (_, client):
        await status(client)
    assert seen[1::2] == [1800.0, None, 5.0, 1800.0, 1800.0]


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


@pytest.mark.parametrize(
    ("path", "options", "root_path"),
    [
        ("/events", {}, "/api"),
        ("/api/events", {"root_path": "/api"}, ""),
        ("/api/events", {"root_path": "/api"}, "/api"),
        ("/api/events", {}, "/api"),
        ("/events", {}, "/events-of-mine"),
    ],
    ids=["FastAPI's", "the server's", "both", "FastAPI's, not stripped", "one that begins the same"],
)
async def test_it_finds_itself_below_a_root_path(path: str, options: dict[str, Any], root_path: str) -> None:
    """Whether the path has it, as a server's has, or has not, as where a proxy strips what FastAPI was told."""
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)
    app.root_path = root_path  # as the parameter does, of which newer FastAPIs warn
    app.mount("/events", EventSourceApp(hub, stats=lambda _: None))
    async with EventStreamClient(app) as client:
        async with client.stream(f"{path}/", **options) as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
        async with client.stream(f"{path}/stats", **options) as stream:
            assert json.loads(await stream.read())["hub"] == "up"
        async with client.stream(f"{path}/below", **options) as stream:
            assert stream.status_code == 404


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


# What clients ask for by the query


@pytest.mark.parametrize("name", ["evs_last_event_id", "Last-Event-ID"])
async def test_polyfills_give_the_id_by_names_of_their_own(name: str) -> None:
    """Those that cannot set the header."""
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
    """A polyfill's is newer than that of the page's URL, and the last of several is newer than those before it."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        async with client.stream(f"/events/?{query.format(first)}") as stream:
            assert (await stream.next_event()).data == "2"


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
    """A comment of so many bytes, before the retry and the events."""
    async with mounted(retry=1000) as (_, client), client.stream(f"/events/?{query}") as stream:
        await stream.received(b"id: ")
        assert stream.content.startswith(b":" + b" " * (size - 2) + b"\nretry: 1000\n")


@pytest.mark.parametrize("query", ["", "?padding=false", "?padding=", "?padding=0"])
async def test_there_is_no_padding_for_those_that_want_none(query: str) -> None:
    """The stream begins with its position."""
    async with mounted() as (_, client), client.stream(f"/events/{query}") as stream:
        await stream.received(b"\n\n")
        assert stream.content.startswith(b"id: ")


async def test_an_app_may_pad_for_all() -> None:
    """Except for those that want none."""
    async with mounted(padding=100) as (_, client):
        async with client.stream("/events/") as stream:
            await stream.received(b"id: ")
            assert stream.content.index(b"\n") == 99
        async with client.stream("/events/?padding=false") as stream:
            await stream.received(b"id: ")
            assert stream.content.startswith(b"id: ")


@pytest.mark.parametrize("value", ["x", "-1", "8193", "99999", "1e3", "٣", "9" * 5000])
async def test_bad_padding_is_400(value: str) -> None:
    """With what is allowed."""
    async with mounted() as (_, client), client.stream(f"/events/?padding={quote(value)}") as stream:
        assert stream.status_code == 400
        assert b"up to 8192" in await stream.read()


# Named routes


async def test_urls_are_made_from_names() -> None:
    """The stream's and the statistics', with the path parameters of the mount."""
    hub = Hub()
    app = Starlette(
        routes=[
            Mount("/events", EventSourceApp(hub, stats=lambda _: None), name="events"),
            Mount("/rooms/{room}", EventSourceApp(hub, channels=["room:{room}"]), name="rooms"),
        ]
    )
    assert app.url_path_for("events:stream") == "/events/"
    assert app.url_path_for("events:stats") == "/events/stats"
    assert app.url_path_for("rooms:stream", room="lobby") == "/rooms/lobby/"
    with pytest.raises(NoMatchFound):
        app.url_path_for("rooms:stats", room="lobby")


# The end


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_on_disconnect_hears_of_the_end(kind: str) -> None:
    """With the request, the subscription and the reason, when the stream has left its channels."""
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


# Statistics


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_statistics_are_served_to_those_who_may(kind: str) -> None:
    """As JSON that nobody keeps, with the state of the hub."""

    def check(request: Request) -> None:
        if "x-admin" not in request.headers:
            raise HTTPException(403, "not for you")

    async def check_async(request: Request) -> None:
        check(request)

    async with mounted(stats=check if kind == "sync" else check_async, cors_origins="*") as (hub, client):
        assert await status(client, "stats") == 403
        await hub.publish("default", "x")
        async with client.stream("/events/"):
            headers = {"x-admin": "1", "origin": "https://a.example"}
            async with client.stream("/events/stats", headers=headers) as stream:
                assert json.loads(await stream.read()) == {**hub.stats()._asdict(), "hub": "up"}
                assert stream.headers["cache-control"] == "no-store"
                assert stream.headers["access-control-allow-origin"] == "*"
        async with client.stream("/events/stats", method="POST") as stream:
            assert (stream.status_code, stream.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_there_are_no_statistics_unless_they_are_asked_for() -> None:
    """404, as any path below."""
    async with mounted() as (_, client):
        assert await status(client, "stats") == 404


# Refusals of the outermost app


async def test_a_refusal_without_a_body_has_none() -> None:
    """204 ends an EventSource for good, and must not have a text."""

    def refuse(*_: Any) -> None:
        raise HTTPException(204)

    hub = Hub()
    async with EventStreamClient(EventSourceApp(hub, authorize=refuse)) as client, client.stream("/") as stream:
        assert (stream.status_code, await stream.read()) == (204, b"")
