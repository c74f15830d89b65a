"""Hub: opening, publishing, subscribing, draining."""

import functools
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from hub.backends import Elsewhere
from hub.loops import in_other_loop, in_thread
from sse_asgi import BackendError, Hub, HubClosedError, MemoryBackend, ServerSentEvent, SSEError

pytestmark = pytest.mark.anyio

# Opening


async def test_publishing_on_a_closed_hub_says_how_to_open_it() -> None:
    """A hub outside `async with` raises, and the error names the ways to open it."""
    hub = Hub()
    with pytest.raises(HubClosedError, match=r"async with hub.*EventSourceMiddleware.*lifespan"):
        await hub.publish("a", "x")
    with pytest.raises(HubClosedError):
        hub.subscribe("a")
    with pytest.raises(HubClosedError):
        await hub.history("a")
    with pytest.raises(HubClosedError):
        await hub.drain()
    assert hub.state == "closed"


async def test_lifespan_opens_the_hub_and_shows_it() -> None:
    """`hub.lifespan` fits Starlette's and FastAPI's lifespan, and its state holds the hub."""
    hub = Hub()
    async with hub.lifespan(object()) as state:
        assert state == {"hub": hub}
        assert hub.state == "up"
    assert hub.state == "closed"


async def test_a_backend_is_an_object() -> None:
    """A URL is for create_hub, and the error says so in words that work."""
    with pytest.raises(TypeError, match=r"\(got str\): create_hub\('redis://localhost'\) makes a hub from a URL"):
        Hub("memory://")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, 10])
async def test_a_hub_knows_whether_history_is_kept(size: int) -> None:
    """The backend says so, whether the hub is open or not."""
    hub = Hub(MemoryBackend(history_size=size))
    assert hub.keeps_history == (size > 0)


# Publishing


async def test_publish_returns_the_id_that_readers_see() -> None:
    """The returned id is the event's."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        published = await hub.publish("a", {"x": 1}, event="update", retry=10)
        event = await anext(subscription)
    assert event == ServerSentEvent({"x": 1}, event="update", retry=10, id=published)


async def test_several_channels_reach_a_reader_once() -> None:
    """A reader of several of an event's channels gets it once, and sees which of its own matched."""
    async with Hub() as hub, hub.subscribe("a", "b", "z") as subscription:
        await hub.publish(["a", "b", "c"], "1")
        await hub.publish(("c", "z", "z"), "2")
        events = [await anext(subscription), await anext(subscription)]
    assert [(event.data, event.channels) for event in events] == [("1", ("a", "b")), ("2", ("z",))]


async def test_an_event_needs_data() -> None:
    """Without data no browser would see it: ValueError; empty data is data."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        for nothing in (None, ServerSentEvent(comment="x")):
            with pytest.raises(ValueError, match="data"):
                await hub.publish("a", nothing)
        await hub.publish("a", "")
        assert (await anext(subscription)).data == ""


async def test_an_event_of_your_own_has_no_id() -> None:
    """Ids are positions: a ServerSentEvent with one is refused, one without is published as it is."""
    async with Hub() as hub, hub.subscribe("a") as subscription:
        with pytest.raises(ValueError, match="no id"):
            await hub.publish("a", ServerSentEvent("x", id="1"))
        with pytest.raises(ValueError, match="give event and retry to"):
            await hub.publish("a", ServerSentEvent("x"), event="y")
        await hub.publish("a", ServerSentEvent("x", event="y", comment="c"))
        event = await anext(subscription)
    assert (event.data, event.event, event.comment) == ("x", "y", "c")


@pytest.mark.parametrize(("data", "error"), [(float("nan"), ValueError), (object(), TypeError), (b"\xff", ValueError)])
async def test_bad_data_is_refused_before_it_is_stored(data: Any, error: type[Exception]) -> None:
    """Bad data does not reach the log."""
    async with Hub() as hub:
        with pytest.raises(error):
            await hub.publish("a", data)
        assert await hub.history("a") == []


async def test_a_publishing_loop_lets_readers_run() -> None:
    """A burst of 300 publishes, more than a buffer holds, disconnects no fast reader and loses nothing."""
    async with Hub(overflow="close") as hub, hub.subscribe("a") as subscription:
        seen: list[str | None] = []

        async def read() -> None:
            async for event in subscription:
                seen.append(event.data)
                if len(seen) == 300:
                    break

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            for number in range(300):
                await hub.publish("a", str(number))
    assert seen == [str(number) for number in range(300)]


async def test_a_cancelled_publish_has_not_published() -> None:
    """Publish is cancelled before it stores, or not at all."""
    async with Hub() as hub:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await hub.publish("a", "x")
        assert scope.cancelled_caught
        assert await hub.history("a") == []


async def test_idempotency_key_publishes_once() -> None:
    """The second publish with a key returns the first id."""
    async with Hub() as hub:
        first = await hub.publish("a", "1", idempotency_key="k")
        assert await hub.publish("a", "1", idempotency_key="k") == first
        assert len(await hub.history("a")) == 1


RESERVED_USES: list[Callable[[Hub], Any]] = [
    lambda hub: hub.publish("sse.control", "x"),
    lambda hub: hub.publish(["a", "sse.x"], "x"),
    lambda hub: hub.publish("a", "x", event="sse.join"),
    lambda hub: hub.publish("a", ServerSentEvent("x", event="sse.gap")),
    lambda hub: hub.publish("a", str, event="sse.gap"),
    lambda hub: hub.subscribe("a", "sse.control").__aenter__(),
    lambda hub: hub.history("sse.control"),
    lambda hub: hub.presence("sse.control"),
]


@pytest.mark.parametrize("use", RESERVED_USES)
async def test_what_begins_with_sse_is_the_librarys_own(use: Callable[[Hub], Any]) -> None:
    """An application cannot publish or read on the library's channels, nor use its event types."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match=r"begin with 'sse\.' are the library's own: choose another"):
            await use(hub)


async def test_callable_data_is_rendered_for_each_reader() -> None:
    """A function as data gets each reader's properties; a falsy result skips the reader."""
    async with Hub() as hub:
        async with hub.subscribe("a", properties="ann") as ann, hub.subscribe("a", properties="bob") as bob:
            published = await hub.publish("a", lambda name: name != "bob" and {"for": name}, event="e")
            await hub.publish("a", "for all")
            first, second = await anext(ann), await anext(bob)
    assert first == ServerSentEvent({"for": "ann"}, event="e", id=published)
    assert second.data == "for all"


async def test_callable_data_cannot_leave_the_process() -> None:
    """On a backend that crosses processes it is a TypeError that names transform."""
    async with Hub(Elsewhere()) as hub:
        with pytest.raises(TypeError, match="transform"):
            await hub.publish("a", lambda _: "x")
        await hub.publish("a", "x")


async def test_a_backend_error_reaches_the_publisher() -> None:
    """An event that was not stored raises."""

    class Failing(Elsewhere):
        async def publish(self, *_: Any, **__: Any) -> Any:
            msg = "no"
            raise BackendError(msg)

    async with Hub(Failing()) as hub:
        with pytest.raises(SSEError, match="no"):
            await hub.publish("a", "x")


# History, drain, state


async def test_drain_ends_readers_and_waits_for_them() -> None:
    """They get pending events, then the end; the hub stays open."""
    async with Hub() as hub:
        seen: list[str | None] = []

        async def read() -> None:
            async with hub.subscribe("a") as subscription:
                seen.extend([event.data async for event in subscription])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await hub.publish("a", "last")
            await hub.drain()
            assert seen == ["last"]
        await hub.publish("a", "x")


async def test_drain_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that does not leave does not block it."""
    monkeypatch.setattr("sse_asgi._hub.hub.DRAIN_SECONDS", 0.01)
    async with Hub() as hub, hub.subscribe("a"):
        with anyio.fail_after(5):
            await hub.drain()
        assert hub.stats().connections == 1


async def test_two_can_drain_at_once() -> None:
    """Both return when the readers have left."""
    async with Hub() as hub, anyio.create_task_group() as tasks:

        async def read() -> None:
            async with hub.subscribe("a") as subscription:
                async for _ in subscription:
                    pass

        tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(0.5):
            async with anyio.create_task_group() as drains:
                drains.start_soon(hub.drain)
                drains.start_soon(hub.drain)


async def test_state_tells_when_the_backend_is_down() -> None:
    """`hub.state` follows the backend's last report."""
    backend = Elsewhere()
    async with Hub(backend) as hub:
        [registry] = backend.inner._sinks
        registry.state(up=False)
        assert hub.state == "down"
        registry.state(up=True)
        assert hub.state == "up"


# Statistics and subscriptions


async def test_statistics_say_what_is_here_now() -> None:
    """Readers and waiting events are counted; a filtered or taken event does not wait."""
    async with Hub() as hub, hub.subscribe("a", "b") as both, hub.subscribe("a", properties=1):
        await hub.publish("a", "x")
        await hub.publish("b", "y")
        await anext(both)
        await anyio.wait_all_tasks_blocked()
        frame = len("id: 01234567-1\ndata: x\n\n")
        # The position frame of the second reader waits too.
        found = hub.stats()
        assert found.connections == 2
        assert found.channels == {"a": 2, "b": 1}
        assert (found.published, found.drops, found.gaps) == (2, 0, 0)
        assert found.buffered_events == 3
        assert found.buffered_bytes > 2 * frame
        assert json.loads(json.dumps(found._asdict()))["channels"] == {"a": 2, "b": 1}
    with pytest.raises(HubClosedError):
        hub.stats()


async def test_drops_and_gaps_are_counted() -> None:
    """Events dropped for a slow reader and announced gaps are counted."""
    async with Hub(buffer_size=2, overflow="drop_oldest") as hub, hub.subscribe("a") as slow:
        for number in range(5):
            await hub.publish("a", number)
        assert (await anext(slow)).event == "sse.gap"
        async with hub.subscribe("a", last_event_id="nonsense"):
            assert (hub.stats().drops, hub.stats().gaps) == (3, 2)


async def test_the_subscriptions_of_a_channel_can_be_looked_at() -> None:
    """The open subscriptions of this process are returned, with their options."""
    async with Hub() as hub, hub.subscribe("a", properties=1) as one, hub.subscribe("b", identity="ada") as two:
        assert hub.subscriptions("a") == [one]
        assert hub.subscriptions("c") == []
        assert [one.options.identity for one in hub.subscriptions()] == [None, "ada"]
        assert two.waiting[0] == 1


# From a thread


async def test_a_thread_publishes_and_waits() -> None:
    """The thread gets the id, or the error of publish."""
    async with Hub() as hub, hub.subscribe("a") as reader:
        publish = functools.partial(hub.publish_from_thread, "a", "x", event="e", idempotency_key="once")
        first = await anyio.to_thread.run_sync(publish)
        assert await anyio.to_thread.run_sync(publish) == first
        event = await anext(reader)
        assert (event.id, event.event, event.data) == (first, "e", "x")
        with pytest.raises(ValueError, match="without data"):
            await anyio.to_thread.run_sync(hub.publish_from_thread, "a", None)
        answers: list[str | None] = []
        thread = threading.Thread(target=lambda: answers.append(hub.publish_from_thread("a", "y")))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert (await anext(reader)).id == answers[0]


async def test_in_an_event_loop_a_thread_is_not_waited_for() -> None:
    """The call would block its own event loop."""
    async with Hub() as hub:
        with pytest.raises(RuntimeError, match=r"await hub.publish\(...\) here"):
            hub.publish_from_thread("a", "x")


def test_a_thread_that_outlives_the_loop_is_told() -> None:
    """The hub may be closed, or its loop may have ended while it was open."""
    hub = Hub()
    with pytest.raises(HubClosedError):
        hub.publish_from_thread("a", "x")
    anyio.run(hub.__aenter__)
    with pytest.raises(HubClosedError):
        hub.publish_from_thread("a", "x")


@pytest.mark.parametrize("other", ["asyncio", "trio"])
async def test_another_loop_can_call_the_hub(other: str) -> None:
    """Its calls run in the hub's loop, whichever loop it is."""
    async with Hub() as hub, hub.subscribe("a", "b", identity="ada", presence="a") as reader:
        position = await in_other_loop(other, functools.partial(hub.publish, "b", "x", key="k"))
        assert [event.id for event in await in_other_loop(other, functools.partial(hub.history, "b"))] == [position]
        assert await in_other_loop(other, functools.partial(hub.presence, "a")) == ["ada"]
        await in_other_loop(other, functools.partial(hub.disconnect, identity="ada"))
        assert [event.data async for event in reader if event.event is None] == ["x"]
        await in_other_loop(other, hub.drain)
        assert (await in_thread(hub.stats)).published == 1


async def test_a_thread_without_a_loop_can_subscribe() -> None:
    """A `def` endpoint runs in such a thread."""
    async with Hub() as hub:
        async with await in_thread(functools.partial(hub.subscribe, "a", properties=7)) as reader:
            hub.publish_soon("a", "x")
            assert (await anext(reader)).data == "x"


# Disconnect, presence, patterns


async def test_disconnect_ends_the_streams_that_match() -> None:
    """Readers that were authorized after `moment` and before the order end too."""
    async with Hub(patterns=["a.*"]) as hub:
        assert hub.patterns == ("a.*",)
        since = hub.moment()
        async with hub.subscribe("a", identity="ada") as open_reader:
            await hub.disconnect(identity="ada", channels="a")
            assert [event async for event in open_reader] == []
        async with hub.subscribe("a", identity="ada", since=since) as late, hub.subscribe("a", identity="ada") as new:
            assert [event async for event in late] == []
            assert new.ended is None


async def test_presence_is_refused_where_the_backend_has_none() -> None:
    """The error names the methods that the backend lacks."""
    async with Hub(Elsewhere()) as hub:
        with pytest.raises(NotImplementedError, match="implement `attend` and `present`"):
            hub.subscribe("a", identity="ada", presence=True)


async def test_a_backend_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has the backend's own trouble, if there is one."""

    class Silent(MemoryBackend):
        trouble = "no route to host"

        async def present(self, channel: str) -> list[str]:
            await anyio.sleep_forever()
            return [channel]

    monkeypatch.setattr("sse_asgi._hub.opening.READ_SECONDS", 0.01)
    async with Hub(Silent()) as hub:
        with pytest.raises(BackendError, match=r"presence cannot be read \(no route to host\)"):
            await hub.presence("a")


async def test_history_is_read_within_its_limit() -> None:
    """A negative limit is refused, and so is a backend that was never reached."""

    class Away(Elsewhere):
        @asynccontextmanager
        async def connect(self, sink: Any) -> AsyncIterator[None]:
            sink.state(up=False)
            yield

    async with Hub() as hub:
        for text in "xyz":
            await hub.publish("a", text)
        assert [event.data for event in await hub.history("a", limit=2)] == ["y", "z"]
        with pytest.raises(ValueError, match="at least 0"):
            await hub.history("a", limit=-1)
    async with Hub(Away()) as hub:
        with pytest.raises(BackendError, match="has not been there yet"):
            await hub.history("a")


# Options that are checked once


async def test_readers_without_options_of_their_own_share_the_hubs() -> None:
    """Thousands of them have one object."""
    async with Hub() as hub:
        assert hub.subscribe("a").options is hub.subscribe("b").options
        assert hub.subscribe("a", buffer_size=3).options.buffer_size == 3


async def test_options_can_be_checked_before_the_hub_is_open() -> None:
    """EventSourceApp does so, and subscribes with them; the channels are checked for each reader."""
    hub = Hub(buffer_size=5)
    options = hub._reader_options(initial=["first"], overflow="latest")
    assert (options.buffer_size, options.overflow) == (5, "latest")
    assert hub._reader_options() is hub._defaults
    with pytest.raises(ValueError, match="overflow must be one of"):
        hub._reader_options(overflow="explode")  # type: ignore[arg-type]
    with pytest.raises(HubClosedError):
        hub._subscribe(("a",), None, options, None)
    async with hub, hub._subscribe(("a",), "", options.for_reader(7, "ada", ()), None) as reader:
        assert (await anext(reader)).data == "first"
        assert (reader.options.properties, reader.options.identity) == (7, "ada")
        with pytest.raises(ValueError, match="own: choose another"):
            hub._subscribe(("sse.a",), None, options, None)


@pytest.mark.parametrize("value", [7, b"0123abcd-1"])
async def test_a_last_event_id_is_a_str(value: Any) -> None:
    """Another type is a TypeError."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="last_event_id must be a str"):
            hub.subscribe("a", last_event_id=value)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_grace_is_not_negative(seconds: float) -> None:
    """0 seconds are allowed."""
    with pytest.raises(ValueError, match="presence_grace must be 0 seconds or more"):
        Hub(presence_grace=seconds)
