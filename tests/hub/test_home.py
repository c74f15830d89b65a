"""The event loop that a hub belongs to, and its calls from other threads and other event loops."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from hub.loops import PATIENCE, as_async, in_other_loop, in_thread, new_hub
from real_redis.launcher import RedisServer
from sse_asgi import EventSourceResponse, Hub, HubClosedError, MemoryBackend, Subscription
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio

LOOPS = ["asyncio", "trio"]


@pytest.fixture(params=["asyncio-memory", "trio-memory", "asyncio-redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(kind: str) -> str:
    """Run the hub on both event loops; Redis needs asyncio."""
    return kind.partition("-")[0]


@pytest.fixture
async def hub(kind: str, shared_redis: RedisServer) -> AsyncIterator[Hub]:
    async with new_hub(kind, shared_redis) as hub:
        yield hub


@pytest.fixture(params=LOOPS)
def other(request: pytest.FixtureRequest) -> str:
    """Name the event loop that the other thread runs."""
    return str(request.param)


# Calls from other event loops


async def test_another_loop_can_publish(hub: Hub, other: str) -> None:
    """It gets the id of the event, which a reader in the hub's loop gets as if it had been published there."""
    async with hub.subscribe("a") as reader:
        position = await in_other_loop(other, partial(hub.publish, "a", "x", event="e"))
        event = await anext(reader)
        assert (event.id, event.event, event.data) == (position, "e", "x")


async def test_another_loop_gets_what_publish_raises(hub: Hub, other: str) -> None:
    """An event that the hub refuses is the same error there."""
    with pytest.raises(ValueError, match="without data"):
        await in_other_loop(other, partial(hub.publish, "a", None))


async def test_another_loop_gets_what_the_hub_raises(hub: Hub, other: str) -> None:
    """An error in the hub's loop is raised in the other one."""
    with pytest.raises(ValueError, match="limit must be"):
        await in_other_loop(other, partial(hub.history, "a", limit=-1))


async def test_another_loop_can_wait_in_publish_from_thread(hub: Hub, other: str) -> None:
    """The call blocks that loop, and not the hub's."""
    position = await in_other_loop(other, as_async(partial(hub.publish_from_thread, "a", "x")))
    assert [event.id for event in await hub.history("a")] == [position]


async def test_in_its_own_loop_publish_from_thread_names_what_works(hub: Hub) -> None:
    """Waiting there would never end."""
    with pytest.raises(RuntimeError, match=r"await hub.publish\(...\) here, or call hub.publish_soon"):
        hub.publish_from_thread("a", "x")


async def test_another_loop_can_publish_soon(hub: Hub, other: str) -> None:
    """Without waiting."""
    async with hub.subscribe("a") as reader:
        await in_other_loop(other, as_async(partial(hub.publish_soon, "a", "x")))
        assert (await anext(reader)).data == "x"


async def test_another_loop_can_read_history(hub: Hub, other: str) -> None:
    """As from the hub's."""
    await hub.publish("a", "1")
    await hub.publish("a", "2")
    events = await in_other_loop(other, partial(hub.history, "a", limit=1))
    assert [event.data for event in events] == ["2"]


async def test_another_loop_can_disconnect(hub: Hub, other: str) -> None:
    """The matching streams end."""
    async with hub.subscribe("a", identity="ada") as reader:
        await in_other_loop(other, partial(hub.disconnect, identity="ada"))
        with anyio.fail_after(PATIENCE):
            assert [event async for event in reader] == []
        assert reader.ended == "revoked"


async def test_another_loop_can_ask_for_presence(hub: Hub, other: str) -> None:
    """It gets the identities of the readers in the hub's loop."""
    async with hub.subscribe("a", identity="ada", presence=True):
        assert await in_other_loop(other, partial(hub.presence, "a")) == ["ada"]


async def test_another_loop_can_drain(hub: Hub, other: str) -> None:
    """The streams end, and drain returns when their readers have left."""
    left = anyio.Event()

    async def read() -> None:
        async with hub.subscribe("a") as reader:
            entered.set()
            assert [event async for event in reader] == []
        left.set()

    entered = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await entered.wait()
        await in_other_loop(other, hub.drain)
        assert left.is_set()


async def test_other_threads_can_look_inside(hub: Hub, other: str) -> None:
    """Statistics and subscriptions are read in the hub's loop, where they cannot change meanwhile."""
    async with hub.subscribe("a") as reader:
        assert (await in_thread(hub.stats)).connections == 1
        assert (await in_other_loop(other, as_async(hub.stats))).connections == 1
        assert await in_thread(hub.subscriptions, "a") == [reader]
        assert await in_other_loop(other, as_async(hub.subscriptions)) == [reader]


async def test_another_thread_can_take_the_moment(hub: Hub, other: str) -> None:
    """From then on disconnect orders are received in the hub's loop."""
    since = await in_other_loop(other, as_async(hub.moment))
    await hub.disconnect({"user": 7})
    async with hub.subscribe("a", properties={"user": 7}, since=since) as reader:
        with anyio.fail_after(PATIENCE):
            assert [event async for event in reader] == []


async def test_another_thread_can_end_a_subscription(hub: Hub, other: str) -> None:
    """Its reader is woken in the hub's loop."""
    for end in (in_thread, partial(in_other_loop, other)):
        async with hub.subscribe("a") as reader, anyio.create_task_group() as tasks:
            stop = partial(reader.end, "revoked")
            tasks.start_soon(end, stop if end is in_thread else as_async(stop))
            with anyio.fail_after(PATIENCE):
                assert [event async for event in reader] == []


async def test_a_call_that_is_cancelled_is_cancelled_in_the_hubs_loop(other: str) -> None:
    """The call's task in the hub's loop ends."""
    reading, given_up = threading.Event(), threading.Event()

    class Slow(MemoryBackend):
        async def history(self, *_: Any) -> Any:
            reading.set()
            try:
                await anyio.sleep_forever()
            finally:
                given_up.set()

    async def give_up(hub: Hub) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.history, "a")
            while not reading.is_set():
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    async with Hub(Slow()) as hub:
        await in_other_loop(other, partial(give_up, hub))
        await anyio.to_thread.run_sync(given_up.wait, PATIENCE)
        assert given_up.is_set()


async def test_a_call_that_is_given_up_before_it_began_is_not_made(other: str) -> None:
    """The hub's loop was blocked, and does not run the call afterwards."""
    given_up = threading.Event()

    async def give_up(hub: Hub) -> None:
        with anyio.move_on_after(0.01):
            await hub.publish("a", "x")
        given_up.set()

    async with Hub() as hub:
        thread = threading.Thread(target=partial(anyio.run, give_up, hub, backend=other))
        thread.start()
        given_up.wait(PATIENCE)  # blocks this event loop, on purpose
        await anyio.to_thread.run_sync(thread.join)
        assert await hub.history("a") == []


# Calls that are refused


def refused(what: str) -> Any:
    return pytest.raises(
        RuntimeError, match=rf"^{what}: this hub belongs to .*publish_from_thread.*publish_soon.* work"
    )


async def test_another_loop_cannot_subscribe(hub: Hub, other: str) -> None:
    """The error names the calls that work there."""
    with refused("cannot subscribe"):
        await in_other_loop(other, as_async(partial(hub.subscribe, "a")))


async def test_another_loop_cannot_open_or_close_it(hub: Hub, other: str) -> None:
    """Both are refused, and the hub stays open."""
    with refused("cannot open the hub"):
        await in_other_loop(other, hub.__aenter__)
    with refused("cannot close the hub"):
        await in_other_loop(other, hub.__aexit__)
    assert await hub.publish("a", "x")


async def test_another_loop_cannot_use_a_subscription(hub: Hub, other: str) -> None:
    """It can neither enter, iterate nor leave one, and the attempts change nothing."""
    new = hub.subscribe("a")
    with refused("cannot enter the subscription"):
        await in_other_loop(other, new.__aenter__)
    async with new as reader:
        await hub.publish("a", "x")
        with refused("cannot read the subscription"):
            await in_other_loop(other, reader.__anext__)
        with refused("cannot leave the subscription"):
            await in_other_loop(other, reader.__aexit__)
        assert (await anext(reader)).data == "x"


async def test_a_response_in_another_loop_is_refused(hub: Hub, other: str) -> None:
    """The application of another loop gets the error in place of a stream, wherever the subscription was made."""
    made = hub.subscribe("a")

    async def here(request: Request) -> EventSourceResponse:
        return EventSourceResponse(made if request.url.path == "/made" else hub.subscribe("a"))

    async def ask(path: str) -> None:
        app = Starlette(routes=[Route("/made", here), Route("/make", here)])
        async with EventStreamClient(app) as client, client.stream(path) as stream:
            await stream.read()

    with refused("cannot subscribe"):
        await in_other_loop(other, partial(ask, "/make"))
    with refused("cannot enter the subscription"):
        await in_other_loop(other, partial(ask, "/made"))
    assert hub.stats().connections == 0


async def test_a_memory_backend_is_open_in_one_loop(other: str) -> None:
    """A second hub on it in another loop would get its events in the first hub's loop."""
    backend = MemoryBackend()

    async def open_another() -> None:
        async with Hub(backend):
            pass

    async with Hub(backend), Hub(backend):
        with pytest.raises(RuntimeError, match="this MemoryBackend is open in another event loop"):
            await in_other_loop(other, open_another)
    await in_other_loop(other, open_another)


# Threads without an event loop


async def test_a_thread_can_subscribe(hub: Hub) -> None:
    """As a `def` endpoint does, with an identity and presence; the subscription is read in the hub's loop."""
    subscribe = partial(hub.subscribe, "a", identity="ada", properties={"user": 7}, presence=True)
    for thread in (in_thread, anyio.to_thread.run_sync):
        subscription: Subscription = await thread(subscribe)
        async with subscription as reader:
            assert await hub.presence("a") == ["ada"]
            await hub.disconnect({"user": 7})
            with anyio.fail_after(PATIENCE):
                assert [event async for event in reader if event.event != "sse.join"] == []
            assert reader.ended == "revoked"


async def test_orders_between_subscribing_in_a_thread_and_entering_are_heard(hub: Hub) -> None:
    """Such orders are read from the log, if the hub's loop does not listen yet."""
    async with hub.subscribe("warm"):
        pass  # the hub's position is known
    subscribed = await in_thread(partial(hub.subscribe, "a", identity="ada"))
    await hub.disconnect(identity="ada")
    async with subscribed as reader:
        with anyio.fail_after(PATIENCE):
            assert [event async for event in reader] == []


async def test_a_def_endpoint_streams(hub: Hub) -> None:
    """Starlette runs it in a thread of its pool, where the response is made as well."""

    def endpoint(_: Request) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe("a", identity="ada", presence=True))

    async with EventStreamClient(Starlette(routes=[Route("/", endpoint)])) as client, client.stream("/") as stream:
        await hub.publish("a", "x")
        assert [(await stream.next_event()).event for _ in range(2)].count("sse.join") <= 1
        assert b"data: x" in stream.content or (await stream.next_event()).data == "x"


async def test_many_threads_subscribe_at_once(hub: Hub) -> None:
    """Each gets its own, and the hub listens for orders once."""
    gate = threading.Barrier(8)
    made: list[Subscription] = []

    def subscribe() -> None:
        gate.wait(PATIENCE)
        made.extend(hub.subscribe("a", identity=str(number)) for number in range(50))

    threads = [threading.Thread(target=subscribe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    assert len({id(one) for one in made}) == 400
    async with made[0]:
        assert hub._registry is not None
        await hub.disconnect(identity="unknown")
        assert len(hub._registry._channels["sse.control"].readers) == 1


# The end


async def test_a_loop_that_has_ended_is_told_of(other: str) -> None:
    """Where it ended with the hub open, every call raises HubClosedError instead of waiting for ever."""
    hub = Hub()
    await in_other_loop(other, hub.__aenter__)
    for call in (hub.publish("a", "x"), hub.history("a"), hub.presence("a"), hub.drain()):
        with pytest.raises(HubClosedError, match=r"the event loop that opened it has ended.* make another one here"):
            await call
    for function in (hub.stats, partial(hub.publish_from_thread, "a", "x"), partial(hub.publish_soon, "a", "x")):
        with pytest.raises(HubClosedError, match="the event loop that opened it has ended"):
            await in_thread(function)
    for refuse in (hub.__aenter__, hub.__aexit__, as_async(partial(hub.subscribe, "a"))):
        with pytest.raises(HubClosedError, match="the event loop that opened it has ended"):
            await refuse()


@pytest.mark.parametrize("kind", ["asyncio-memory"], indirect=True)
async def test_a_loop_that_stands_still_is_told_of() -> None:
    """A stopped loop runs no task, and the call would wait for ever."""
    loop = asyncio.new_event_loop()
    hub = Hub()
    with contextlib.closing(loop):
        await in_thread(loop.run_until_complete, hub.__aenter__())
        with pytest.raises(HubClosedError, match="has ended"):
            await hub.publish("a", "x")
        await in_thread(loop.run_until_complete, hub.__aexit__())


async def test_a_call_whose_loop_ends_is_told_of(other: str) -> None:
    """The hub's loop cancels the call when it ends, and the caller gets an error."""
    reading = threading.Event()

    class Slow(MemoryBackend):
        async def history(self, *_: Any) -> Any:
            reading.set()
            await anyio.sleep_forever()

    hub = Hub(Slow())

    async def end_with_it_open() -> None:
        await hub.__aenter__()
        opened.set()
        while not reading.is_set():
            await anyio.sleep(0.01)

    opened = threading.Event()
    thread = threading.Thread(target=partial(anyio.run, end_with_it_open, backend=other))
    thread.start()
    await anyio.to_thread.run_sync(opened.wait, PATIENCE)
    with pytest.raises(HubClosedError, match="ended during the call: whether it was carried out is not known"):
        await hub.history("a")
    await anyio.to_thread.run_sync(thread.join)


@pytest.mark.parametrize("kind", ["asyncio-memory"], indirect=True)
async def test_a_waiting_loop_that_has_ended_is_not_answered() -> None:
    """If a loop stops during its call, the hub goes on working."""
    reading, go_on = threading.Event(), anyio.Event()

    class Slow(MemoryBackend):
        async def history(self, *arguments: Any) -> Any:
            reading.set()
            await go_on.wait()
            return await super().history(*arguments)

    async with Hub(Slow()) as hub:

        def stop_waiting() -> None:
            loop = asyncio.new_event_loop()
            waiting = loop.create_task(hub.history("a"))
            loop.call_soon(loop.stop)
            loop.run_forever()
            kept.append(waiting)
            waiting._log_destroy_pending = False  # type: ignore[attr-defined]
            loop.close()

        kept: list[Any] = []
        await in_thread(stop_waiting)
        await anyio.to_thread.run_sync(reading.wait, PATIENCE)
        go_on.set()
        assert await hub.publish("a", "x")


@pytest.mark.parametrize("kind", ["asyncio-memory"], indirect=True)
async def test_an_interrupt_gives_up_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a thread's wait is raised at once, and the call is cancelled in the hub's loop."""
    given_up = anyio.Event()

    class Slow(MemoryBackend):
        async def history(self, *_: Any) -> Any:
            try:
                await anyio.sleep_forever()
            finally:
                given_up.set()

    async with Hub(Slow()) as hub:
        assert hub._registry is not None
        home = hub._registry.home

        def interrupted() -> None:
            job = home._start(partial(hub.history, "a"))
            while job._child is None:
                time.sleep(0.01)
            monkeypatch.setattr(job.outcome, "result", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
            monkeypatch.setattr(type(home), "_start", lambda *_: job)
            home.wait(partial(hub.history, "a"))

        with pytest.raises(KeyboardInterrupt):
            await in_thread(interrupted)
        with anyio.fail_after(PATIENCE):
            await given_up.wait()


@pytest.mark.parametrize("kind", ["asyncio-memory"], indirect=True)
async def test_a_forked_process_is_told_what_to_do() -> None:
    """The hub's loop does not run there: each call raises at once."""
    async with Hub() as hub:
        number = os.getpid()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: number + 1)
            for function in (
                partial(hub.publish_from_thread, "a", "x"),
                partial(hub.publish_soon, "a", "x"),
                hub.stats,
            ):
                with pytest.raises(RuntimeError, match="open a hub in each process, or use a Publisher"):
                    await in_thread(function)
