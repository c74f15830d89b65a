"""Joiner: events that follow closely are joined, and nothing is held for long."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sse_asgi import EventSourceApp, Hub
from sse_asgi._hub.delivery import Delivery
from sse_asgi._stream.joining import current_joiner
from stream.helpers import Server, directly, pause

pytestmark = pytest.mark.anyio


async def at_once(hub: Hub, count: int) -> None:
    await asyncio.gather(*(hub.publish("default", number) for number in range(count)))


async def one_after_another(hub: Hub, count: int) -> None:
    for number in range(count):
        await hub.publish("default", number)


@directly
@pytest.mark.parametrize("publish", [at_once, one_after_another])
async def test_events_that_follow_without_a_pause_are_joined(
    publish: Callable[[Hub, int], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is sent at once. The others are one body, which the event loop sends outside any task."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 1.0)
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        before = len(server.bodies)
        await publish(hub, 10)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2
        assert server.tasks[-1] is None


@directly
async def test_the_joiner_tells_when_an_event_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that waits is sent with the others; each event is told of once, however many readers it has."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    told: list[tuple[str, int]] = []
    async with Hub() as hub:
        app = EventSourceApp(hub)
        async with Server().serve(app) as one, Server().serve(app) as other:
            registry = hub._opened("")

            def when_sent(delivery: Delivery) -> Callable[[float], None]:
                return lambda _: told.append((delivery.entry.frame.decode(), len(other.bodies)))

            registry.when_sent = when_sent
            before = len(other.bodies)
            await one_after_another(hub, 3)
            for server in (one, other):
                await server.has("0", "1", "2")
    assert [frame.partition("data: ")[2].strip() for frame, _ in told] == ["0", "1", "2"]
    assert [bodies - before for _, bodies in told] == [1, 2, 2]


@directly
async def test_events_of_many_readers_are_joined_over_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such pauses are between answers of Redis. Sending events one by one would take longer than waiting for more."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    current_joiner().seconds_each = 1.0
    monkeypatch.setattr("sse_asgi._stream.joining.PAUSE_SECONDS", 0.1)
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        before = len(server.bodies)
        for number in range(10):
            await hub.publish("default", number)
            await asyncio.sleep(0.002)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2


@directly
async def test_events_are_not_held_for_longer_than_it_takes_to_send_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds for events that come without end."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    current_joiner().seconds_each = 0.02
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        number = 0
        with anyio.fail_after(5):
            while len(server.bodies) < 5:
                await hub.publish("default", number)
                number += 1
                await asyncio.sleep(0)


@directly
async def test_events_are_not_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers get the events of a publisher that never pauses."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 0.0)
    # A clock that stands still: sending takes no time, however busy the machine is.
    monkeypatch.setattr(current_joiner(), "timer", SimpleNamespace(now=lambda: 1e12))
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        for number in range(10):
            await hub.publish("default", number)
            assert int(str(server.data()[-1])) >= number - 2


@directly
async def test_the_first_event_of_another_channel_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other event waits that it could be joined with."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub, channels="a")) as one,
        Server().serve(EventSourceApp(hub, channels="b")) as two,
    ):
        await hub.publish("a", "1")
        await hub.publish("b", "1")
        assert (one.last(1), two.last(1)) == ([True], [True])
        await hub.publish(["a", "b"], "2")
        assert (one.data(), two.data()) == (["1"], ["1"])
        await one.has("1", "2")
        await two.has("1", "2")


@directly
async def test_whoever_waits_is_not_sent_a_later_event_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting event is sent together with the later one, without a task."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    async with Hub() as hub, Server().serve(EventSourceApp(hub, channels=["a", "b"])) as server:
        before = len(server.bodies)
        await hub.publish("a", "1")
        await hub.publish("a", "2")
        await hub.publish("b", "3")
        assert server.data() == ["1", "2", "3"]
        assert server.tasks[before:] == [asyncio.current_task()] * 2


@directly
@pytest.mark.parametrize("bound", [{"buffer_size": 1}, {"buffer_bytes": 20}])
@pytest.mark.parametrize("overflow", ["drop_oldest", "close"])
@pytest.mark.parametrize("reads", ["plainly", "with a transform", "through another server"])
async def test_nothing_overflows_because_it_is_held(
    reads: str, overflow: Any, bound: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event without room in the buffer has the waiting events sent. Events for the connection's task do not wait."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    if reads == "through another server":
        monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", set())
    options: dict[str, Any] = {"overflow": overflow, **bound}
    if reads == "with a transform":
        options["transform"] = lambda event, _: event
    async with Hub() as hub, Server().serve(EventSourceApp(hub, **options)) as server:
        for number in range(10):
            await hub.publish("default", number)
            await asyncio.sleep(0)
        await server.has(*map(str, range(10)))
        assert hub.stats().drops == 0


@directly
async def test_a_reader_that_is_full_has_no_other_sent_single_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """The full buffer of one reader sends nothing to other readers."""
    monkeypatch.setattr("sse_asgi._hub.registry.PAUSE_SECONDS", 1.0)
    monkeypatch.setattr("sse_asgi._stream.joining.JOIN_SECONDS", 1.0)
    stalled = Server()
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        stalled.serve(EventSourceApp(hub, overflow="drop_oldest", buffer_size=2)),
    ):
        stalled.waits = asyncio.Event().wait
        before = len(server.bodies)
        for number in range(10):
            await hub.publish("default", number)
        await server.has(*map(str, range(10)))
        assert len(server.bodies) == before + 2
        assert hub.stats().buffered_events == 2


@directly
async def test_an_event_may_be_sent_at_once_again() -> None:
    """This holds for another reader, and after a burst."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as one, Server().serve(EventSourceApp(hub)) as two:
        await asyncio.gather(*(hub.publish("default", number) for number in range(3)))
        await one.has("0", "1", "2")
        await two.has("0", "1", "2")
        await pause()
        await hub.publish("default", "3")
        assert one.last(1) == two.last(1) == [True]
