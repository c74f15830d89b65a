"""Access: authorization at the start, authorization of open streams, and presence."""

import time
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from mount.helpers import mounted, status
from sse_asgi import (
    ChannelSigner,
    EventSourceApp,
    Grant,
    Hub,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi._mount.access import Access, Admission
from sse_asgi._mount.channels import ServedChannels
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_authorize_lets_through_and_gives_properties(kind: str) -> None:
    """It allows every channel, and returns the reader's properties."""

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


@pytest.mark.parametrize("answer", [False, True, PlainTextResponse("no", 403)])
@pytest.mark.parametrize("name", ["authorize", "publish", "stats"])
async def test_a_result_that_looks_like_a_refusal_is_an_error(name: str, answer: Any) -> None:
    """A bool or a response is an error, which says how to refuse."""
    hub = Hub()
    options: dict[str, Any] = {name: lambda *_: answer}
    app = EventSourceApp(hub, **options)
    request = {"publish": ("/", "POST"), "stats": ("/stats", "GET"), "authorize": ("/", "GET")}[name]
    headers = {"content-type": "text/plain"}
    async with hub:
        with pytest.raises(TypeError, match=rf"{name} returned .* raise HTTPException\(403\)"):
            async with EventStreamClient(app).stream(request[0], method=request[1], headers=headers, body=b"x"):
                pass
        assert await hub.history("default") == []


async def test_a_reader_that_is_disconnected_while_authorize_runs_does_not_stay() -> None:
    """The function may have read the permission before it was withdrawn."""
    asked, answer = anyio.Event(), anyio.Event()

    async def authorize(*_: Any) -> str:
        asked.set()
        await answer.wait()
        return "ada"

    async with mounted(authorize=authorize) as (hub, client), anyio.create_task_group() as tasks:

        async def disconnect() -> None:
            await asked.wait()
            await hub.disconnect(identity="ada")
            await anyio.wait_all_tasks_blocked()
            answer.set()

        tasks.start_soon(disconnect)
        async with client.stream("/events/") as stream:
            assert b"retry:" in await stream.read()


async def test_authorize_refuses_on_resuming_too() -> None:
    """An HTTPException is the answer, with its headers, and nothing is subscribed."""

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
        assert hub.subscriptions() == []


# Grants


class Clock:
    """The time of day as a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        monkeypatch.setattr("time.time", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def test_a_grant_gives_properties_and_an_identity() -> None:
    """The subscription has both."""
    hub = Hub()
    async with mounted(hub, authorize=lambda *_: Grant({"tenant": 7}, identity="ada")) as (_, client):
        async with client.stream("/events/"):
            (subscription,) = hub.subscriptions()
            assert subscription.options.properties == {"tenant": 7}
            assert subscription.options.identity == "ada"


async def test_a_str_is_properties_and_identity() -> None:
    """A str is the short form of a grant; an empty one has no identity."""
    names = iter(["ada", ""])
    hub = Hub()
    async with mounted(hub, authorize=lambda *_: next(names)) as (_, client):
        async with client.stream("/events/"), client.stream("/events/"):
            seen = {(one.options.properties, one.options.identity) for one in hub.subscriptions()}
            assert seen == {("ada", "ada"), ("", None)}


async def test_a_grant_that_has_expired_is_401() -> None:
    """Nothing is subscribed."""
    async with mounted(authorize=lambda *_: Grant(expires_at=time.time())) as (hub, client):
        async with client.stream("/events/") as stream:
            assert stream.status_code == 401
            assert "www-authenticate" in stream.headers
        assert hub.stats().connections == 0


@pytest.mark.parametrize("kind", ["seconds", "datetime"])
async def test_a_stream_ends_when_its_grant_does(kind: str) -> None:
    """The browser is told to reconnect, and is authorised afresh."""

    def authorize(*_: Any) -> Grant:
        when = datetime.now(UTC) + timedelta(seconds=0.05)
        return Grant(expires_at=when if kind == "datetime" else when.timestamp())

    reasons: list[str] = []
    async with mounted(authorize=authorize, on_disconnect=lambda *heard: reasons.append(heard[2])) as (_, client):
        async with client.stream("/events/") as stream:
            await stream.read()
            assert stream.complete
            assert stream.retry is not None
    assert reasons == ["revoked"]


async def test_a_clock_that_is_set_is_looked_at_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grant ends by the time of day, which may be set while an alarm waits."""
    monkeypatch.setattr("sse_asgi._mount.access.LOOK_SECONDS", 0.01)
    async with mounted(authorize=lambda *_: Grant(expires_at=clock.now + 3600)) as (_, client):
        async with client.stream("/events/") as stream:
            clock.now += 3600
            await stream.read()


async def test_a_grant_may_expire_before_the_reader_has_joined() -> None:
    """The stream starts, and ends at once."""
    held = anyio.Event()

    class Slow(MemoryBackend):
        async def subscribe(self, channels: Any) -> Any:
            await held.wait()
            return await super().subscribe(channels)

    def authorize(*_: Any) -> Grant:
        return Grant(expires_at=time.time() + 0.02)

    async with mounted(Hub(Slow()), authorize=authorize, start_timeout=0.1) as (_, client):
        async with client.stream("/events/") as stream:
            held.set()
            assert b"retry:" in await stream.read()


async def test_a_grant_may_expire_while_the_backend_is_away() -> None:
    """The stream ends at once, although it has not joined."""

    class Away(MemoryBackend):
        async def subscribe(self, channels: Any) -> Any:
            await anyio.sleep_forever()

    def authorize(*_: Any) -> Grant:
        return Grant(expires_at=time.time() + 0.1)

    options: dict[str, Any] = {"authorize": authorize, "start_timeout": 0.01, "ping_interval": 60}
    async with mounted(Hub(Away()), **options) as (_, client), client.stream("/events/") as stream:
        with anyio.fail_after(5):
            assert b"retry:" in await stream.read()


# Asking again


async def test_a_stream_ends_if_its_reader_has_another_identity_now() -> None:
    """It is listed and disconnected by its first identity; the reconnect begins with the new one."""
    answers = iter([Grant(identity="ada"), Grant(identity="ada"), *[Grant(identity="bob")] * 100])
    options: dict[str, Any] = {"authorize": lambda *_: next(answers), "revalidate": 0.02}
    async with mounted(**options) as (_, client), client.stream("/events/") as stream:
        assert b"retry:" in await stream.read()


async def test_a_refusal_ends_an_open_stream() -> None:
    """The reason is `revoked`."""
    allowed = [True]

    def authorize(*_: Any) -> None:
        if not allowed[0]:
            raise HTTPException(403)

    async with mounted(authorize=authorize, revalidate=0.02) as (_, client), client.stream("/events/") as stream:
        allowed[0] = False
        assert b"retry:" in await stream.read()


async def test_a_result_that_looks_like_a_refusal_ends_an_open_stream(caplog: pytest.LogCaptureFixture) -> None:
    """It is the function's mistake, which is logged too."""
    answers = iter([None, False])
    options: dict[str, Any] = {"authorize": lambda *_: next(answers), "revalidate": 0.02}
    async with mounted(**options) as (_, client), client.stream("/events/") as stream:
        assert b"retry:" in await stream.read()
    assert "raise HTTPException(403) to refuse" in caplog.text


async def test_a_new_grant_replaces_properties_and_expiry() -> None:
    """It applies to the open stream, for events that are published later."""
    given: list[Any] = ["old", 60.0]
    asked = 0

    def authorize(*_: Any) -> Grant:
        nonlocal asked
        asked += 1
        return Grant(given[0], expires_at=time.time() + given[1])

    def transform(_: ServerSentEvent, properties: str) -> ServerSentEvent:
        return ServerSentEvent(properties)

    async with mounted(authorize=authorize, revalidate=0.02, transform=transform) as (hub, client):
        async with client.stream("/events/") as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "old"
            given[:], before = ["new", 60.0], asked
            while asked < before + 2:  # the answer before the last one was adopted
                await anyio.sleep(0.001)
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "new"
            given[1] = 0.01
            assert b"retry:" in await stream.read()


async def test_a_new_grant_that_expires_earlier_ends_the_stream() -> None:
    """The time of the first grant no longer counts."""
    grants = iter([Grant(expires_at=time.time() + 3600), Grant(expires_at=time.time() + 0.2)])

    async def authorize(*_: Any) -> Grant:
        grant = next(grants, None)
        if grant is None:
            await anyio.sleep_forever()
        assert grant is not None
        return grant

    async with mounted(authorize=authorize, revalidate=0.01) as (_, client), client.stream("/events/") as stream:
        assert b"retry:" in await stream.read()


@pytest.mark.parametrize("error", [RuntimeError("database"), HTTPException(503)])
async def test_a_failure_to_ask_is_logged_and_the_stream_goes_on(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The function is called again later; the log has the path without the query."""
    answers = [None, error, error]

    def authorize(*_: Any) -> None:
        if answers and (answer := answers.pop(0)) is not None:
            raise answer

    async with mounted(authorize=authorize, revalidate=0.01) as (hub, client):
        async with client.stream("/events/?x=secret") as stream:
            while answers:
                await anyio.sleep(0.001)
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
    assert "the stream /events/ could not be authorised again" in caplog.text
    assert "secret" not in caplog.text


async def test_a_path_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A path with parameters may contain line ends."""
    answers = [None, RuntimeError()]

    def authorize(*_: Any) -> None:
        if answers and (answer := answers.pop(0)) is not None:
            raise answer

    async with Hub() as hub:
        app = EventSourceApp(hub, authorize=authorize, revalidate=0.01)
        client = EventStreamClient(Starlette(routes=[Mount("/{room}", app)]))
        async with client.stream("/a%0Aforged/"):
            with anyio.fail_after(5):
                while not caplog.records:
                    await anyio.sleep(0.001)
    assert r"the stream /a\nforged/ could not be authorised again" in caplog.records[0].getMessage()


async def test_a_question_without_an_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The function is called again later, so a refusal still ends the stream."""
    monkeypatch.setattr("sse_asgi._mount.access.ASK_SECONDS", 0.01)
    asked = 0

    async def authorize(*_: Any) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            await anyio.sleep_forever()
        if asked == 3:
            raise HTTPException(403)

    async with mounted(authorize=authorize, revalidate=0.01) as (_, client), client.stream("/events/") as stream:
        assert b"retry:" in await stream.read()
    assert "could not be authorised again" in caplog.text


async def test_asking_again_happens_in_the_requests_own_context() -> None:
    """It is not the context of the request for which the timer was set."""
    user: ContextVar[str] = ContextVar("user")
    seen: dict[str, list[str]] = {"ann": [], "bob": []}

    def authorize(request: Request, _: tuple[str, ...]) -> None:
        seen[request.headers["x-user"]].append(user.get())

    hub = Hub()
    app = EventSourceApp(hub, authorize=authorize, revalidate=0.01)

    async def with_user(scope: Any, receive: Any, send: Any) -> None:
        user.set(dict(scope["headers"])[b"x-user"].decode())
        await app(scope, receive, send)

    async with hub:
        client = EventStreamClient(with_user)
        async with client.stream("/", headers={"x-user": "ann"}), client.stream("/", headers={"x-user": "bob"}):
            while min(map(len, seen.values())) < 3:
                await anyio.sleep(0.001)
    assert {name: set(values) for name, values in seen.items()} == {"ann": {"ann"}, "bob": {"bob"}}


async def test_authorize_is_not_called_for_a_stream_that_has_ended() -> None:
    """A call that is under way is cancelled, and no other follows, even if it suppresses the cancellation."""
    asked: list[str] = []

    async def authorize(*_: Any) -> None:
        asked.append("")
        if len(asked) == 2:
            with suppress(anyio.get_cancelled_exc_class()):
                await anyio.sleep_forever()
            asked.append("cancelled")

    async with mounted(authorize=authorize, revalidate=0.01) as (_, client):
        async with client.stream("/events/"):
            while len(asked) < 2:
                await anyio.sleep(0.001)
        while len(asked) < 3:
            await anyio.sleep(0.001)
        await anyio.sleep(0.05)  # it would be called again in this time
        assert asked == ["", "", "cancelled"]


async def test_nothing_is_watched_where_nothing_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no alarm, and no coroutine around the response's own."""
    monkeypatch.delattr("sse_asgi._mount.access.WatchedResponse")
    async with mounted(authorize=lambda *_: Grant("x")) as (_, client):
        assert await status(client) == 200


# Presence


async def test_presence_lists_readers_with_an_identity() -> None:
    """Others read without being listed."""
    names = iter(["ada", None])
    async with mounted(authorize=lambda *_: Grant(identity=next(names)), presence=True) as (hub, client):
        async with client.stream("/events/"), client.stream("/events/"):
            assert await hub.presence("default") == ["ada"]
            assert hub.stats().connections == 2


async def test_no_reader_is_listed_without_presence() -> None:
    """The identity alone lists no reader."""
    async with mounted(authorize=lambda *_: "ada") as (hub, client), client.stream("/events/"):
        assert await hub.presence("default") == []


async def test_a_reader_can_be_disconnected() -> None:
    """`disconnect` finds it by the identity or the properties that authorize gave."""
    async with mounted(authorize=lambda *_: Grant({"tenant": 7}, identity="ada")) as (hub, client):
        async with client.stream("/events/") as stream:
            await hub.disconnect(identity="ada")
            await stream.read()
        async with client.stream("/events/") as stream:
            await hub.disconnect({"tenant": 7})
            await stream.read()


# Tickets

SIGNER = ChannelSigner("a secret of many characters")


def access(**options: Any) -> Access:
    options = {"authorize": None, "revalidate": None, "tickets": None, "presence": False, **options}
    return Access(ServedChannels("*", default="default", gathered=["orders.*"]), options.pop("authorize"), **options)


def request(query: str = "") -> Request:
    return Request({"type": "http", "method": "GET", "headers": [], "query_string": query.encode()})


@pytest.mark.parametrize("query", ["", "&channel=b", "&channel=b&channel=a"])
async def test_a_ticket_admits_to_its_channels(query: str) -> None:
    """To all of them, or to those that the query names; its owner is listed there."""
    ticket = SIGNER.ticket(["a", "b"], properties=7, identity="ada")
    admission = await access(tickets=SIGNER, presence=True).admit(request(f"ticket={ticket}{query}"))
    expected = tuple(query.split("&channel=")[1:]) or ("a", "b")
    assert (admission.channels, admission.presence) == (expected, expected)
    assert (admission.grant, admission.ask) == (Grant(7, identity="ada"), None)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", 401),
        ("ticket=forged", 401),
        (f"ticket={SIGNER.ticket('a', expires_in=1e6)}&channel=b", 403),
        (f"ticket={SIGNER.ticket('orders.*', expires_in=1e6)}", 403),
    ],
)
async def test_without_a_ticket_for_the_channel_a_request_is_refused(query: str, code: int) -> None:
    """A ticket is needed, for each channel that the request names; a str is not a ticket for a pattern."""
    with pytest.raises(HTTPException) as caught:
        await access(tickets=SIGNER).admit(request(query))
    assert caught.value.status_code == code
    assert (code == 401) == ("WWW-Authenticate" in (caught.value.headers or {}))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"presence": True}, ValueError, "presence=True needs authorize= or tickets="),
        ({"revalidate": 5}, ValueError, "revalidate= asks authorize= again"),
        ({"tickets": "secret"}, TypeError, r"tickets must be a ChannelSigner \(got str\)"),
    ],
)
def test_options_of_access_that_need_others_are_refused(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """The error names the option that is missing."""
    with pytest.raises(error, match=match):
        access(**options)


async def test_without_authorize_and_tickets_there_is_no_permission_to_ask_for() -> None:
    """The channels that are served are open to every request."""
    admission = await access().admit(request("channel=a"))
    assert admission == Admission(("a",), Grant())
