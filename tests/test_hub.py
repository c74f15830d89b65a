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

from sse_asgi import BackendError, Hub, HubClosedError, MemoryBackend, ServerSentEvent, SSEError
from sse_asgi._log.event import History
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Backend

pytestmark = pytest.mark.anyio

BAD_NAMES = ["", "a\nb", "a\0", "\x7f", "\x85", "x" * 513, "é" * 257, "\ud800"]
GOOD_NAMES = ["a", "room:42/é😀 \u2028", "x" * 512, "é" * 256, "sse", " "]


# Opening


async def test_publishing_on_a_closed_hub_says_how_to_open_it() -> None:
    """A hub outside `async with` refuses, and names the ways in."""
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


async def test_closing_ends_subscriptions_and_refuses_new_ones() -> None:
    """What is pending is still read, then the iteration ends; a subscription made before cannot be entered after."""
    hub = Hub()
    async with hub:
        assert hub.state == "up"
        late = hub.subscribe("a")
        subscription = await hub.subscribe("a").__aenter__()
        await hub.publish("a", "last")
    assert [event.data async for event in subscription] == ["last"]
    with pytest.raises(HubClosedError):
        await late.__aenter__()


async def test_a_hub_can_be_opened_again_and_keeps_its_log() -> None:
    """History belongs to the backend, and outlives the hub's opening."""
    hub = Hub()
    async with hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
    async with hub, hub.subscribe("a", last_event_id=first) as subscription:
        assert (await anext(subscription)).data == "2"


async def test_nested_opening_borrows() -> None:
    """The first opener owns the hub: an inner exit closes nothing."""
    hub = Hub()
    async with hub:
        async with hub:
            pass
        await hub.publish("a", "still open")
    assert hub.state == "closed"


async def test_the_owners_exit_closes_at_once() -> None:
    """A borrower in another task does not keep the hub open, nor does its later exit disturb."""
    hub = Hub()
    borrowed, closed = anyio.Event(), anyio.Event()

    async def borrow() -> None:
        async with hub:
            borrowed.set()
            await closed.wait()

    async with anyio.create_task_group() as tasks:
        async with hub:
            tasks.start_soon(borrow)
            await borrowed.wait()
        assert hub.state == "closed"
        async with hub:
            closed.set()
            await anyio.wait_all_tasks_blocked()
        assert hub.state == "closed"


async def test_a_borrower_may_leave_in_another_task() -> None:
    """Neither that nor an owner who does so confuses who closes."""
    hub = Hub()
    entered = anyio.Event()

    async def enter() -> None:
        await hub.__aenter__()
        entered.set()

    async with hub, anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await entered.wait()
        tasks.start_soon(hub.__aexit__)
        await anyio.wait_all_tasks_blocked()
        assert hub.state == "up"
    assert hub.state == "closed"
    await hub.__aenter__()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hub.__aexit__)
    assert hub.state == "closed"


async def test_closing_a_closed_hub_does_nothing() -> None:
    """An exit too many harms nobody."""
    hub = Hub()
    await hub.__aexit__()
    async with hub:
        assert hub.state == "up"


async def test_a_hub_belongs_to_one_event_loop() -> None:
    """Opening it in a second loop while it is open is refused with a clear error."""
    hub = Hub()
    errors: list[BaseException] = []

    def other_loop() -> None:
        try:
            anyio.run(hub.__aenter__)
        except RuntimeError as error:
            errors.append(error)

    async with hub:
        thread = threading.Thread(target=other_loop)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    assert "another event loop" in str(errors[0])


async def test_a_hub_works_in_one_loop_after_another() -> None:
    """Nothing of a closed loop stays behind."""
    hub = Hub()

    async def once() -> None:
        async with hub, hub.subscribe("a") as subscription:
            await hub.publish("a", "x")
            await anext(subscription)

    for _ in range(3):
        await anyio.to_thread.run_sync(anyio.run, once)
        await once()


async def test_lifespan_opens_the_hub_and_shows_it() -> None:
    """`hub.lifespan` fits Starlette's and FastAPI's lifespan, and its state holds the hub."""
    hub = Hub()
    async with hub.lifespan(object()) as state:
        assert state == {"hub": hub}
        assert hub.state == "up"
    assert hub.state == "closed"


@pytest.mark.parametrize(
    "options",
    [
        {"buffer_size": 0},
        {"buffer_bytes": 0},
        {"overflow": "explode"},
        {"ping_interval": 0},
        {"ping_interval": -1.0},
    ],
)
async def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """A wrong value is refused where it is given, and the message has it."""
    with pytest.raises(ValueError, match=str(next(iter(options)))):
        Hub(**options)


async def test_a_backend_is_an_object() -> None:
    """A URL is for create_hub, and the error says so in words that work."""
    with pytest.raises(TypeError, match=r"\(got str\): create_hub\('redis://localhost'\) makes a hub from a URL"):
        Hub("memory://")  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", ["15", True, [1]])
async def test_seconds_are_a_number(seconds: Any) -> None:
    """Another type is a TypeError that names the option."""
    with pytest.raises(TypeError, match="ping_interval must be a number of seconds or None"):
        Hub(ping_interval=seconds)


async def test_events_of_history_are_no_initial_ones() -> None:
    """They have positions in the log; the error names the option that begins with them."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        with pytest.raises(ValueError, match="give rewind=n instead"):
            hub.subscribe("a", initial=await hub.history("a"))


async def test_unknown_options_are_refused() -> None:
    """A misspelt option is a TypeError."""
    with pytest.raises(TypeError):
        Hub(bufer_size=3)  # type: ignore[call-arg]


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


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_bad_channel_names_are_refused(name: str) -> None:
    """Empty, too long, or unprintable: ValueError, for readers and publishers."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="channel"):
            await hub.publish(name, "x")
        with pytest.raises(ValueError, match="channel"):
            hub.subscribe(name)


@pytest.mark.parametrize("name", GOOD_NAMES)
async def test_any_other_channel_name_works(name: str) -> None:
    """Names are taken verbatim."""
    async with Hub() as hub, hub.subscribe(name) as subscription:
        await hub.publish(name, "x")
        assert (await anext(subscription)).channels == (name,)


@pytest.mark.parametrize("channels", [b"a", 3, None, [b"a"], [1]])
async def test_channels_of_a_wrong_type_are_refused(channels: Any) -> None:
    """A channel is a str."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match="str"):
            await hub.publish(channels, "x")


async def test_at_least_one_channel_is_needed() -> None:
    """No channel: ValueError."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match="at least one"):
            await hub.publish([], "x")
        with pytest.raises(ValueError, match="at least one"):
            hub.subscribe()


async def test_a_list_given_to_subscribe_is_explained() -> None:
    """To subscribe one gives names, not a list of them, and the error says so."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=r"subscribe\('a', 'b'\)"):
            hub.subscribe(["a", "b"])  # type: ignore[arg-type]


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
    """Nothing of it reaches the log."""
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


@pytest.mark.parametrize("option", ["key", "idempotency_key"])
async def test_a_key_that_cannot_be_written_is_refused(option: str) -> None:
    """Whatever the backend, a key is text."""
    async with Hub() as hub:
        with pytest.raises(TypeError, match=f"^{option} must be a str .got int.: give str"):
            await hub.publish("a", "1", **{option: 7})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"^{option}='.ud800' has a lone surrogate"):
            await hub.publish("a", "1", **{option: "\ud800"})  # type: ignore[arg-type]
        await hub.publish("a", "1", **{option: "ä"})  # type: ignore[arg-type]


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
    """Whoever chooses a name or a type for an application cannot give orders, or speak as the library."""
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


class Elsewhere(Backend):
    """A backend of some ten lines, that crosses processes, so to speak."""

    def __init__(self) -> None:
        self.inner = MemoryBackend()

    def connect(self, sink: Any) -> Any:
        return self.inner.connect(sink)

    async def publish(self, channels: Any, event: Any, *, key: str | None, idempotency_key: str | None) -> Any:
        return await self.inner.publish(channels, event, key=key, idempotency_key=idempotency_key)

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        return await self.inner.subscribe(channels)

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        await self.inner.unsubscribe(channels)

    async def history(self, channels: Any, after: Any, upto: Position, limit: int) -> History:
        return await self.inner.history(channels, after, upto, limit)


async def test_callable_data_cannot_leave_the_process() -> None:
    """On a backend that crosses processes it is a TypeError that names transform."""
    async with Hub(Elsewhere()) as hub:
        with pytest.raises(TypeError, match="transform"):
            await hub.publish("a", lambda _: "x")
        await hub.publish("a", "x")


async def test_a_backend_error_reaches_the_publisher() -> None:
    """What was not stored raises."""

    class Failing(Elsewhere):
        async def publish(self, *_: Any, **__: Any) -> Any:
            msg = "no"
            raise BackendError(msg)

    async with Hub(Failing()) as hub:
        with pytest.raises(SSEError, match="no"):
            await hub.publish("a", "x")


# History, drain, state


async def test_history_returns_the_newest_in_order() -> None:
    """As readers would see them, over any number of pages."""
    async with Hub() as hub:
        assert await hub.history("a") == []
        for number in range(600):
            await hub.publish(["a", "b"][number % 2], str(number))
        await hub.publish("a", lambda _: "rendered events have no data of their own")
        events = await hub.history("a", "b", limit=3)
        assert len(await hub.history("a", "b", limit=1000)) == 600
    assert [(event.data, event.channels) for event in events] == [("597", ("b",)), ("598", ("a",)), ("599", ("b",))]
    assert all(event.id for event in events)


async def test_history_reads_what_it_returns() -> None:
    """Ten events of a long history, and not the others before them."""

    class Counting(MemoryBackend):
        read = 0

        async def history(self, *args: Any) -> History:
            page = await super().history(*args)
            self.read += len(page.entries)
            return page

    backend = Counting()
    async with Hub(backend) as hub:
        for number in range(1000):
            await hub.publish("a", str(number))
        assert [event.data for event in await hub.history("a", limit=10)] == [
            str(number) for number in range(990, 1000)
        ]
    assert backend.read == 10


async def test_history_takes_a_number_of_events() -> None:
    """None are wanted by 0; a negative number is refused."""
    async with Hub() as hub:
        await hub.publish("a", "x")
        assert await hub.history("a", limit=0) == []
        with pytest.raises(ValueError, match=r"limit must be a number of events, at least 0 \(got -1\)"):
            await hub.history("a", limit=-1)


async def test_history_counts_no_joins() -> None:
    """They come along, and leave room for what was said."""
    async with Hub(presence_grace=0) as hub:
        for number in range(3):
            await hub.publish("a", str(number))
        for _ in range(5):
            async with hub.subscribe("a", identity="ada", presence=True), hub.subscribe("a") as other:
                await hub.publish("a", "x")
                await anext(other)
        said = [event.data for event in await hub.history("a", limit=8) if event.event is None]
    assert said == ["0", "1", "2", *"xxxxx"]


async def test_events_that_are_published_while_history_is_read_push_out_the_oldest() -> None:
    """There are never more than were asked for."""

    class Publishing(MemoryBackend):
        async def rewind(self, *args: Any) -> Position | None:
            position = await super().rewind(*args)
            await self.publish(("a",), ServerSentEvent("meanwhile"), key=None, idempotency_key=None)
            return position

    async with Hub(Publishing()) as hub:
        for number in range(3):
            await hub.publish("a", str(number))
        assert [event.data for event in await hub.history("a", limit=2)] == ["2", "meanwhile"]


async def test_history_is_read_again_where_the_log_begins_another_life() -> None:
    """Nothing of the life before is in it."""

    class Restarting(MemoryBackend):
        restarted = False

        async def history(self, *args: Any) -> History:
            page = await super().history(*args)
            if not self.restarted:
                self.restarted = True
                sinks = self._sinks
                self._begin()
                self._sinks = sinks
                await self.publish(("a",), ServerSentEvent("after"), key=None, idempotency_key=None)
            return page

    async with Hub(Restarting()) as hub:
        await hub.publish("a", "before")
        assert [event.data for event in await hub.history("a")] == ["after"]


async def test_history_of_a_backend_that_was_never_there_is_an_error() -> None:
    """It is not known whether anything is kept."""

    class Away(Elsewhere):
        @asynccontextmanager
        async def connect(self, sink: Any) -> AsyncIterator[None]:
            sink.state(up=False)
            yield

    async with Hub(Away()) as hub:
        with pytest.raises(BackendError, match="has not been there yet"):
            await hub.history("a")


async def test_history_is_empty_without_history() -> None:
    """With history_size=0 there is nothing to return."""
    async with Hub(MemoryBackend(history_size=0)) as hub:
        await hub.publish("a", "x")
        assert await hub.history("a") == []
        assert not hub.keeps_history


async def test_drain_ends_readers_and_waits_for_them() -> None:
    """They get what is pending, then the end; the hub stays open."""
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
    """A reader that does not come back does not hold it up."""
    monkeypatch.setattr("sse_asgi._hub.hub.DRAIN_SECONDS", 0.01)
    async with Hub() as hub, hub.subscribe("a"):
        await hub.drain()


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
    """`hub.state` is what the backend last said."""
    backend = Elsewhere()
    async with Hub(backend) as hub:
        [registry] = backend.inner._sinks
        registry.state(up=False)
        assert hub.state == "down"
        registry.state(up=True)
        assert hub.state == "up"


# Looking inside


async def test_statistics_say_what_is_here_now() -> None:
    """Readers of each channel, and what waits for them; a filtered or taken event does not wait."""
    async with Hub() as hub, hub.subscribe("a", "b") as both, hub.subscribe("a", properties=1):
        await hub.publish("a", "x")
        await hub.publish("b", "y")
        await anext(both)
        await anyio.wait_all_tasks_blocked()
        frame = len("id: 01234567-1\ndata: x\n\n")
        # The second one has its position to take too.
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
    """What was dropped for a slow reader, and what was announced as lost."""
    async with Hub(buffer_size=2, overflow="drop_oldest") as hub, hub.subscribe("a") as slow:
        for number in range(5):
            await hub.publish("a", number)
        assert (await anext(slow)).event == "sse.gap"
        async with hub.subscribe("a", last_event_id="nonsense"):
            assert (hub.stats().drops, hub.stats().gaps) == (3, 2)


async def test_the_subscriptions_of_a_channel_can_be_looked_at() -> None:
    """Those that are open here, with what they are about."""
    async with Hub() as hub, hub.subscribe("a", properties=1) as one, hub.subscribe("b", identity="ada") as two:
        assert hub.subscriptions("a") == [one]
        assert hub.subscriptions("c") == []
        assert [one.options.identity for one in hub.subscriptions()] == [None, "ada"]
        assert two.waiting[0] == 1


# From a thread


async def test_a_thread_publishes_and_waits() -> None:
    """It gets the id, or what publish raises."""
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
    """It would hold up all that runs there, and mostly itself."""
    async with Hub() as hub:
        with pytest.raises(RuntimeError, match=r"await hub.publish\(...\) here"):
            hub.publish_from_thread("a", "x")


def test_a_thread_that_outlives_the_loop_is_told() -> None:
    """Whether the hub was closed, or its loop ended with it open."""
    hub = Hub()
    with pytest.raises(HubClosedError):
        hub.publish_from_thread("a", "x")
    anyio.run(hub.__aenter__)
    with pytest.raises(HubClosedError):
        hub.publish_from_thread("a", "x")
