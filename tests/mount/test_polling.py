"""Polls: when they are answered, what ends the waiting, and backends that are behind or away."""

import json
import math
import time
from typing import Any

import anyio
import pytest
from starlette.types import Message

from mount.polls import LONG, data, poll, polled, until_read, waiting
from sse_asgi import (
    BackendError,
    EventSourceApp,
    EventSourceMiddleware,
    Hub,
    HubClosedError,
    MemoryBackend,
    ServerSentEvent,
)
from sse_asgi._loop.running import checkpoint
from sse_asgi._mount import polling as polling_module
from sse_asgi._mount.polling import PollResponse
from sse_asgi._servers.shutdown import current_notice
from sse_asgi._stream import connection as connection_module
from sse_asgi.decoder import EventDecoder
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


async def test_the_answer_is_not_cached() -> None:
    """JSON of a known length is not stored by caches; the app's headers are sent as well."""
    async with polled(headers={"X-Mine": "1", "Content-Type": "x/y"}) as (_, client):
        async with client.stream("/events/?poll=1") as answer:
            body = await answer.read()
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-length"] == str(len(body))
            assert answer.headers["x-mine"] == "1"


async def test_a_head_reads_nothing() -> None:
    """The answer has headers, no body and no length, and nothing is subscribed."""
    async with polled() as (hub, client), client.stream("/events/?poll=1", method="HEAD") as answer:
        assert await answer.read() == b""
        assert answer.headers["content-type"] == "application/json"
        assert "content-length" not in answer.headers
        assert not hub.subscriptions()


# Waiting


async def test_it_waits_for_the_first_event() -> None:
    """The answer is sent when the event is published."""
    async with polled() as (hub, client):
        async with waiting(client, hub) as answers:
            last = await hub.publish("default", "x")
        assert (data(answers[0]), answers[0]["last_event_id"]) == (["x"], last)


async def test_it_does_not_wait_if_there_is_an_event() -> None:
    """The answer is sent at once."""
    async with polled() as (hub, client):
        first = await hub.publish("default", "1")
        await hub.publish("default", "2")
        with anyio.fail_after(5):
            assert data(await poll(client, first, f"&wait={LONG:g}")) == ["2"]


async def test_it_waits_no_longer_than_it_was_asked_to() -> None:
    """The answer then has the position."""
    async with polled() as (hub, client):
        last = await hub.publish("default", "1")
        began = anyio.current_time()
        assert await poll(client, last, "&wait=0.05") == {
            "events": [],
            "last_event_id": last,
            "retry": 2000,
            "more": False,
        }
        assert anyio.current_time() - began >= 0.04


async def test_a_filtered_event_is_waited_past() -> None:
    """A filtered event does not end the waiting."""
    async with polled(transform=lambda event, _: event if event.data == "2" else None) as (hub, client):
        async with waiting(client, hub) as answers:
            await hub.publish("default", "1")
            await anyio.wait_all_tasks_blocked()
            await hub.publish("default", "2")
        assert data(answers[0]) == ["2"]


async def test_a_poll_leaves_nothing_behind() -> None:
    """No reader, no listener and no alarm are left."""
    async with polled() as (hub, client):
        for query in ("", "&wait=0.01"):
            await poll(client, query=query)
        assert not hub.subscriptions()
        assert current_notice().listeners == 0


async def test_a_client_that_goes_ends_the_waiting() -> None:
    """The poll ends at once, and nothing is left."""
    async with polled() as (hub, _):
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
        assert (sent, hub.subscriptions()) == ([], [])


async def test_a_client_that_goes_while_the_poll_leaves_does_not_break_that_off() -> None:
    """The process is unsubscribed from the channel, which has no other reader."""

    class Unsubscribing(MemoryBackend):
        async def unsubscribe(self, channels: tuple[str, ...]) -> None:
            gone.set()
            await anyio.sleep(0.01)
            await super().unsubscribe(channels)
            unsubscribed.extend(channels)

    gone = anyio.Event()
    unsubscribed: list[str] = []
    async with polled(Hub(Unsubscribing())) as (hub, _):

        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"))(scope, receive, anyio.sleep_forever)  # type: ignore[arg-type]
        assert (unsubscribed, hub.stats().channels) == (["default"], {})


async def test_a_send_that_fails_is_a_client_that_has_gone() -> None:
    """Some servers raise OSError."""
    async with polled() as (hub, _):

        async def receive() -> Message:
            raise OSError

        async def send(_: Message) -> None:
            raise OSError

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"), wait=LONG)(scope, receive, send)
            await PollResponse(hub.subscribe("default"))(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        assert not hub.subscriptions()


async def test_a_receive_that_fails_is_a_client_that_has_gone(caplog: pytest.LogCaptureFixture) -> None:
    """The error is logged, because a server should not raise it."""
    async with polled() as (hub, _):

        async def receive() -> Message:
            raise LookupError

        scope = {"type": "http", "method": "GET", "headers": []}
        with anyio.fail_after(5):
            await PollResponse(hub.subscribe("default"), wait=LONG)(scope, receive, anyio.sleep_forever)  # type: ignore[arg-type]
    assert "receive() failed" in caplog.text


async def test_cancelling_leaves_the_hub() -> None:
    """The request's task may be cancelled from outside."""
    async with polled() as (hub, _):
        scope = {"type": "http", "method": "GET", "headers": []}
        response: Any = PollResponse(hub.subscribe("default"), wait=LONG)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response, scope, anyio.sleep_forever, None)
            await until_read(hub)
            tasks.cancel_scope.cancel()
        assert (hub.subscriptions(), current_notice().listeners) == ([], 0)


async def test_a_shutdown_ends_the_waiting() -> None:
    """The answer has the position, and a retry time that grows with the number of clients."""
    async with polled() as (hub, client):
        last = await hub.publish("default", "x")
        async with waiting(client, hub, after=last) as answers:
            current_notice().hear()
        answer = answers[0]
        assert (answer["events"], answer["last_event_id"], answer["more"]) == ([], last, False)
        assert 500 <= answer["retry"] <= 2000
        current_notice().heard = False


async def test_a_poll_after_the_shutdown_began_ends_at_once() -> None:
    """The connection hears of the shutdown when it begins."""
    async with polled() as (_, client):
        current_notice().heard = True
        with anyio.fail_after(5):
            assert (await poll(client, "00000000-1", f"&wait={LONG:g}"))["retry"] != 0
        current_notice().heard = False


async def test_a_drained_hub_ends_the_waiting() -> None:
    """A poll is ended as a stream is."""
    async with polled() as (hub, client):
        async with waiting(client, hub) as answers:
            await hub.drain()
        assert answers[0]["events"] == []


async def test_a_reader_that_was_too_slow_asks_again() -> None:
    """With `overflow="close"` a stream ends; a poll says that there is more."""
    async with polled(overflow="close", buffer_size=1) as (hub, client):
        async with waiting(client, hub) as answers:
            for text in ("1", "2"):  # without a checkpoint between
                await hub.backend.publish(("default",), ServerSentEvent(text), key=None, idempotency_key=None)
        assert answers[0]["more"]
        assert data(await poll(client, answers[0]["last_event_id"])) == ["1", "2"]


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is aborted after SEND_SECONDS."""
    aborted: list[int] = []
    monkeypatch.setattr(polling_module, "SEND_SECONDS", 0.01)
    monkeypatch.setattr(connection_module, "cut_off", lambda *_: aborted.append(1))
    async with polled() as (hub, _):
        scope = {"type": "http", "method": "GET", "headers": []}
        response: Any = PollResponse(hub.subscribe("default"))

        async def send(_: Message) -> None:
            await anyio.sleep_forever()

        with anyio.fail_after(5):
            await response(scope, anyio.sleep_forever, send)
    assert aborted == [1]


async def test_a_shutdown_hurries_a_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep the server from stopping."""
    monkeypatch.setattr(connection_module, "SHUTDOWN_SECONDS", 0.01)
    async with polled() as (hub, _):
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


# While the backend is behind, or away


class Late:
    """A sink that holds events back until the backend is asked to deliver them."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.held: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)

    def deliver(self, entry: Any) -> None:
        self.held.append(entry)


class Behind(MemoryBackend):
    """A backend that stores at once and delivers late, as a backend of several processes."""

    def connect(self, sink: Any) -> Any:
        self.late = Late(sink)
        return super().connect(self.late)

    async def subscribe(self, channels: tuple[str, ...]) -> Any:
        await self.reach()
        return await super().subscribe(channels)

    async def reach(self) -> None:
        while self.late.held:
            self.late.sink.deliver(self.late.held.pop(0))


async def test_events_that_were_published_before_a_poll_are_in_it() -> None:
    """They are, even if this process has not received them and was subscribed to the channel before."""
    async with polled(Hub(Behind())) as (hub, client):
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
async def test_a_backend_that_does_not_answer_in_time_is_503(what: str) -> None:
    """The answer says when to ask again; an empty answer would say that there are no events."""
    backend = Away()
    async with polled(Hub(backend)) as (hub, client):
        last = await hub.publish("default", "x")
        backend.waits.add(what)
        assert "same Last-Event-ID" in (await refused(client, last))["detail"]
        assert not hub.subscriptions()


@pytest.mark.usefixtures("impatient")
async def test_a_longer_wait_gives_the_backend_more_time() -> None:
    """The poll is answered when the backend is back."""
    backend = Away()
    async with polled(Hub(backend)) as (hub, client):
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
                await anyio.sleep(0.05)  # longer than a poll without a wait has
                backend.waits.clear()
        assert data(answers[0]) == ["2"]


@pytest.mark.parametrize("error", [BackendError("lost"), HubClosedError("cannot read")])
async def test_a_backend_that_fails_is_503(error: Exception) -> None:
    """The answer is sent at once."""
    backend = Away()
    async with polled(Hub(backend)) as (_, client):
        backend.error = error
        assert (await refused(client, None))["status"] == 503


async def test_an_error_of_the_application_is_raised() -> None:
    """A snapshot that fails is raised on, as by a stream that cannot begin."""

    async def broken() -> str:
        raise LookupError

    async with polled(snapshot=broken) as (hub, client):
        with pytest.raises(LookupError):
            await poll(client)
        assert not hub.subscriptions()


@pytest.mark.usefixtures("impatient")
async def test_events_that_were_read_in_time_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has `more`, because the log was not read to its end."""
    backend = Away()
    async with polled(Hub(backend), initial=["hello"]) as (_, client):
        backend.waits.add("reach")
        answer = await poll(client)
        assert (data(answer), answer["more"]) == (["hello"], True)


async def test_a_poll_is_answered_though_the_event_loop_was_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that are there count, even if the loop was blocked for longer than the backend has to answer."""
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

    async with polled(Hub(Asked())) as (hub, client), anyio.create_task_group() as tasks:
        start = (await poll(client))["last_event_id"]
        asked = anyio.Event()
        await hub.publish("default", "x")
        tasks.start_soon(block)
        answer = await poll(client, start)
        assert (data(answer), answer["more"]) == (["x"], False)


async def test_a_poll_too_many_is_told_to_come_later() -> None:
    """A limit of connections counts polls while they last, and refuses them as it refuses streams."""
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


async def test_a_poll_reads_all_pages_of_history() -> None:
    """It is caught up when the last page was read."""
    async with polled(Hub(MemoryBackend(history_size=1000))) as (hub, client):
        first = await hub.publish("default", "first")
        for number in range(600):
            await hub.publish("default", number)
        answer = await poll(client, first)
    assert (data(answer), answer["more"]) == ([str(number) for number in range(600)], False)


# Up to an event


async def test_a_poll_says_that_the_stream_is_over() -> None:
    """The final event follows the last one, also where the client comes back with the id of the last one."""
    async with polled(until="done") as (hub, client):
        async with waiting(client, hub) as answers:
            last = await hub.publish("default", "x", event="done")
            await hub.publish("default", "y")
        final = {"id": "sse.end", "event": "sse.end", "data": '{"state":"finished"}'}
        assert answers[0]["events"] == [{"id": last, "event": "done", "data": "x"}, final]
        assert (answers[0]["last_event_id"], answers[0]["more"]) == ("sse.end", False)
        assert (await poll(client, last))["events"] == [final]


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_that_has_seen_the_end_stops(accept: str) -> None:
    """It gets a 204 with the app's headers, and nothing is subscribed."""
    async with polled(until="done", headers={"X-Mine": "1"}) as (hub, client):
        head = {"accept": accept, "last-event-id": "sse.end"}
        async with client.stream("/events/?poll=1", headers=head) as answer:
            assert (answer.status_code, await answer.read()) == (204, b"")
            assert (answer.headers["x-mine"], answer.headers["cache-control"]) == ("1", "no-store")
        assert not hub.subscriptions()


async def test_the_end_is_in_the_next_answer_if_this_one_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is told to ask again at once."""
    monkeypatch.setattr("sse_asgi._mount.answer.MAX_EVENTS", 2)
    async with polled(until="done", rewind=math.inf) as (hub, client):
        for number in range(3):
            last = await hub.publish("default", str(number), event="done" if number == 2 else None)
        first = await poll(client)
        assert (data(first), first["more"]) == (["0", "1"], True)
        second = await poll(client, first["last_event_id"])
        assert (data(second), second["more"]) == (["2", '{"state":"finished"}'], False)
        assert [event["id"] for event in second["events"]] == [last, "sse.end"]
