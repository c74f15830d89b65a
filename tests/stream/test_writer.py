"""Writer: sends from other tasks while the connection rests; nothing is lost or reordered when a send has to wait."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from sse_asgi import EventSourceApp, EventSourceResponse, Hub, MemoryBackend
from sse_asgi._log.event import Entry, History
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Sink
from stream.helpers import Server, directly, pause, serve, shut_down

pytestmark = pytest.mark.anyio


@directly
async def test_an_event_is_sent_before_publish_returns() -> None:
    """It is sent in the publisher's own task if the server takes it without waiting."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        for number in range(3):
            await hub.publish("default", number)
            assert server.data() == [str(one) for one in range(number + 1)]
            await pause()
        assert server.last(3) == [True, True, True]


@directly
async def test_a_send_that_waits_is_gone_on_with_by_the_connection() -> None:
    """Later events follow it in order, and neither the publisher nor another reader waits."""
    free = asyncio.Event()
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        Server().serve(EventSourceApp(hub)) as other,
    ):
        server.waits = free.wait
        for number in range(4):
            await hub.publish("default", number)
        assert server.data() == []
        await other.has("0", "1", "2", "3")
        free.set()
        await server.has("0", "1", "2", "3")
        assert server.last(2) == [False, False]
        server.waits = lambda: None
        await pause()
        await hub.publish("default", "4")
        assert server.last(1) == [True]


class Cut(MemoryBackend):
    """A backend that delivers nothing while it is cut off. Its history waits until it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = False
        self.free = asyncio.Event()

    def connect(self, sink: Sink) -> contextlib.AbstractAsyncContextManager[None]:
        self.sink = sink
        return super().connect(self)  # type: ignore[arg-type]

    def advance(self, position: Position) -> None:
        self.sink.advance(position)

    def deliver(self, entry: Entry) -> None:
        if not self.cut:
            self.sink.deliver(entry)

    async def mend(self) -> None:
        self.cut = False
        position = await self.subscribe(("default",))
        assert position is not None
        self.sink.advance(position)
        self.sink.gap(None, None)
        await anyio.wait_all_tasks_blocked()

    async def history(self, *arguments: Any) -> History:
        await self.free.wait()
        return await super().history(*arguments)


@directly
@pytest.mark.parametrize("when", ["before history was read", "before the connection has heard of it"])
async def test_what_was_missed_comes_first(when: str) -> None:
    """Missed events come before new ones although the writer rests."""
    backend = Cut()
    async with Hub(backend) as hub, Server().serve(EventSourceApp(hub)) as server:
        await hub.publish("default", "0")
        await pause()
        backend.cut = True
        await hub.publish("default", "missed")
        await backend.mend()
        if when == "before history was read":
            await hub.publish("default", "1")
        backend.free.set()
        if when == "before the connection has heard of it":
            await hub.publish("default", "1")
        await server.has("0", "missed", "1")


@directly
async def test_a_send_that_fails_ends_its_connection_alone() -> None:
    """The publisher and the other readers do not see the exception."""

    def fail() -> None:
        raise OSError

    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub)) as server,
        Server().serve(EventSourceApp(hub)) as other,
    ):
        server.waits = fail
        await hub.publish("default", "x")
        await hub.publish("default", "y")
        await other.has("x", "y")
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert len(hub.subscriptions()) == 1


@directly
async def test_work_for_a_reader_is_done_in_its_own_task() -> None:
    """A transform, or data that is a function, may be slow, so the publisher does not run it."""
    async with (
        Hub() as hub,
        Server().serve(EventSourceApp(hub, transform=lambda event, _: event)) as transformed,
        Server().serve(EventSourceApp(hub)) as plain,
    ):
        await hub.publish("default", "x")
        assert plain.data() == ["x"]
        await transformed.has("x")
        await hub.publish("default", lambda _: "y")
        await transformed.has("x", "y")
        await plain.has("x", "y")
        assert transformed.last(2) == [False, False]
        assert plain.last(2) == [True, False]


@directly
async def test_nothing_is_sent_directly_to_a_stream_that_ends() -> None:
    """Its last bytes may have to wait, and no send begins before that send has ended."""
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        assert server.serving is not None
        server.serving.cancel()
        await asyncio.sleep(0)
        assert server.busy == 1
        await hub.publish("default", "x")
        await anyio.wait_all_tasks_blocked()
        free.set()


# Stress


@directly
@pytest.mark.parametrize("seed", range(12))
async def test_nothing_is_lost_whatever_waits(seed: int) -> None:
    """Readers that stall for some turns of the event loop get all events in order."""
    chance = random.Random(seed)

    async def turns() -> None:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)

    def waits() -> Awaitable[None] | None:
        return turns() if chance.random() < 0.5 else None

    async with Hub(buffer_size=4) as hub, contextlib.AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(Server().serve(EventSourceApp(hub))) for _ in range(4)]
        for reader in readers[1:]:
            reader.waits = waits
        sent = 0
        while sent < 100:
            burst = chance.choice((1, 1, 1, 2, 7))
            await asyncio.gather(*(hub.publish("default", sent + number) for number in range(burst)))
            sent += burst
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        for reader in readers:
            await reader.has(*map(str, range(sent)))


@directly
@pytest.mark.parametrize("turns", range(12))
async def test_a_connection_can_be_cancelled_at_any_turn(turns: int) -> None:
    """Its reader leaves, also in the middle of a send that the publisher began, and other readers go on."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as other:
        server = Server()
        async with server.serve(EventSourceApp(hub)):
            server.waits = lambda: asyncio.sleep(0) if turns % 2 else asyncio.sleep(0.001)
            await hub.publish("default", "x")
            for _ in range(turns // 2):
                await asyncio.sleep(0)
            assert server.serving is not None
            server.serving.cancel()
            await hub.publish("default", "y")
        with anyio.fail_after(5):
            while len(hub.subscriptions()) != 1:
                await anyio.sleep(0.001)
        await other.has("x", "y")
        assert server.busy == 0


@directly
async def test_a_client_that_goes_while_a_send_waits_is_cleaned_up_after() -> None:
    """A send that does not return by itself is broken off."""
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = asyncio.Event().wait
        await hub.publish("default", "x")
        server.gone.set()
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        assert hub.subscriptions() == []
        assert server.busy == 0


@directly
async def test_a_generator_sends_its_next_item_itself() -> None:
    """The connection's task sends the head with the first item, and the end."""

    async def items() -> AsyncIterator[str]:
        yield "0"
        await anyio.sleep(0.01)
        yield "1"

    server = Server()
    async with server.serve(EventSourceResponse(items(), reconnect_after_end=True)):
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
    assert server.bodies == [b"data: 0\n\n", b"data: 1\n\n", b""]
    assert [task is server.serving for task in server.tasks] == [True, False, True]


@directly
async def test_other_tasks_have_a_turn_between_large_bodies() -> None:
    """A server that takes everything at once does not make the connection wait."""
    free, turns, seen = asyncio.Event(), 0, list[int]()

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        for _ in range(10):
            await hub.publish("default", "x" * 40_000)
        ticking = asyncio.create_task(tick())
        server.waits = lambda: seen.append(turns)
        free.set()
        await server.has(*["x" * 40_000] * 10)
        ticking.cancel()
        assert len(seen) == 9  # without those of the stream's end, which have no turn between them
        assert len({*seen}) == 9


@directly
async def test_a_send_that_has_returned_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that returns after the disconnect is complete, and the stream ends as usual."""
    monkeypatch.setattr("sse_asgi._stream.connection.RETURN_SECONDS", 0.01)
    free = asyncio.Event()
    async with Hub() as hub, Server().serve(EventSourceApp(hub)) as server:
        server.waits = free.wait
        await hub.publish("default", "x")
        server.gone.set()
        await asyncio.sleep(0)
        free.set()
        assert server.serving is not None
        with anyio.fail_after(5):
            await server.serving
        await asyncio.sleep(0.05)
    assert server.data() == ["x"]


@pytest.mark.usefixtures("notice")
async def test_another_answer_may_take_the_place_of_the_head() -> None:
    """A stream that begins while the server stops is declined, with the headers of its head."""
    await shut_down()
    async with serve(list, headers={"X-Own": "1"}).stream("/", method="POST") as stream:
        await stream.ended()
        assert (stream.status_code, stream.content, stream.complete) == (503, b"", True)
        assert stream.headers["x-own"] == "1"
