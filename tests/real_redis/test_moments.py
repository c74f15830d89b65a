"""Faults in one certain moment, and many channels."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from real_redis.crowd import until
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub
from sse_asgi.backends.redis._link import Link

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


# A flush while history is read


@pytest.mark.parametrize("missed", [0, 1])
async def test_a_flush_while_a_reader_resumes(
    server: RedisServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, missed: int
) -> None:
    """A page is read in one call; the reader of a page that is read after the flush gets one gap."""
    call, times = Link.call, iter([None])

    def flush_first(self: Link, *arguments: Any) -> "asyncio.Future[Any]":
        if arguments[0] == "EVALSHA":
            for _ in times:
                call(self, "FLUSHALL")
        return call(self, *arguments)

    async with new_hub(server) as hub, reading(hub, "a") as live:
        first = await hub.publish("a", "1")
        for number in range(missed):
            await hub.publish("a", f"missed {number}")
        await live.until(lambda one: len(one.texts) == 1 + missed)
        monkeypatch.setattr(Link, "call", flush_first)
        async with reading(hub, "a", last_event_id=first) as reader:
            await live.until(lambda one: one.gaps)
            await until(lambda: hub.state == "up")
            await hub.publish("a", "2")
            await reader.until(lambda one: "2" in one.texts)
            assert reader.gaps == ["epoch"]
            assert live.gaps == ["epoch"]


# Eviction while a process is cut off


async def test_an_index_that_was_evicted_meanwhile(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A process that was cut off loses no event, although the index is gone."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as one, reading(far, "b") as two:
            await hub.publish(["a", "b"], "1")
            await one.has("1")
            proxy.cut()
            await until(lambda: far.state == "down")
            await hub.publish("a", "2")
            await hub.publish("b", "2")
            shared_redis.cli("DEL", f"sse:{{{name}}}:i")
            await hub.publish("b", "3")
            proxy.open = True
            await one.has("1", "2")
            await two.has("1", "2", "3")
            assert one.gaps == two.gaps == []


async def test_an_index_that_is_gone(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """The same if nothing is published since."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as one:
            await hub.publish("a", "1")
            await one.has("1")
            proxy.cut()
            await until(lambda: far.state == "down")
            await hub.publish("a", "2")
            shared_redis.cli("DEL", f"sse:{{{name}}}:i")
            proxy.open = True
            await one.has("1", "2")
            assert one.gaps == []


async def test_index_and_stream_are_gone(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A reader gets a gap if no channel has the missed event any more."""
    async with new_hub() as hub:
        first = await hub.publish(["a", "b"], "1")
        await hub.publish("a", "2")
        shared_redis.cli("DEL", f"sse:{{{name}}}:i", f"sse:{{{name}}}:s:a")
        await hub.publish("b", "3")
        async with reading(hub, "a", last_event_id=first) as reader:
            await hub.publish("a", "4")
            await reader.has("4")
            assert reader.gaps == ["evicted"]


# The clock


async def test_a_clock_that_was_set_back(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """Sequences go on where the server's clock is far behind the last of them, and readers resume by them."""
    meta = f"sse:{{{name}}}:m"
    ahead = (int(time.time()) + 3600) * 1_000_000
    async with new_hub() as hub:
        await hub.publish("a", "0")
        shared_redis.cli("HSET", meta, "s", str(ahead))
        async with reading(hub, "a") as reader:
            ids = [await hub.publish("a", text) or "" for text in "123"]
            await reader.has("1", "2", "3")
        assert [int(one.partition("-")[2]) for one in ids] == [ahead + 1, ahead + 2, ahead + 3]
        async with reading(hub, "a", last_event_id=ids[0]) as resumed:
            await resumed.has("2", "3")
        assert reader.gaps == resumed.gaps == []


async def test_a_clock_that_was_set_forward(new_hub: NewHub) -> None:
    """Events that seem to be from the far future are there once the clock is looked at again."""
    month = 30 * 86_400
    async with new_hub() as hub, reading(hub, "a") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        inbox, position = keeper.inbox, keeper.inbox.position
        inbox.clock -= month  # as if the server's had been a month behind
        inbox.position = position._replace(sequence=position.sequence - month * 1_000_000)
        inbox._sequence, inbox._bound = inbox.position.sequence, 0
        await hub.publish("a", "1")
        await reader.until(lambda _: inbox.ignored)
        assert reader.texts == []
        keeper.session.probe()
        await reader.has("1")
        assert reader.gaps == []


# Cancelling


class Cut(Coroutine[Any, Any, Any]):
    """Runs a coroutine, and cancels its task at one of its awaits.

    Attributes:
        waits: How many awaits it came to.
    """

    def __init__(self, inner: Coroutine[Any, Any, Any], at: int) -> None:
        self.waits = 0
        self._inner = inner
        self._at = at

    def send(self, value: Any) -> Any:
        return self._step(self._inner.send, value)

    def throw(self, *exception: Any) -> Any:
        return self._step(self._inner.throw, *exception)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError

    def _step(self, go: Callable[..., Any], *arguments: Any) -> Any:
        waits_for = go(*arguments)
        self.waits += 1
        if self.waits == self._at:
            task = asyncio.current_task()
            assert task is not None
            asyncio.get_running_loop().call_soon(task.cancel)
        return waits_for


async def cancelled_everywhere(act: Callable[[], Coroutine[Any, Any, Any]], check: Callable[[], Any]) -> int:
    """Cancel an action at its first await, at its second, and so on until it ends before that."""
    for at in range(1, 100):
        cut = Cut(act(), at)
        task = asyncio.create_task(cut)
        await asyncio.wait([task])
        await check()
        if not task.cancelled():
            task.result()
            return at
    raise AssertionError


async def test_a_publisher_that_is_cancelled_at_every_await(server: RedisServer, new_hub: NewHub) -> None:
    """The replies of others stay theirs, and the event is there once or not at all."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        count = 0

        async def check() -> None:
            nonlocal count
            count += 1
            last = await hub.publish("a", f"check {count}", idempotency_key=f"{count}")
            assert (await hub.history("a"))[-1].id == last

        async def publish() -> None:
            server.cli("SCRIPT", "FLUSH")
            await hub.publish("a", f"cut {count}")

        waits = await cancelled_everywhere(publish, check)
        assert waits > 2
        await reader.until(lambda one: one.texts[-1:] == [f"check {count}"])
        checks = [text for text in reader.texts if text and text.startswith("check")]
        assert checks == [f"check {number + 1}" for number in range(count)]
        assert len(set(reader.texts)) == len(reader.texts)
        assert reader.gaps == []


@pytest.mark.parametrize("resumes", [False, True])
async def test_a_reader_that_is_cancelled_at_every_await(
    server: RedisServer,
    new_hub: NewHub,
    name: str,
    resumes: bool,  # noqa: FBT001
) -> None:
    """No channel stays subscribed, and the next reader gets everything."""
    async with new_hub(server) as hub:
        first = await hub.publish(["a", "b"], "0")
        await hub.publish("a", "1")

        async def visit() -> None:
            async with hub.subscribe("a", "b", last_event_id=first if resumes else None) as subscription:
                if resumes:
                    await anext(subscription)

        async def check() -> None:
            async with reading(hub, "a", last_event_id=first) as reader:
                await reader.until(lambda one: one.texts[-1:] == ["1"])
                assert reader.gaps == []
            await until(lambda: server.cli("PUBSUB", "CHANNELS", f"sse:{{{name}}}:*") == "")
            assert hub.backend._keeper.inbox.channels == {}  # type: ignore[attr-defined]
            assert hub._registry is not None
            assert hub._registry._channels == {}

        assert await cancelled_everywhere(visit, check) > 1


# Many readers


async def test_a_crowd_that_reads_history_at_once(
    server: RedisServer, new_hub: NewHub, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """When the log begins another life all readers read again, and neither Redis nor publishing is taken for dead."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(new_hub(server, timeout=0.5))
        other = await stack.enter_async_context(new_hub(server))
        readers = [await stack.enter_async_context(reading(hub, "a")) for _ in range(300)]
        for number in range(200):
            await other.publish("a", str(number))
        await asyncio.gather(*(reader.until(lambda one: len(one.texts) == 200) for reader in readers))
        server.cli("HSET", f"sse:{{{name}}}:m", "e", "0badc0de")
        await readers[0].until(lambda one: one.gaps)
        await hub.publish("a", "new")
        await asyncio.gather(*(reader.until(lambda one: one.texts[-1:] == ["new"]) for reader in readers))
    assert {tuple(reader.gaps) for reader in readers} == {("epoch",)}
    assert "no answer" not in caplog.text


# Many channels


async def test_ten_thousand_channels(server: RedisServer, new_hub: NewHub) -> None:
    """A process that reads 10,000 channels is live again within a second, while others come and go."""
    names = [f"channel {number}" for number in range(10_000)]
    async with new_hub(server) as hub, new_hub(server) as other:
        subscriptions = [hub.subscribe(name) for name in names]
        await asyncio.gather(*(one.__aenter__() for one in subscriptions))
        churn = asyncio.create_task(come_and_go(hub))
        async with reading(hub, *names[:3]) as reader:
            await other.publish(names[:3], "0")
            await reader.has("0")
            server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            began = time.monotonic()
            await other.publish(names[1], "1")
            await other.publish(names[9999], "2")
            for subscription in (subscriptions[1], subscriptions[9999]):
                assert (await anext(subscription)).data is not None
            await reader.has("0", "1")
            await until(lambda: hub.state == "up")
            seconds = time.monotonic() - began
            await anyio.sleep(0.5)
            churn.cancel()
            await asyncio.wait([churn])
            assert churn.cancelled()
            assert reader.gaps == []
        await asyncio.gather(*(one.__aexit__() for one in subscriptions))
        await until(lambda: hub.backend._keeper.inbox.channels == {})  # type: ignore[attr-defined]
    assert seconds < 1


async def come_and_go(hub: Hub) -> None:
    """Join and leave a thousand channels a second, and one of them all the time."""
    number = 0
    while True:
        for _ in range(20):
            number += 1
            async with hub.subscribe(f"passing {number}"), hub.subscribe("passing"):
                pass
        await asyncio.sleep(0.01)


# Slow readers


async def test_a_slow_reader_makes_nothing_grow(server: RedisServer, new_hub: NewHub) -> None:
    """A reader that does not read keeps its own few events waiting and nothing else, and has all of them later."""
    async with new_hub(server) as hub, new_hub(server, history_size=5000) as other:
        async with hub.subscribe("a") as slow, reading(hub, "a") as quick:
            for start in range(0, 3000, 50):
                await asyncio.gather(*(other.publish("a", str(start + number)) for number in range(50)))
            await quick.until(lambda one: len(one.texts) == 3000)
            assert len(slow.gate.buffer.entries) <= 256
            assert hub.backend._keeper.inbox._held is None  # type: ignore[attr-defined]
            assert [(await anext(slow)).data for _ in range(3000)] == quick.texts
            assert quick.gaps == []
