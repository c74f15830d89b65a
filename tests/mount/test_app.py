"""EventSourceApp: its defaults, options, methods, paths, and the places where it can be mounted."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, NoMatchFound, Route

from mount.helpers import mounted, status
from mount.posts import kept, post, posted
from sse_asgi import (
    EventSourceApp,
    Hub,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi.backends.base import Sink
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


async def test_it_streams_the_default_channel() -> None:
    """Without any option there is one channel, and a request need not name it."""
    async with mounted() as (hub, client), client.stream("/events/") as stream:
        await hub.publish("default", "x")
        assert (await stream.next_event()).data == "x"
        assert stream.headers["content-type"] == "text/event-stream"


async def test_it_is_secure_by_default() -> None:
    """Other channels are refused unless the application allows them."""
    async with mounted() as (_, client):
        assert await status(client, "?channel=default") == 200
        assert await status(client, "?channel=secret") == 403


async def test_the_default_channel_has_the_name_you_give() -> None:
    """`default_channel` names the channel of a request that names none."""
    async with mounted(default_channel="news") as (hub, client), client.stream("/events/") as stream:
        await hub.publish("news", "x")
        assert (await stream.next_event()).data == "x"


# Options


async def test_unknown_options_are_refused_at_once() -> None:
    """Bad options are refused when the app is made, not at the first request."""
    with pytest.raises(TypeError, match="pingg"):
        EventSourceApp(Hub(), pingg=3)  # type: ignore[call-arg]
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
    """The error names the app and the nearest option, or all options."""
    options: dict[str, Any] = {option: ["a"]}
    with pytest.raises(TypeError, match=f"^EventSourceApp has no option {option}=: {advice}"):
        EventSourceApp(Hub(), **options)


async def test_a_url_is_not_a_hub() -> None:
    """The TypeError names the function that makes a hub."""
    with pytest.raises(TypeError, match=r"hub must be a Hub, as create_hub\(\) makes one \(got str\)"):
        EventSourceApp("redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize("initial", ["hello", {"a": 1}, ServerSentEvent("x")])
async def test_initial_events_are_checked_at_once(initial: Any) -> None:
    """A single event, whose letters would each be an event, is refused when the app is made."""
    with pytest.raises(TypeError, match=r"initial must be a collection of events, as in initial=\[...\]"):
        EventSourceApp(Hub(), initial=initial)


@pytest.mark.parametrize("options", [{"rewind": 1}, {"max_rewind": 1}])
async def test_a_snapshot_excludes_rewinding(options: dict[str, Any]) -> None:
    """The combination is refused when the app is made."""
    with pytest.raises(ValueError, match="leave out either snapshot, or rewind and max_rewind"):
        EventSourceApp(Hub(), snapshot=AsyncMock(), **options)
    with pytest.raises(ValueError, match="max_rewind must be a whole number"):
        EventSourceApp(Hub(), max_rewind=-1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"presence": True}, ValueError, "authorize= or tickets="),
        ({"revalidate": 5}, ValueError, "authorize="),
        ({"revalidate": 0, "authorize": str}, ValueError, "above 0"),
        ({"tickets": "secret"}, TypeError, r"ChannelSigner\(secret\)"),
        ({"on_disconnect": True}, TypeError, "on_disconnect"),
        ({"stats": True}, TypeError, "stats"),
        ({"stats": lambda _request, _channels: None}, TypeError, r"stats must be a function of \(request\)"),
        ({"authorize": lambda _request: None}, TypeError, r"authorize must be a function of \(request, channels\)"),
        ({"publish": lambda _request: None}, TypeError, r"publish must be a function of \(request, channels\)"),
        ({"channels": lambda: None}, TypeError, r"channels must be a function of \(request\)"),
        ({"on_disconnect": lambda _: None}, TypeError, r"\(request, subscription, reason\)"),
        ({"transform": lambda _: None}, TypeError, r"transform must be a function of \(event, properties\)"),
        ({"snapshot": lambda _request, _channels: None}, TypeError, r"snapshot must be a function of \(subscription\)"),
    ],
)
def test_options_that_need_others_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """Bad functions, and options without the options that they need, are refused when the app is made."""
    with pytest.raises(error, match=match):
        EventSourceApp(Hub(), **options)


async def test_streams_have_a_lifetime_where_it_costs_nothing_or_bounds_a_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default is 1800 s with history, also before its backend is up, or with `authorize`; otherwise it is None."""

    class Away(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            sink.state(up=False)
            yield

    seen: list[Any] = []

    def respond(_: Any, **options: Any) -> PlainTextResponse:
        seen.append(options["max_lifetime"])
        return PlainTextResponse("")

    monkeypatch.setattr("sse_asgi._mount.reading.EventSourceResponse", respond)
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
    assert seen == [1800.0, None, 5.0, 1800.0, 1800.0]


# Methods and paths


async def test_head_has_headers_and_no_body() -> None:
    """A HEAD request is answered with the headers of a stream, and subscribes to nothing."""
    async with mounted() as (hub, client), client.stream("/events/", method="HEAD") as stream:
        assert await stream.read() == b""
        assert stream.headers["content-type"] == "text/event-stream"
        assert hub._registry is not None
        assert not hub._registry._channels


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_other_methods_are_405_with_allow(method: str) -> None:
    """The answer names the methods that are allowed."""
    async with mounted() as (_, client), client.stream("/events/", method=method) as stream:
        assert (stream.status_code, stream.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_paths_below_are_404() -> None:
    """Only the mount point itself is served."""
    async with mounted() as (_, client), client.stream("/events/below") as stream:
        assert stream.status_code == 404


async def test_the_path_without_slash_is_redirected() -> None:
    """Starlette redirects, and EventSource follows."""
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
    """The path may contain the root path, as behind a server, or not, as behind a proxy that strips it."""
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)
    app.root_path = root_path  # as the parameter does; newer FastAPIs warn of the parameter
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
    """It opens the hub itself then, and answers refusals itself."""
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
    """The app accepts no websocket."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await EventSourceApp(Hub())({"type": "websocket", "path": "/"}, receive, send)
    assert sent == [{"type": "websocket.close"}]


async def test_urls_are_made_from_names() -> None:
    """The stream and the statistics have names, and the mount's path parameters are filled in."""
    hub = Hub()
    app = Starlette(
        routes=[
            Mount("/events", EventSourceApp(hub, stats=lambda _: None), name="events"),
            Mount("/rooms/{room}", EventSourceApp(hub, channels=["room:{room}"]), name="rooms"),
        ]
    )
    assert app.url_path_for("events:stream") == "/events/"
    assert app.url_path_for("events:stats") == "/events/stats"
    assert app.url_path_for("events:client") == "/events/client.js"
    assert app.url_path_for("rooms:stream", room="lobby") == "/rooms/lobby/"
    with pytest.raises(NoMatchFound):
        app.url_path_for("rooms:stats", room="lobby")


# Statistics


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_statistics_are_served_to_those_who_may(kind: str) -> None:
    """Allowed requests get JSON that is not cached, with the state of the hub."""

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
    """Without `stats=` the path is 404, as every path below the app."""
    async with mounted() as (_, client):
        assert await status(client, "stats") == 404


# Refusals


async def test_a_refusal_without_a_body_has_none() -> None:
    """204 ends an EventSource for good, and must not have a body."""

    def refuse(*_: Any) -> None:
        raise HTTPException(204)

    hub = Hub()
    async with EventStreamClient(EventSourceApp(hub, authorize=refuse)) as client, client.stream("/") as stream:
        assert (stream.status_code, await stream.read()) == (204, b"")


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


async def test_publishing_is_off_without_a_function() -> None:
    """A POST is 405, and the answer names the other methods."""
    async with posted(publish=None) as (_, client):
        async with client.stream("/events/", method="POST") as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_other_methods_are_405_with_post_among_the_allowed() -> None:
    """The answers name POST, and the preflight allows the header that publishers send."""
    async with posted(cors_origins="https://other.example") as (_, client):
        async with client.stream("/events/", method="PUT") as answer:
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        async with client.stream("/events/", method="OPTIONS", headers={"origin": "https://other.example"}) as answer:
            assert answer.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
            assert "Idempotency-Key" in answer.headers["access-control-allow-headers"]


async def test_a_foreign_origin_publishes_nothing() -> None:
    """A listed origin publishes, and can read every answer."""
    async with posted(cors_origins="https://other.example") as (hub, client):
        assert (await post(client, origin="https://evil.example")).status == 403
        assert await kept(hub) == []
        for body, status in (("x", 202), ("", 400)):
            answer = await post(client, body, origin="https://other.example")
            assert answer.status == status
            assert answer.headers["access-control-allow-origin"] == "https://other.example"


async def test_a_route_may_lead_to_it() -> None:
    """The whole path is the app's then."""
    hub = Hub()
    app = Starlette(routes=[Route("/news", EventSourceApp(hub))], lifespan=hub.lifespan)
    async with EventStreamClient(app) as client:
        assert await status(client, path="/news") == 200


# Types

CALLS = """\
from sse_asgi import EventSourceApp, Hub

EventSourceApp(Hub(), channels=["a"], ping_interval=5.0, max_lifetime=None, headers={"X-Mine": "1"})
EventSourceApp(Hub(), chanels=["a"])
EventSourceApp(Hub(), ping_intervall=5.0)
EventSourceApp(Hub(), ping_interval="5")
"""


def test_a_type_checker_knows_every_option(tmp_path: Path) -> None:
    """A misspelt option and a wrong type are errors; a right call is not, also with options of the response."""
    mypy = pytest.importorskip("mypy.api")
    calls = tmp_path / "calls.py"
    calls.write_text(CALLS)
    options = ["--strict", "--no-error-summary", "--hide-error-context", f"--cache-dir={tmp_path / 'cache'}"]
    report, failure, _ = mypy.run([*options, str(calls)])
    errors = dict(re.findall(r"calls.py:(\d+): error: (.*)", report))
    assert failure == ""
    assert errors.keys() == {"4", "5", "6"}
    assert 'did you mean "channels"?' in errors["4"]
    assert 'did you mean "ping_interval"?' in errors["5"]
    assert 'incompatible type "str"' in errors["6"]


# Up to an event


async def test_a_stream_may_end_with_an_event() -> None:
    """Then it is over for the client, also where the page is of another origin."""
    page = {"origin": "https://app.example"}
    async with mounted(until="done", cors_origins=[page["origin"]]) as (hub, client):
        async with client.stream("/events/") as stream:
            await hub.publish("default", "x", event="done")
            assert [event.event async for event in stream] == ["done", "sse.end"]
        async with client.stream("/events/", last_event_id="sse.end", headers=page) as again:
            assert (again.status_code, again.headers["access-control-allow-origin"]) == (204, page["origin"])
            assert (again.headers["cache-control"], "content-type" in again.headers) == ("no-store", False)


@pytest.mark.parametrize(
    ("until", "options", "error", "expected"),
    [
        (5, {}, TypeError, "until must be the type of an event, as in until='done' (got 5)"),
        ("sse.end", {}, ValueError, "until must be the type of an event that you publish (got 'sse.end')"),
        ("done", {"reconnect_after_end": True}, ValueError, "until and reconnect_after_end exclude each other"),
    ],
)
async def test_a_bad_end_is_refused_at_once(until: Any, options: Any, error: type[Exception], expected: str) -> None:
    """When the app is made, not at the first request."""
    with pytest.raises(error, match=re.escape(expected)):
        EventSourceApp(Hub(), until=until, **options)
