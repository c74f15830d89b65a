"""EventSourceApp: channels, access, origins, methods, and where it can be mounted."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from sse_asgi import EventSourceApp, Hub, MemoryBackend, ServerSentEvent
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def mounted(hub: Hub | None = None, **options: Any) -> AsyncIterator[tuple[Hub, EventStreamClient]]:
    hub = hub or Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub, **options), name="events")], lifespan=hub.lifespan)
    async with EventStreamClient(app) as client:
        yield hub, client


async def status(client: EventStreamClient, query: str = "", **options: Any) -> int:
    async with client.stream(f"/events/{query}", **options) as stream:
        return stream.status_code


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


async def test_a_star_serves_any_name() -> None:
    """The explicit way to let the query decide; several channels in one stream."""
    async with mounted(channels="*") as (hub, client):
        async with client.stream("/events/?channel=a&channel=b") as stream:
            await hub.publish("a", "1")
            await hub.publish("b", "2")
            assert [(await stream.next_event()).data for _ in range(2)] == ["1", "2"]
        assert await status(client) == 200


@pytest.mark.parametrize("channels", [["a", "b"], {"a": 1, "b": 2}, ("a", "b")])
async def test_a_collection_allows_its_names(channels: Any) -> None:
    """Others are 403; without `?channel=` the stream has all of them."""
    async with mounted(channels=channels) as (hub, client):
        assert await status(client, "?channel=a") == 200
        assert await status(client, "?channel=a&channel=c") == 403
        async with client.stream("/events/") as stream:
            await hub.publish("b", "x")
            assert (await stream.next_event()).data == "x"


async def test_one_name_is_a_collection_of_one() -> None:
    """`channels="news"`."""
    async with mounted(channels="news") as (_, client):
        assert await status(client, "?channel=news") == 200
        assert await status(client, "?channel=n") == 403


@pytest.mark.parametrize("kind", ["sync", "async", "single"])
async def test_a_function_chooses_and_the_query_does_not(kind: str) -> None:
    """From the request, which may be awaited for."""

    async def later(request: Request) -> list[str]:
        return [f"user:{request.headers['x-user']}"]

    choices: dict[str, Any] = {
        "sync": lambda request: [f"user:{request.headers['x-user']}"],
        "single": lambda request: f"user:{request.headers['x-user']}",
        "async": later,
    }
    async with mounted(channels=choices[kind]) as (hub, client):
        async with client.stream("/events/?channel=other", headers={"x-user": "ann"}) as stream:
            await hub.publish("other", "not this")
            await hub.publish("user:ann", "this")
            assert (await stream.next_event()).data == "this"


@pytest.mark.parametrize("channels", ["*", None])
async def test_the_librarys_own_channels_are_never_served(channels: Any) -> None:
    """Names beginning with `sse.`, whatever is allowed."""
    async with mounted(channels=channels, authorize=lambda *_: None) as (_, client):
        assert await status(client, "?channel=sse.presence") == 403


@pytest.mark.parametrize("options", [{"channels": ["a", "sse.x"]}, {"default_channel": "sse.x"}, {"channels": "sse.x"}])
async def test_the_librarys_own_channels_cannot_be_offered(options: dict[str, Any]) -> None:
    """A ValueError where the app is made."""
    with pytest.raises(ValueError, match="never served"):
        EventSourceApp(Hub(), **options)


@pytest.mark.parametrize("chosen", [[], "sse.x", ["a", "sse.x"]])
async def test_a_function_that_chooses_nothing_refuses(chosen: Any) -> None:
    """No channel, or one of the library's own: 403."""
    async with mounted(channels=lambda _: chosen) as (_, client):
        assert await status(client) == 403


@pytest.mark.parametrize("name", ["", "a%0Ab", "%00", "x" * 513])
async def test_bad_names_are_400(name: str) -> None:
    """With the reason."""
    async with mounted(channels="*") as (_, client), client.stream(f"/events/?channel={name}") as stream:
        assert stream.status_code == 400
        assert b"channel" in await stream.read()


async def test_too_many_channels_are_400_with_the_limit() -> None:
    """100, unless another limit was given."""
    async with mounted(channels="*") as (_, client):
        async with client.stream("/events/", params={"channel": [str(n) for n in range(101)]}) as stream:
            assert stream.status_code == 400
            assert b"at most 100" in await stream.read()
        assert await status(client, params={"channel": [str(n) for n in range(100)]}) == 200
    async with mounted(channels="*", max_channels=1) as (_, client):
        assert await status(client, "?channel=a&channel=b") == 400


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


# Access


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_authorize_lets_through_and_gives_properties(kind: str) -> None:
    """With it any channel may be asked for; what it returns is the reader's properties."""

    def check(request: Request, channels: tuple[str, ...]) -> dict[str, Any]:
        return {"user": request.headers["x-user"], "channels": channels}

    async def check_later(request: Request, channels: tuple[str, ...]) -> dict[str, Any]:
        return check(request, channels)

    options: dict[str, Any] = {
        "authorize": check if kind == "sync" else check_later,
        "transform": lambda event, properties: ServerSentEvent(properties | {"data": event.data}),
    }
    async with mounted(**options) as (hub, client):
        async with client.stream("/events/?channel=a", headers={"x-user": "ann"}) as stream:
            await hub.publish("a", "x")
            assert (await stream.next_event()).data == '{"user":"ann","channels":["a"],"data":"x"}'


async def test_authorize_refuses_on_resuming_too() -> None:
    """An HTTPException is the answer, with its headers, and nothing was subscribed."""

    def refuse(*_: Any) -> None:
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    async with mounted(authorize=refuse, cors_origins=["https://other.example"]) as (hub, client):
        first = await hub.publish("default", "x")
        headers = {"origin": "https://other.example"}
        async with client.stream("/events/", last_event_id=first, headers=headers) as stream:
            assert stream.status_code == 401
            assert stream.headers["www-authenticate"] == "Bearer"
            assert stream.headers["access-control-allow-origin"] == "https://other.example"
            assert await stream.read() == b"who are you?"
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_the_applications_exception_handlers_answer() -> None:
    """Refusals look like all other errors of the application."""
    hub = Hub()

    async def handler(_: Request, error: Exception) -> PlainTextResponse:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(f"custom {error.status_code}", error.status_code)

    app = Starlette(
        routes=[Mount("/events", EventSourceApp(hub))],
        exception_handlers={HTTPException: handler},
        lifespan=hub.lifespan,
    )
    async with EventStreamClient(app) as client, client.stream("/events/?channel=other") as stream:
        assert await stream.read() == b"custom 403"


# Origins


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://testserver", "testserver"),
        ("https://testserver", "testserver"),
        ("https://testserver", "testserver:443"),
        ("http://testserver:8000", "testserver:8000"),
        ("http://TESTSERVER", "testserver"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
async def test_the_own_origin_needs_no_permission(origin: str, host: str) -> None:
    """Host and port are the request's; a proxy may have taken the TLS off."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": origin, "host": host}) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://testserver:81", "http://testserver.evil", "http://x:y", "x"]
)
async def test_a_foreign_origin_gets_no_stream(origin: str) -> None:
    """403 before anything is subscribed, without CORS headers."""
    called: list[Any] = []
    async with mounted(authorize=lambda *a: called.append(a)) as (_, client):
        async with client.stream("/events/", headers={"origin": origin}) as stream:
            assert stream.status_code == 403
            assert "access-control-allow-origin" not in stream.headers
    assert not called


async def test_a_listed_origin_may_read_with_credentials() -> None:
    """It is named in the answer, which caches must not mix up."""
    async with mounted(cors_origins=["https://other.example"]) as (_, client):
        async with client.stream("/events/", headers={"origin": "https://other.example"}) as stream:
            assert stream.headers["access-control-allow-origin"] == "https://other.example"
            assert stream.headers["access-control-allow-credentials"] == "true"
            assert stream.headers["vary"] == "Origin"
        async with client.stream("/events/") as stream:
            assert stream.headers["vary"] == "Origin"
        assert await status(client, headers={"origin": "https://evil.example"}) == 403


@pytest.mark.parametrize("origins", ["*", ["*"]])
async def test_a_star_lets_any_origin_read_without_credentials(origins: Any) -> None:
    """Never a reflected unknown origin."""
    async with mounted(cors_origins=origins) as (_, client):
        async with client.stream("/events/", headers={"origin": "https://other.example"}) as stream:
            assert stream.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in stream.headers


async def test_preflight_is_answered() -> None:
    """Methods and the headers that clients send, for origins that may read; 403 for others."""
    async with mounted(cors_origins="https://other.example") as (_, client):
        headers = {"origin": "https://other.example", "access-control-request-method": "GET"}
        async with client.stream("/events/", method="OPTIONS", headers=headers) as stream:
            assert stream.status_code == 204
            assert stream.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            assert "Last-Event-ID" in stream.headers["access-control-allow-headers"]
            assert await stream.read() == b""
        assert await status(client, method="OPTIONS", headers={"origin": "https://evil.example"}) == 403
        async with client.stream("/events/", method="OPTIONS") as stream:
            assert (stream.status_code, stream.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


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
