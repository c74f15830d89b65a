"""FaultyBackend: a hub whose backend breaks, and that loses nothing silently."""

from collections.abc import AsyncIterator
from typing import Any, Unpack

import anyio
import pytest

from sse_asgi import Backend, BackendError, EventSourceApp, Hub, MemoryBackend, PublishUnknownError
from sse_asgi.testing import Clock, EventStreamClient, FaultyBackend
from sse_asgi.testing._clock import settle
from sse_asgi.testing.contract import BackendContract
from sse_asgi.testing.contract._base import BackendOptions

pytestmark = pytest.mark.anyio


class TestContract(BackendContract):
    """Without a fault it is a backend like any other."""

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return FaultyBackend(MemoryBackend(**options))


@pytest.fixture
def backend() -> FaultyBackend:
    return FaultyBackend(MemoryBackend())


async def take(subscription: Any, count: int) -> list[str | None]:
    with anyio.fail_after(5):
        return [(await anext(subscription)).data for _ in range(count)]


async def test_what_is_dropped_is_read_from_the_history(backend: FaultyBackend) -> None:
    """When the next event shows the hole; each reader has each event once, in order."""
    async with Hub(backend) as hub, hub.subscribe("a") as one, hub.subscribe("a", "b") as two:
        backend.drop(2)
        for number in range(3):
            await hub.publish("a", str(number))
        assert await take(one, 3) == await take(two, 3) == ["0", "1", "2"]


async def test_a_poll_finds_what_was_dropped(backend: FaultyBackend) -> None:
    """It asks the backend for everything so far, without a next event."""
    async with Hub(backend) as hub, hub.subscribe("default") as subscription:
        backend.drop()
        await hub.publish("default", "hello")
        answer = await EventStreamClient(EventSourceApp(hub, rewind=1, max_rewind=1)).request(
            "GET", "/?poll=1&rewind=1"
        )
        assert answer.status_code == 200
        assert await take(subscription, 1) == ["hello"]


async def test_each_hub_loses_its_own(backend: FaultyBackend) -> None:
    """A drop concerns every hub of the backend."""
    async with Hub(backend) as one, Hub(backend) as two, two.subscribe("a") as subscription:
        backend.drop()
        await one.publish("a", "0")
        await one.publish("a", "1")
        assert await take(subscription, 2) == ["0", "1"]


def test_a_drop_needs_a_hub(backend: FaultyBackend) -> None:
    """There is no way on which an event could be lost."""
    with pytest.raises(RuntimeError, match="open the hub first"):
        backend.drop()


async def test_without_history_a_drop_is_a_gap() -> None:
    """The reader is told that something is missing."""
    backend = FaultyBackend(MemoryBackend(history_size=0))
    async with Hub(backend) as hub, hub.subscribe("a") as subscription:
        backend.drop()
        await hub.publish("a", "0")
        await hub.publish("a", "1")
        assert await take(subscription, 2) == ['{"reason":"lost"}', "1"]


async def test_a_duplicate_is_stored_twice_unless_it_has_a_key(backend: FaultyBackend) -> None:
    """As when a publisher tries again."""
    async with Hub(backend) as hub, hub.subscribe("a") as subscription:
        backend.duplicate(2)
        await hub.publish("a", "twice")
        await hub.publish("a", "once", idempotency_key="key")
        await hub.publish("a", "last")
        assert await take(subscription, 4) == ["twice", "twice", "once", "last"]


async def test_a_publish_fails(backend: FaultyBackend) -> None:
    """With the event stored, or not."""
    async with Hub(backend) as hub, hub.subscribe("a") as subscription:
        backend.fail()
        backend.fail(stored=True)
        with pytest.raises(BackendError, match="was not stored"):
            await hub.publish("a", "lost")
        with pytest.raises(PublishUnknownError, match="may have been stored"):
            await hub.publish("a", "stored")
        await hub.publish("a", "last")
        assert await take(subscription, 2) == ["stored", "last"]


async def test_a_disconnected_hub_catches_up() -> None:
    """Readers keep their streams, new ones wait, and when the backend is back all have what others published."""
    log = MemoryBackend()
    backend = FaultyBackend(log)
    async with Hub(log) as elsewhere, Hub(backend) as hub, hub.subscribe("a") as subscription:
        backend.disconnect()
        assert (hub.state, backend.trouble) == ("down", "the FaultyBackend is disconnected")
        with pytest.raises(BackendError, match="is disconnected"):
            await hub.publish("a", "refused")
        await elsewhere.publish("a", "missed")
        late: list[str | None] = []

        async def read_late() -> None:
            async with hub.subscribe("b", rewind=1) as other:
                late.extend(await take(other, 1))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_late)
            await settle()
            await elsewhere.publish("b", "late")
            assert late == []
            backend.reconnect()
        assert (hub.state, backend.trouble, hub.stats().reconnects) == ("up", "", 1)
        assert (await take(subscription, 1), late) == (["missed"], ["late"])


async def test_a_reconnect_without_a_loss_is_not_noticed(backend: FaultyBackend) -> None:
    """Readers get no gap."""
    async with Hub(backend) as hub, hub.subscribe("a") as subscription:
        backend.disconnect()
        backend.reconnect()
        await hub.publish("a", "hello")
        assert await take(subscription, 1) == ["hello"]


async def test_a_hub_opens_while_the_backend_is_away(backend: FaultyBackend) -> None:
    """As every backend allows."""
    backend.disconnect()
    async with Hub(backend) as hub:
        assert hub.state == "down"
        backend.reconnect()
        assert hub.state == "up"


async def test_a_run_waits_while_the_backend_is_away(backend: FaultyBackend) -> None:
    """And loses nothing."""

    async def source() -> AsyncIterator[str]:
        yield "0"
        backend.disconnect()
        yield "1"

    async with Hub(backend) as hub:
        run = await hub.start_run("a", source)
        await settle()
        assert run.state == "running"
        backend.reconnect()
        with anyio.fail_after(5):
            assert await run.wait() == "finished"
        async with run.follow() as subscription:
            assert await take(subscription, 2) == ["0", "1"]


async def test_a_slow_backend_takes_its_time() -> None:
    """The delay passes by the clock that a test moves."""
    clock = Clock()
    backend = FaultyBackend(MemoryBackend(), delay=0)
    async with Hub(backend) as hub, hub.subscribe("a") as subscription, anyio.create_task_group() as tasks:
        backend.delay = 60
        tasks.start_soon(hub.publish, "a", "hello")
        await clock.advance(59)
        assert hub.stats().published == 0
        await clock.advance(2)
        assert hub.stats().published == 1
        backend.delay = 0
        assert await take(subscription, 1) == ["hello"]


def test_only_a_backend_can_be_wrapped() -> None:
    """Anything else is a TypeError."""
    with pytest.raises(TypeError, match=r"^inner must be a Backend \(got Hub\)"):
        FaultyBackend(Hub())  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
@pytest.mark.parametrize("fault", ["drop", "duplicate", "fail"])
def test_a_count_is_a_number_of_events(backend: FaultyBackend, fault: str, count: Any) -> None:
    """At least one."""
    with pytest.raises(ValueError, match="count must be a whole number, at least 1"):
        getattr(backend, fault)(count)


class Telling(MemoryBackend):
    """A backend that tells its hubs more than MemoryBackend ever does."""

    sink: Any

    def connect(self, sink: Any) -> Any:
        self.sink = sink
        return super().connect(sink)

    def age(self, position: object) -> float:
        return 7.0


async def test_what_the_wrapped_backend_tells_is_passed_on() -> None:
    """A gap and a position, unless the position is behind something that was dropped."""
    inner = Telling()
    backend = FaultyBackend(inner)
    async with Hub(backend) as hub, hub.subscribe("a") as subscription:
        inner.sink.gap("trimmed", ("a",))
        assert await take(subscription, 1) == ['{"reason":"trimmed"}']
        backend.drop()
        await hub.publish("a", "0")
        before = subscription.source.position()
        inner.sink.advance(await inner.subscribe(()))
        assert subscription.source.position() == before
        assert backend.age(inner._position) == 7.0
        await backend.reach()
        assert await take(subscription, 1) == ["0"]
