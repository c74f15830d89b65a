"""The life of a hub: what is left when closing is interrupted, and what it holds of the request that opened it."""

import asyncio
import gc
import secrets
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
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    MemoryBackend,
    Settings,
    create_hub,
)
from sse_asgi._hub import registry as _registry
from sse_asgi.backends.base import Sink
from sse_asgi.testing import EventStreamClient

PATIENCE = 30.0


# Cancelled while it closes


class Watched(MemoryBackend):
    """Knows whether it is connected, and waits for ever where a hub closes."""

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
    """Have a hub closed by a cancellation, and cancel its task again some turns of the event loop later."""
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
    """Whenever it comes while the hub closes, the backend is left, and the hub can be opened again."""
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
    """Redis sees no client of the hub any more."""
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
    """Where anyio's scopes cancel, what the backend does at its end is not cut off."""
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
    """The second one waits for nothing, and finds nothing to do."""
    hub = Hub()
    await hub.__aenter__()
    hub.publish_soon("a", "x")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hub.__aexit__)
        await hub.__aexit__()
    assert hub.state == "closed"


# What it holds of a request


class Held:
    """What an application keeps in a context variable of a request: its user, its session."""


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
    """Its variables go with it, although it opened the hub, and was the first with a reader, a ping and an identity."""
    await check_that_nothing_is_held(Hub(presence_grace=0.1))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_context_of_the_first_request_is_freed_on_redis(shared_redis: RedisServer) -> None:
    """Neither the connections nor their timers hold it."""
    settings = Settings(backend_url=shared_redis.url, hub_name=secrets.token_hex(8), presence_grace=0.1)
    await check_that_nothing_is_held(create_hub(settings))
