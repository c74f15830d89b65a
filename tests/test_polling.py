"""Polls: one answer with what is new, the same that a stream gives, and everything that ends the waiting."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.types import Message

from sse_asgi import (
    BackendError,
    EventSourceApp,
    EventSourceMiddleware,
    Grant,
    Hub,
    HubClosedError,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi._hub.gate import OPEN
from sse_asgi._loop.running import checkpoint
from sse_asgi._mount import polling as polling_module
from sse_asgi._mount.polling import MAX_EVENTS, PollResponse
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream import connection as connection_module
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStream, EventStreamClient
from sse_asgi.tickets import ChannelSigner

pytestmark = pytest.mark.anyio

LONG = 30.0  # what no test waits for


@asynccontextmanager
async def mounted(hub: Hub | None = None, **options: Any) -> AsyncIterator[tuple[Hub, EventStreamClient]]:
    hub = hub or Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub, **options))], lifespan=hub.lifespan)
    async with EventStreamClient(app, headers={"accept": "*/*"}) as client:
        yield hub, client


async def poll(client: EventStreamClient, after: str | None = None, query: str = "", **options: Any) -> Any:
    async with client.stream(f"/events/?poll=1{query}", last_event_id=after, **options) as answer:
        body = await answer.read()
        assert (answer.status_code, answer.complete) == (200, True), body
        return json.loads(body)


async def status(client: EventStreamClient, query: str, **headers: str) -> int:
    async with client.stream(f"/events/{query}", headers=headers) as answer:
        return answer.status_code


@asynccontextmanager
async def waiting(client: EventStreamClient, hub: Hub, query: str = "", **options: Any) -> AsyncIterator[list[Any]]:
    """Begin a poll that waits, and have its answer when the block ends."""
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await poll(client, query=f"&wait={LONG:g}{query}", **options))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await until_read(hub)
            yield answers


async def until_read(hub: Hub) -> None:
    """Wait until a subscription is caught up."""
    while not any(reader.gate.state is OPEN for reader in readers(hub)):
        await anyio.sleep(0)


def readers(hub: Hub) -> list[Any]:
    assert hub._registry is not None
    return list(hub._registry.subscriptions())


def data(answer: Any) -> list[str]:
    return [event["data"] for event in answer["events"]]


# What it answers


async def test_a_first_poll_says_where_to_go_on() -> None:
    """It is a fresh stream: no event from before, and the position from which the next poll gets all that follow."""
    async with mounted() as (hub, client):
        last = await hub.publish("default", "before")
        assert await poll(client) == {"events": [], "last_event_id": last, "retry": 2000, "more": False}


async def test_a_poll_has_what_is_new() -> None:
    """Type, data and id of each event, and the last id once more."""
    async with mounted() as (hub, client):
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


@pytest.mark.parametrize("query", ["&last_event_id=", "&lastEventId="])
async def test_the_id_may_be_in_the_query(query: str) -> None:
    """As it may for a stream."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        assert data(await poll(client, query=f"{query}{first}")) == ["2"]


async def test_the_position_moves_without_an_event() -> None:
    """So that a quiet reader's id never falls out of history, whatever `position_frames` says of streams."""
    async with mounted(channels=["a", "b"], position_frames=False) as (hub, client):
        start = (await poll(client, query="&channel=a"))["last_event_id"]
        last = await hub.publish("b", "x")
        assert start
        assert (await poll(client, start, "&channel=a"))["last_event_id"] == last


async def test_the_answer_is_not_kept() -> None:
    """JSON of a known length, which no cache stores; the app's headers are sent as well."""
    async with mounted(headers={"X-Mine": "1", "Content-Type": "x/y"}) as (_, client):
        async with client.stream("/events/?poll=1") as answer:
            body = await answer.read()
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers["x-mine"] == "1"


async def test_the_interval_is_the_apps_retry() -> None:
    """As for the browsers that reconnect."""
    async with mounted(retry=7000) as (_, client):
        assert (await poll(client))["retry"] == 7000


async def test_gaps_are_events() -> None:
    """With an id, so that the next poll is not told again."""
    async with mounted(Hub(MemoryBackend(history_size=1))) as (hub, client):
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
    """Never an error, and told once."""
    async with mounted() as (_, client):
        answer = await poll(client, "x")
        assert data(answer) == ['{"reason":"malformed"}']
        assert (await poll(client, answer["last_event_id"]))["events"] == []


async def test_initial_events_and_a_snapshot_come_first() -> None:
    """On a fresh poll only, as on a stream."""

    async def snapshot() -> str:
        return "state"

    async with mounted(initial=["hello"], snapshot=snapshot) as (hub, client):
        answer = await poll(client)
        assert [(one["id"] is None, one["data"]) for one in answer["events"]] == [(True, "hello"), (False, "state")]
        await hub.publish("default", "x")
        assert data(await poll(client, answer["last_event_id"])) == ["x"]


async def test_the_transform_is_the_readers() -> None:
    """With the properties that authorize returned; what is filtered moves the position."""

    def only(event: ServerSentEvent, wanted: str) -> ServerSentEvent | None:
        return ServerSentEvent(f"<{event.data}>") if event.data == wanted else None

    async with mounted(authorize=lambda *_: "1", transform=only) as (hub, client):
        start = (await poll(client))["last_event_id"]
        await hub.publish("default", "1")
        last = await hub.publish("default", "2")
        answer = await poll(client, start)
        assert (data(answer), answer["last_event_id"]) == (["<1>"], last)


async def test_without_history_there_are_no_positions() -> None:
    """A poll that waits still gets what is published meanwhile."""
    async with mounted(Hub(MemoryBackend(history_size=0))) as (hub, client):
        assert await poll(client) == {"events": [], "last_event_id": None, "retry": 2000, "more": False}
        async with waiting(client, hub) as answers:
            await hub.publish("default", "x")
        assert answers[0]["events"] == [{"id": None, "event": "message", "data": "x"}]


async def test_access_is_that_of_a_stream() -> None:
    """Channels, authorize, and origins."""

    def refuse(*_: Any) -> None:
        raise HTTPException(401)

    async with mounted() as (_, client):
        assert await status(client, "?poll=1&channel=other") == 403
        assert await status(client, "?poll=1", origin="https://evil.example") == 403
    async with mounted(authorize=refuse) as (_, client):
        assert await status(client, "?poll=1") == 401


async def test_a_client_that_polls_may_read_across_origins() -> None:
    """The answer says so."""
    async with mounted(cors_origins="https://other.example") as (_, client):
        async with client.stream("/events/?poll=1", headers={"origin": "https://other.example"}) as answer:
            assert answer.headers["access-control-allow-origin"] == "https://other.example"


# How it is asked for


@pytest.mark.parametrize(
    ("query", "accept", "content_type"),
    [
        ("?poll=1", "*/*", "application/json"),
        ("?poll=TRUE", "application/json", "application/json"),
        ("?poll=yes", "text/event-stream", "text/event-stream"),
        ("?poll=1&poll=0", "*/*", "application/json"),
        ("", "application/json, text/plain", "application/json"),
    ],
)
async def test_what_is_a_poll(query: str, accept: str, content_type: str) -> None:
    """`?poll=`, its first value, or JSON and no event stream among what is accepted: an answer that ends."""
    async with mounted() as (_, client):
        async with client.stream(f"/events/{query}", headers={"accept": accept}) as answer:
            await answer.read()
            assert answer.headers["content-type"] == content_type


@pytest.mark.parametrize(
    ("query", "accept"),
    [("", "*/*"), ("", "application/json, text/event-stream"), ("?poll=0", "application/json"), ("?poll=no", "*/*")],
)
async def test_what_is_no_poll(query: str, accept: str) -> None:
    """Whoever accepts an event stream, or does not want to poll, gets one that does not end."""
    async with mounted() as (hub, client):
        async with client.stream(f"/events/{query}", headers={"accept": accept}) as stream:
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
            assert not stream.complete


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_the_most_to_wait_is_a_number_of_seconds(seconds: float) -> None:
    """Refused where the app is made."""
    with pytest.raises(ValueError, match="max_wait"):
        EventSourceApp(Hub(), max_wait=seconds)


@pytest.mark.parametrize(
    "query", ["poll=2", "poll=", "poll=1&wait=x", "poll=1&wait=-1", "poll=1&wait=nan", "poll=1&wait=1e999"]
)
async def test_bad_values_are_400(query: str) -> None:
    """With what they may be."""
    async with mounted() as (_, client), client.stream(f"/events/?{query}") as answer:
        assert answer.status_code == 400
        assert query.rpartition("=")[2].encode() in await answer.read()


async def test_a_head_reads_nothing() -> None:
    """Headers, no body, no length, and no subscription."""
    async with mounted() as (hub, client), client.stream("/events/?poll=1", method="HEAD") as answer:
        assert await answer.read() == b""
        assert answer.headers["content-type"] == "application/json"
        assert "content-length" not in answer.headers
        assert not readers(hub)


QUERY_PARTS = st.sampled_from([b"poll=1", b"wait=", b"wait=0", b"last_event_id=", b"&", b"=", b"%00", b"%ff", b";"])


@given(query=st.lists(QUERY_PARTS | st.binary(max_size=5), max_size=10).map(b"".join), last=st.binary(max_size=20))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_query_breaks_it(query: bytes, last: bytes) -> None:
    """It is answered, or refused with a text; never an error of ours."""
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


async def test_a_position_is_not_an_event_of_a_poll() -> None:
    """JSON has it as `last_event_id` alone, and waiting goes on behind it."""
    async with mounted() as (hub, client):
        before = await hub.publish("default", "before")
        first = await poll(client)
        await hub.publish("other", "elsewhere")
        async with waiting(client, hub) as answers:
            last = await hub.publish("default", "x")
    assert (first["events"], first["last_event_id"]) == ([], before)
    assert (data(answers[0]), answers[0]["last_event_id"]) == (["x"], last)


async def test_an_event_source_gets_a_stream_that_has_ended() -> None:
    """The interval, the frames, and a known length."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        second = await hub.publish("default", "2")
        answer = await as_stream(client, first)
        assert answer.content == f"retry: 2000\nid: {second}\ndata: 2\n\n".encode()
        assert (await as_stream(client, second)).content == position_stream(second)


async def test_the_middleware_leaves_it_as_it_is() -> None:
    """It is an event stream of ours."""
    hub = Hub()
    app = EventSourceMiddleware(EventSourceApp(hub), hub=hub)
    async with EventStreamClient(app) as client, client.stream("/?poll=1") as answer:
        await answer.read()
        assert answer.headers["content-length"] == str(len(answer.content))


# Waiting


async def test_it_waits_for_the_first_event() -> None:
    """And answers at once when it comes."""
    async with mounted() as (hub, client):
        async with waiting(client, hub) as answers:
            last = await hub.publish("default", "x")
        assert (data(answers[0]), answers[0]["last_event_id"]) == (["x"], last)


async def test_what_is_there_is_not_waited_for() -> None:
    """A poll with something to say says it."""
    async with mounted() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        with anyio.fail_after(5):
            assert data(await poll(client, first, f"&wait={LONG:g}")) == ["2"]


async def test_it_waits_no_longer_than_it_was_asked_to() -> None:
    """Then it answers with the position."""
    async with mounted() as (hub, client):
        last = await hub.publish("default", "1")
        began = anyio.current_time()
        assert await poll(client, last, "&wait=0.05") == {
            "events": [],
            "last_event_id": last,
            "retry": 2000,
            "more": False,
        }
        assert anyio.current_time() - began >= 0.04


async def test_it_waits_no_longer_than_the_app_allows() -> None:
    """`max_wait`, of which 0 answers at once."""
    async with mounted(max_wait=0) as (_, client):
        with anyio.fail_after(5):
            assert (await poll(client, query=f"&wait={LONG:g}"))["events"] == []


async def test_a_filtered_event_is_waited_past() -> None:
    """It is no event of this reader."""
    async with mounted(transform=lambda event, _: event if event.data == "2" else None) as (hub, client):
        async with waiting(client, hub) as answers:
            await hub.publish("default", "1")
            await anyio.wait_all_tasks_blocked()
            await hub.publish("default", "2")
        assert data(answers[0]) == ["2"]


async def test_a_poll_leaves_nothing_behind() -> None:
    """No reader, no listener, no alarm that holds it."""
    async with mounted() as (hub, client):
        for query in ("", "&wait=0.01"):
            await poll(client, query=query)
        assert not readers(hub)
        assert current_notice().listeners == 0


async def test_a_client_that_goes_ends_the_waiting() -> None:
    """At once, and nothing is left."""
    async with mounted() as (hub, _):
        sent: list[Message] = []
        response = PollResponse(hub.subscribe("default"), wait=LONG)
        gone = anyio.Event()

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(response, {"type": "http", "method": "GET", "headers": []}, receive, send)
                await until_read(hub)
                gone.set()
        assert (sent, readers(hub)) == ([], [])


async def test_a_client_that_goes_while_the_poll_leaves_does_not_break_that_off() -> None:
    """The process is unsubscribed from a channel that nobody reads any more."""

    class Unsubscribing(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            gone.set()
            await anyio.sleep(0.01)
            await super().unsubscribe(channels)
            unsubscribed.extend(channels)

    gone = anyio.Event()
    unsubscribed: list[str] = []
    async with mounted(Hub(Unsubscribing())) as (hub, _):

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"))(scope, receive, anyio.sleep_forever)  # type: ignore[arg-type]
        assert (unsubscribed, hub.stats().channels) == (["default"], {})


async def test_a_send_that_fails_is_a_client_that_has_gone() -> None:
    """Some servers raise OSError."""
    async with mounted() as (hub, _):

        async def receive() -> Message:
            raise OSError

        async def send(_: Message) -> None:
            raise OSError

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"), wait=LONG)(scope, receive, send)
            await PollResponse(hub.subscribe("default"))(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        assert not readers(hub)


async def test_a_receive_that_fails_is_a_client_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, because no server should do it."""
    async with mounted() as (hub, _):

        async def receive() -> Message:
            raise LookupError

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"), wait=LONG)(scope, receive, anyio.sleep_forever)  # type: ignore[arg-type]
    assert "receive() failed" in caplog.text


async def test_cancelling_leaves_the_hub() -> None:
    """Whoever ends the request's task."""
    async with mounted() as (hub, _):
        scope = {"type": "http", "method": "GET", "headers": []}
        response: Any = PollResponse(hub.subscribe("default"), wait=LONG)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response, scope, anyio.sleep_forever, None)
            await until_read(hub)
            tasks.cancel_scope.cancel()
        assert (readers(hub), current_notice().listeners) == ([], 0)


async def test_a_shutdown_ends_the_waiting() -> None:
    """At once, with where to go on, and spread over a time that grows with the number of clients."""
    async with mounted() as (hub, client):
        last = await hub.publish("default", "x")
        async with waiting(client, hub, after=last) as answers:
            current_notice().hear()
        answer = answers[0]
        assert (answer["events"], answer["last_event_id"], answer["more"]) == ([], last, False)
        assert 500 <= answer["retry"] <= 2000
        current_notice().heard = False


async def test_a_poll_after_the_shutdown_began_ends_at_once() -> None:
    """It is told when it begins."""
    async with mounted() as (_, client):
        current_notice().heard = True
        with anyio.fail_after(5):
            assert (await poll(client, "00000000-1", f"&wait={LONG:g}"))["retry"] != 0
        current_notice().heard = False


async def test_a_drained_hub_ends_the_waiting() -> None:
    """As it ends streams."""
    async with mounted() as (hub, client):
        async with waiting(client, hub) as answers:
            await hub.drain()
        assert answers[0]["events"] == []


async def test_a_reader_that_was_too_slow_asks_again() -> None:
    """With `overflow="close"` its stream ends; here there is more."""
    async with mounted(overflow="close", buffer_size=1) as (hub, client):
        async with waiting(client, hub) as answers:
            for text in ("1", "2"):  # without a checkpoint between
                await hub.backend.publish(("default",), ServerSentEvent(text), key=None, idempotency_key=None)
        assert answers[0]["more"]
        assert data(await poll(client, answers[0]["last_event_id"])) == ["1", "2"]


# Bounds


async def test_too_many_events_are_several_answers() -> None:
    """At most so many in one, and `more` until the last: nothing twice, nothing lost, in order."""
    count = MAX_EVENTS + 5
    async with mounted(Hub(MemoryBackend(history_size=count))) as (hub, client):
        after = (await poll(client))["last_event_id"]
        for number in range(count):
            await hub.publish("default", number)
        first = await poll(client, after)
        second = await poll(client, first["last_event_id"])
    assert (len(first["events"]), first["more"], second["more"]) == (MAX_EVENTS, True, False)
    assert data(first) + data(second) == [str(number) for number in range(count)]


async def test_too_many_bytes_are_several_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded like the number; an event that is larger than the bound goes alone."""
    monkeypatch.setattr(polling_module, "MAX_BYTES", 1000)
    async with mounted() as (hub, client):
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


async def test_what_has_no_id_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody could ask for the rest of the initial events."""
    monkeypatch.setattr(polling_module, "MAX_EVENTS", 2)
    async with mounted(initial=["1", "2", "3"]) as (_, client):
        assert data(await poll(client)) == ["1", "2", "3"]


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After SEND_SECONDS, by aborting its connection."""
    aborted: list[int] = []
    monkeypatch.setattr(polling_module, "SEND_SECONDS", 0.01)
    monkeypatch.setattr(connection_module, "cut_off", lambda *_: aborted.append(1))
    async with mounted() as (hub, _):
        scope = {"type": "http", "method": "GET", "headers": []}
        response: Any = PollResponse(hub.subscribe("default"))

        async def send(_: Message) -> None:
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            await response(scope, anyio.sleep_forever, send)
    assert aborted


async def test_a_shutdown_hurries_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep the server from stopping."""
    monkeypatch.setattr(connection_module, "SHUTDOWN_SECONDS", 0.01)
    async with mounted() as (hub, _):
        scope = {"type": "http", "method": "GET", "headers": []}
        response: Any = PollResponse(hub.subscribe("default"))
        sending = anyio.Event()

        async def send(_: Message) -> None:
            sending.set()
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(response, scope, anyio.sleep_forever, send)
                await sending.wait()
                current_notice().hear()
        current_notice().heard = False


async def test_a_poll_too_many_is_told_to_come_later() -> None:
    """A limit of connections counts polls while they last, and refuses as it does streams."""
    hub = Hub()
    app = EventSourceMiddleware(EventSourceApp(hub), hub=hub, max_connections=1)
    async with EventStreamClient(app) as client:
        async with client.stream("/"):
            async with client.stream("/?poll=1", headers={"accept": "*/*"}, last_event_id="7") as answer:
                told = json.loads(await answer.read())
                assert 2000 <= told.pop("retry") <= 6000
                assert told == {"events": [], "last_event_id": "7", "more": False}
            async with client.stream("/?poll=1") as answer:
                assert EventDecoder().feed(await answer.read()) == []


# While the backend is behind, or away


class Late:
    """A sink that is told of events only when somebody wants to reach them."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.held: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)

    def deliver(self, entry: Any) -> None:
        self.held.append(entry)


class Behind(MemoryBackend):
    """A backend that stores at once and delivers late, as one does whose processes hear of each other."""

    def connect(self, sink: Any) -> Any:
        self.late = Late(sink)
        return super().connect(self.late)

    async def subscribe(self, channels: tuple[str, ...]) -> Any:
        await self.reach()
        return await super().subscribe(channels)

    async def reach(self) -> None:
        while self.late.held:
            self.late.sink.deliver(self.late.held.pop(0))


async def test_what_was_published_before_a_poll_is_in_it() -> None:
    """Also where this process has not heard of it yet, and others read the channel, so that it is subscribed to."""
    async with mounted(Hub(Behind())) as (hub, client):
        async with client.stream("/events/", headers={"accept": "text/event-stream"}):
            start = (await poll(client))["last_event_id"]
            await hub.publish("default", "x")
            assert data(await poll(client, start)) == ["x"]


class Away(MemoryBackend):
    """A backend whose calls wait, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.waits: set[str] = set()
        self.asked = anyio.Event()

    async def _away(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        while what in self.waits:
            self.asked.set()
            await anyio.sleep(0.001)

    async def subscribe(self, channels: tuple[str, ...]) -> Any:
        await self._away("subscribe")
        return await super().subscribe(channels)

    async def history(self, *args: Any) -> Any:
        await self._away("history")
        return await super().history(*args)

    async def reach(self) -> None:
        await self._away("reach")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling_module, "CATCH_UP_SECONDS", 0.01)


async def refused(client: EventStreamClient, after: str | None) -> dict[str, Any]:
    async with client.stream("/events/?poll=1", last_event_id=after) as answer:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(await answer.read())
        return problem


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("what", ["subscribe", "history", "reach"])
async def test_what_cannot_be_read_in_time_is_503(what: str) -> None:
    """With when to ask again: an answer of nothing would say that there is nothing."""
    backend = Away()
    async with mounted(Hub(backend)) as (hub, client):
        last = await hub.publish("default", "x")
        backend.waits.add(what)
        assert "same Last-Event-ID" in (await refused(client, last))["detail"]
        assert not readers(hub)


@pytest.mark.usefixtures("impatient")
async def test_whoever_waits_longer_waits_longer_for_the_backend() -> None:
    """It is answered when the backend is back."""
    backend = Away()
    async with mounted(Hub(backend)) as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        backend.waits.add("history")
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await poll(client, first, f"&wait={LONG:g}"))

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await backend.asked.wait()
                await anyio.sleep(0.05)  # more than those have who do not wait
                backend.waits.clear()
        assert data(answers[0]) == ["2"]


@pytest.mark.parametrize("error", [BackendError("lost"), HubClosedError("cannot read")])
async def test_what_cannot_be_read_at_all_is_503(error: Exception) -> None:
    """At once."""
    backend = Away()
    async with mounted(Hub(backend)) as (_, client):
        backend.error = error
        assert (await refused(client, None))["status"] == 503


async def test_an_error_of_the_application_is_one() -> None:
    """A snapshot that fails is raised on, as by a stream that cannot begin."""

    async def broken() -> str:
        raise LookupError

    async with mounted(snapshot=broken) as (hub, client):
        with pytest.raises(LookupError):
            await poll(client)
        assert not readers(hub)


@pytest.mark.usefixtures("impatient")
async def test_what_was_read_in_time_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `more`, because the log was not read to its end."""
    backend = Away()
    async with mounted(Hub(backend), initial=["hello"]) as (_, client):
        backend.waits.add("reach")
        answer = await poll(client)
        assert (data(answer), answer["more"]) == (["hello"], True)


async def test_a_poll_is_answered_though_the_event_loop_was_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than the backend has to answer: what is there is no less there."""
    monkeypatch.setattr(polling_module, "CATCH_UP_SECONDS", 0.2)
    asked = anyio.Event()

    class Asked(MemoryBackend):
        async def reach(self) -> None:
            asked.set()
            for _ in range(5):
                await checkpoint()

    async def block() -> None:
        await asked.wait()
        time.sleep(0.5)  # noqa: ASYNC251 - that is the point

    async with mounted(Hub(Asked())) as (hub, client), anyio.create_task_group() as tasks:
        start = (await poll(client))["last_event_id"]
        asked = anyio.Event()
        await hub.publish("default", "x")
        tasks.start_soon(block)
        answer = await poll(client, start)
        assert (data(answer), answer["more"]) == (["x"], False)


# What an app can ask for besides


async def test_a_grant_that_expires_ends_the_waiting() -> None:
    """As it ends a stream; the next poll is authorised afresh."""
    grant = Grant(expires_at=time.time() + 0.3)
    async with mounted(authorize=lambda *_: grant) as (_, client):
        with anyio.fail_after(5):
            assert (await poll(client, query=f"&wait={LONG:g}"))["events"] == []
        assert await status(client, "?poll=1") == 401


async def test_a_ticket_is_enough() -> None:
    """With its channels and its properties."""
    signer = ChannelSigner("a secret of some length")
    async with mounted(tickets=signer, transform=lambda event, suffix: f"{event.data}{suffix}") as (hub, client):
        query = f"&ticket={signer.ticket(['a'], properties='!')}"
        start = (await poll(client, query=query))["last_event_id"]
        await hub.publish("a", "x")
        assert data(await poll(client, start, query)) == ["x!"]
        assert await status(client, "?poll=1") == 401
