"""The life of a hub: opening, borrowing, closing under cancellation, and freeing the first request."""

import asyncio
import gc
import secrets
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from real_redis.launcher import RedisServer
from sse_asgi import (
    BackendError,
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
    Settings,
    create_hub,
)
from sse_asgi._hub import opening
from sse_asgi._hub import registry as _registry
from sse_asgi.backends.base import Sink
from sse_asgi.testing import EventStreamClient

PATIENCE = 30.0


# Opening and closing


@pytest.mark.anyio
async def test_closing_ends_subscriptions_and_refuses_new_ones() -> None:
    """Pending events are still read, then the iteration ends; an older subscription cannot be entered any more."""
    hub = Hub()
    async with hub:
        assert hub.state == "up"
        late = hub.subscribe("a")
        subscription = await hub.subscribe("a").__aenter__()
        await hub.publish("a", "last")
    assert [event.data async for event in subscription] == ["last"]
    with pytest.raises(HubClosedError):
        await late.__aenter__()


@pytest.mark.anyio
async def test_a_hub_can_be_opened_again_and_keeps_its_log() -> None:
    """History belongs to the backend, and outlives the hub's opening."""
    hub = Hub()
    async with hub:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
    async with hub, hub.subscribe("a", last_event_id=first) as subscription:
        assert (await anext(subscription)).data == "2"


@pytest.mark.anyio
async def test_nested_opening_borrows() -> None:
    """The first opener owns the hub: an inner exit closes nothing."""
    hub = Hub()
    async with hub:
        async with hub:
            pass
        await hub.publish("a", "still open")
    assert hub.state == "closed"


@pytest.mark.anyio
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


@pytest.mark.anyio
async def test_a_borrower_may_leave_in_another_task() -> None:
    """The hub closes with the owner's exit all the same, in whichever task that exit runs."""
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


@pytest.mark.anyio
async def test_closing_a_closed_hub_does_nothing() -> None:
    """A surplus exit changes nothing."""
    hub = Hub()
    await hub.__aexit__()
    async with hub:
        assert hub.state == "up"


@pytest.mark.anyio
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


@pytest.mark.anyio
async def test_a_hub_works_in_one_loop_after_another() -> None:
    """The hub keeps no state of a closed loop."""
    hub = Hub()

    async def once() -> None:
        async with hub, hub.subscribe("a") as subscription:
            await hub.publish("a", "x")
            await anext(subscription)

    for _ in range(3):
        await anyio.to_thread.run_sync(anyio.run, once)
        await once()


@pytest.mark.anyio
async def test_two_tasks_may_open_it_at_once() -> None:
    """The second one waits until the first has opened it, and borrows it then."""
    go_on = anyio.Event()
    connections: list[str] = []

    class Slow(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            await go_on.wait()
            connections.append("one")
            async with super().connect(sink):
                yield

    hub = Hub(Slow())

    async def use() -> None:
        async with hub:
            assert await hub.publish("a", "x")
            await anyio.wait_all_tasks_blocked()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        tasks.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        go_on.set()
    assert connections == ["one"]
    assert hub.state == "closed"


@pytest.mark.anyio
async def test_a_hub_whose_backend_fails_can_be_opened_later() -> None:
    """The error is raised, and the hub belongs to no event loop afterwards."""
    errors = [OSError("not now")]

    class Failing(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            if errors:
                raise errors.pop()
            async with super().connect(sink):
                yield

    hub = Hub(Failing())
    with pytest.raises(OSError, match="not now"):
        await hub.__aenter__()
    assert hub.state == "closed"
    with pytest.raises(HubClosedError, match="cannot publish"):
        await hub.publish("a", "x")

    async def open_it() -> None:
        async with hub:
            assert hub.state == "up"

    await anyio.to_thread.run_sync(anyio.run, open_it)


# Cancelled while it closes


class Watched(MemoryBackend):
    """Knows whether it is connected, and blocks for ever while a hub closes."""

    connected = False

    @asynccontextmanager
    async def connect(self, sink: Sink) -> AsyncIterator[None]:
        self.connected = True
        async with super().connect(sink):
            try:
                yield
            finally:
                self.connected = False

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        await anyio.sleep_forever()


async def cancelled_again(hub: Hub, turns: int, times: int) -> None:
    """Close a hub by a cancellation, and cancel its task again some turns of the event loop later."""
    entered = asyncio.Event()

    async def serve() -> None:
        async with hub, hub.subscribe("b"):
            reader = await hub.subscribe("a", identity="ada", presence=True).__aenter__()
            entered.set()
            await asyncio.sleep(PATIENCE)
            del reader

    task = asyncio.create_task(serve())
    await entered.wait()
    for _ in range(times):
        task.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


@pytest.mark.parametrize("turns", range(1, 9))
@pytest.mark.parametrize("times", [2, 3, 6])
def test_a_second_cancellation_leaves_nothing_connected(
    turns: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is disconnected in every case, and the hub can be opened again."""
    monkeypatch.setattr(_registry, "UNSUBSCRIBE_SECONDS", 0.1)
    backend = Watched()
    hub = Hub(backend)

    async def cancel_and_open() -> None:
        await cancelled_again(hub, turns, times)
        assert (hub.state, backend.connected) == ("closed", False)
        await hub.__aenter__()
        assert await hub.publish("a", "x")
        await hub.__aexit__()

    asyncio.run(cancel_and_open())


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
def test_a_second_cancellation_closes_the_connections_to_redis(turns: int, shared_redis: RedisServer) -> None:
    """Redis then has no client of the hub any more."""
    name = secrets.token_hex(8)
    hub = create_hub(f"{shared_redis.url}?client_name={name}")

    async def look() -> None:
        await cancelled_again(hub, turns, 3)
        with anyio.fail_after(PATIENCE):
            while f"name={name} " in await anyio.to_thread.run_sync(shared_redis.cli, "CLIENT", "LIST"):
                await anyio.sleep(0.05)
        assert hub.backend._keeper is None  # type: ignore[attr-defined]

    asyncio.run(look())


@pytest.mark.anyio
async def test_a_cancelled_scope_closes_it_too() -> None:
    """If an anyio scope cancels, the end of the backend's connection still runs completely."""
    ended: list[str] = []

    class Slow(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            async with super().connect(sink):
                try:
                    yield
                finally:
                    await anyio.sleep(0.01)
                    ended.append("properly")

    with anyio.CancelScope() as scope:
        async with Hub(Slow()):
            scope.cancel()
            await anyio.sleep_forever()
    assert ended == ["properly"]


@pytest.mark.anyio
async def test_opening_it_while_it_closes_is_another_life() -> None:
    """The end of the first life leaves the second one alone."""
    first, go_on = anyio.Event(), anyio.Event()

    class Slow(MemoryBackend):
        @asynccontextmanager
        async def connect(self, sink: Sink) -> AsyncIterator[None]:
            async with super().connect(sink):
                yield
            if not first.is_set():
                first.set()
                await go_on.wait()

    hub = Hub(Slow())
    async with anyio.create_task_group() as tasks:

        async def live_and_close() -> None:
            async with hub:
                pass

        tasks.start_soon(live_and_close)
        await first.wait()
        async with hub, hub.subscribe("a") as reader:
            go_on.set()
            await anyio.wait_all_tasks_blocked()
            await hub.publish("a", "x")
            assert (await anext(reader)).data == "x"


@pytest.mark.anyio
async def test_closing_it_twice_at_once_closes_it_once() -> None:
    """The second exit does not wait, and finds nothing to do."""
    hub = Hub()
    await hub.__aenter__()
    hub.publish_soon("a", "x")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hub.__aexit__)
        await hub.__aexit__()
    assert hub.state == "closed"


# The context variables of a request


class Held:
    """An object that an application keeps in a context variable of a request, like its user or session."""


VARIABLE: ContextVar[Held] = ContextVar("VARIABLE")


def application(hub: Hub, held: "list[weakref.ref[Held]]") -> EventSourceMiddleware:
    async def endpoint(request: Request) -> EventSourceResponse:
        one = Held()
        VARIABLE.set(one)
        held.append(weakref.ref(one))
        hub.publish_soon("a", "soon")
        await hub.publish("a", "x")
        since = hub.moment()
        subscription = hub.subscribe("a", identity="ada", presence=True, last_event_id=None, since=since)
        return EventSourceResponse(subscription, ping_interval=0.1)

    return EventSourceMiddleware(Starlette(routes=[Route("/", endpoint)]), hub=hub)


async def check_that_nothing_is_held(hub: Hub) -> None:
    held: list[weakref.ref[Held]] = []
    client = EventStreamClient(application(hub, held))  # whose lifespan is not run: the first request opens the hub
    async with client.stream("/") as first:
        async with client.stream("/"):
            await hub.publish("a", "y")
            await first.received(b"data: y")
            await first.received(b":\n")
    with anyio.fail_after(PATIENCE):
        while any(one() is not None for one in held):
            await anyio.sleep(0.05)
            gc.collect()
    assert hub.state == "up"
    assert len(held) == 2


@pytest.mark.anyio
async def test_the_context_of_the_first_request_is_freed() -> None:
    """Its variables are freed, though it opened the hub and had the first reader, ping and identity."""
    await check_that_nothing_is_held(Hub(presence_grace=0.1))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_context_of_the_first_request_is_freed_on_redis(shared_redis: RedisServer) -> None:
    """Neither the connections nor their timers refer to it."""
    settings = Settings(backend_url=shared_redis.url, hub_name=secrets.token_hex(8), presence_grace=0.1)
    await check_that_nothing_is_held(create_hub(settings))


@pytest.mark.anyio
async def test_a_backend_that_does_not_answer_is_told_with_its_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "READ_SECONDS", 0.01)
    backend = MemoryBackend()
    hub = Hub(backend)
    with pytest.raises(BackendError, match=r"nothing can be read$"), hub._patience("nothing can be read"):
        await anyio.sleep_forever()
    monkeypatch.setattr(MemoryBackend, "trouble", "unplugged")
    with pytest.raises(BackendError, match=r"\(unplugged\)"), hub._patience("nothing can be read"):
        await anyio.sleep_forever()


@pytest.mark.anyio
async def test_a_hub_that_was_closed_says_why() -> None:
    """The lifespan has ended; the error does not say how to open a hub. A hub that is opened again is open."""
    hub = Hub()
    for _ in range(2):
        async with hub:
            await hub.publish("a", "x")
        with pytest.raises(
            HubClosedError, match=r"^cannot publish: the hub was closed, .* lifespan has ended"
        ) as caught:
            await hub.publish("a", "x")
        assert "add_middleware" not in str(caught.value)
