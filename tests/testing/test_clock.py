"""Clock: seconds and hours of the library's time, in no time."""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from sse_asgi import EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, MemoryBackend
from sse_asgi._loop.timer import shared_timer
from sse_asgi.testing import Clock, EventStreamClient
from sse_asgi.testing._clock import settle

pytestmark = pytest.mark.anyio


async def quiet() -> AsyncIterator[str]:
    yield "a"
    await anyio.sleep_forever()


async def test_what_is_due_happens_in_order() -> None:
    """Also what is scheduled on the way; what is due later does not happen."""
    clock, timer, told = Clock(), shared_timer(), []

    def first() -> None:
        told.append("first")
        timer.after(100, lambda: told.append("follows"))

    timer.after(3600, lambda: told.append("last"))
    timer.after(60, first)
    before = clock.now()
    await clock.advance(59.9)
    assert told == []
    await clock.advance(3600)
    assert told == ["first", "follows", "last"]
    assert 3659.9 <= clock.now() - before < 3665


async def test_each_alarm_has_its_effects_before_the_next() -> None:
    """A task that sleeps three times is woken at each of its times."""
    clock, timer, told = Clock(), shared_timer(), []

    async def sleep() -> None:
        for _ in range(3):
            await timer.sleep(10)
            told.append(round(clock.now() - began))

    began = clock.now()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sleep)
        await clock.advance(35)
    assert told == [10, 20, 30]


async def test_a_ping_is_sent() -> None:
    """After each ping_interval of silence, and not before."""
    clock = Clock()
    async with Hub(ping_interval=15) as hub, EventStreamClient(EventSourceApp(hub)).stream("/") as stream:
        await stream.received(b"sse.position")
        before = len(stream.content)
        await clock.advance(14)
        assert len(stream.content) == before
        await clock.advance(1)
        assert stream.content[before:] == b":\n"
        await clock.advance(30)
        assert stream.content[before:] == b":\n" * 3


async def test_a_foreign_stream_is_pinged() -> None:
    """The middleware's own streams of other libraries have the same time."""
    clock = Clock()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: a\n\n", "more_body": True})
        await receive()
        await receive()

    async with EventStreamClient(EventSourceMiddleware(app)).stream("/") as stream:
        await stream.next_event()
        await clock.advance(15)
        assert stream.content == b"data: a\n\n:\n"


async def test_a_lifetime_ends() -> None:
    """`max_lifetime` is spread by a fifth, so the test goes beyond it."""
    clock = Clock()
    async with EventStreamClient(EventSourceResponse(quiet(), max_lifetime=1800)).stream("/") as stream:
        await stream.next_event()
        await clock.advance(1800 * 0.8 - 1)
        assert not stream.complete
        await clock.advance(1800 * 0.4 + 1)
        assert stream.complete


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    """After `send_timeout`, at its second look."""
    clock = Clock()
    response = EventSourceResponse(quiet(), send_timeout=30, ping_interval=1)
    async with EventStreamClient(response).stream("/") as stream:
        await stream.next_event()
        stream.stall()
        await clock.advance(1)
        assert response.reason is None
        await clock.advance(30)
        await stream.ended()
        assert response.reason == "slow"


async def test_a_poll_ends() -> None:
    """When its wait is over."""
    clock, answers = Clock(), []
    async with EventStreamClient(EventSourceApp(Hub())) as client, anyio.create_task_group() as tasks:

        async def poll() -> None:
            answers.append(await client.request("GET", "/?poll=1&wait=4"))

        tasks.start_soon(poll)
        await clock.advance(3)
        assert answers == []
        await clock.advance(1)
        assert [answer.status_code for answer in answers] == [200]


async def test_history_expires() -> None:
    """A reader that comes after `history_ttl` gets a gap."""
    clock = Clock()
    async with Hub(MemoryBackend(history_ttl=3600)) as hub:
        first = await hub.publish("default", "first")
        await hub.publish("default", "second")
        await clock.advance(3600)
        async with EventStreamClient(EventSourceApp(hub)).stream("/", last_event_id=first) as stream:
            assert (await stream.next_event())[:2] == ("sse.gap", '{"reason":"expired"}')


async def test_presence_ends_after_its_grace() -> None:
    """A reader that has left is listed for `presence_grace` seconds more."""
    clock = Clock()
    async with Hub(presence_grace=5) as hub:
        async with hub.subscribe("a", identity="Ada", presence=True):
            await settle()
        await clock.advance(4)
        assert await hub.presence("a") == ["Ada"]
        await clock.advance(1)
        assert await hub.presence("a") == []


async def test_a_run_of_a_dead_process_is_lost_after_its_lease() -> None:
    """Another process of the log says so, and forgets the run after its `ttl`; its own run goes on."""
    clock = Clock()
    backend = MemoryBackend()
    async with Hub(backend, presence_ttl=15) as hub:
        await backend.start_run("dead", "elsewhere", lease=15, ttl=60)
        mine = await hub.start_run("mine", quiet)
        await clock.advance(14)
        assert [run.state for run in (await hub.get_run("dead"), mine) if run is not None] == ["running"] * 2
        await clock.advance(6)
        assert [run.state for run in (await hub.get_run("dead"), mine) if run is not None] == ["lost", "running"]
        await clock.advance(60)
        assert await hub.get_run("dead") is None


async def test_a_run_that_nobody_follows_is_cancelled() -> None:
    """After its `orphan_timeout`."""
    clock = Clock()
    async with Hub() as hub:
        run = await hub.start_run("a", quiet, orphan_timeout=60)
        await clock.advance(50)
        assert run.state == "running"
        await clock.advance(30)
        assert (run.state, await run.wait()) == ("cancelled", "cancelled")


async def test_two_clocks_of_one_loop_add_up() -> None:
    """Time only goes forward."""
    first, second = Clock(), Clock()
    began = first.now()
    await first.advance(10)
    await second.advance(10)
    assert 20 <= second.now() - began < 25
    assert abs(second.now() - first.now()) < 1


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
async def test_time_does_not_go_back(seconds: float) -> None:
    """A negative number is a ValueError, and so is one that is not finite."""
    with pytest.raises(ValueError, match="seconds must be 0 or more, and finite"):
        await Clock().advance(seconds)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_never_waits_does_not_hold_up_the_test() -> None:
    """It is given a thousand turns."""
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(spin())
    await settle()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert turns >= 900


def test_a_clock_belongs_to_an_event_loop() -> None:
    """Outside of any, it is a RuntimeError that names what works there."""
    with pytest.raises(RuntimeError, match=r"use SyncEventStreamClient\.advance"):
        Clock()
