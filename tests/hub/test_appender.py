"""Appending the events of a run: at once in memory, by a task elsewhere; and the end of the ownership."""

from typing import Any

import anyio
import pytest

from hub.backends import Elsewhere
from sse_asgi import BackendError, MemoryBackend, ServerSentEvent
from sse_asgi._hub.appender import WAITING, Appender, OwnershipLostError
from sse_asgi.backends.base import Backend

pytestmark = pytest.mark.anyio


class Slow(Elsewhere):
    """Keeps the events of an append that was allowed, and counts the events of each append."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = anyio.Event()
        self.sizes: list[int] = []
        self.error: Exception | None = None

    async def append_run(self, key: str, owner: str, after: int, events: Any) -> Any:
        await self.allowed.wait()
        self.sizes.append(len(events))
        if self.error is not None:
            raise self.error
        return await super().append_run(key, owner, after, events)


async def begun(backend: Backend) -> Appender:
    return Appender(backend, await backend.start_run("a", "me", lease=9, ttl=9))


async def appended(backend: Backend) -> int:
    record = await backend.get_run("a")
    assert record is not None
    return record.appended


async def test_an_event_is_in_memory_at_once() -> None:
    backend = MemoryBackend()
    appender = await begun(backend)
    for number in range(3):
        await appender.put(ServerSentEvent(number))
        assert await appended(backend) == appender.appended == number + 1
    await appender.flush()
    appender.stop()


async def test_events_are_joined_while_an_append_is_under_way() -> None:
    backend = Slow()
    appender = await begun(backend)
    await appender.put(ServerSentEvent("1"))
    await anyio.wait_all_tasks_blocked()
    for number in range(10):
        await appender.put(ServerSentEvent(number))
    assert (await appended(backend), appender.appended) == (0, 11)
    backend.allowed.set()
    await appender.flush()
    assert backend.sizes == [1, 10]
    assert await appended(backend) == 11


@pytest.mark.parametrize(("size", "fits"), [(1, WAITING - 1), (100_000, 2)])
async def test_the_source_waits_when_too_much_waits(size: int, fits: int) -> None:
    """In events or in bytes; the append that is under way counts."""
    backend = Slow()
    appender = await begun(backend)
    for _ in range(fits):
        await appender.put(ServerSentEvent("x" * size))
    with anyio.move_on_after(0.02) as limit:
        await appender.put(ServerSentEvent("x" * size))
    assert limit.cancelled_caught
    backend.allowed.set()
    with anyio.fail_after(5):
        await appender.flush()
    assert await appended(backend) == fits + 1


@pytest.mark.parametrize("make", [MemoryBackend, Elsewhere])
async def test_nothing_is_appended_after_the_end(make: Any) -> None:
    backend = make()
    appender = await begun(backend)
    await appender.put(ServerSentEvent("1"))
    await appender.flush()
    await backend.end_run("a", "cancelled")
    with pytest.raises(OwnershipLostError):
        await appender.put(ServerSentEvent("2"))
        await appender.flush()
    assert await appended(backend) == 1


async def test_a_log_without_the_run_ends_the_ownership() -> None:
    appender = await begun(MemoryBackend())
    lost = Appender(MemoryBackend(), appender._owned)
    with pytest.raises(OwnershipLostError):
        await lost.put(ServerSentEvent("1"))


async def test_an_error_reaches_the_source() -> None:
    """With the next event, or at the end."""
    backend = Slow()
    backend.error = BackendError("no room")
    backend.allowed.set()
    appender = await begun(backend)
    await appender.put(ServerSentEvent("1"))
    await anyio.wait_all_tasks_blocked()
    for _ in range(2):
        with pytest.raises(BackendError, match="no room"):
            await appender.put(ServerSentEvent("2"))
    with pytest.raises(BackendError, match="no room"):
        await appender.flush()
    assert backend.sizes == [1]


async def test_a_stopped_appender_does_not_wait_for_its_backend() -> None:
    backend = Slow()
    appender = await begun(backend)
    await appender.put(ServerSentEvent("1"))
    await anyio.wait_all_tasks_blocked()
    appender.stop()
    backend.allowed.set()
    await anyio.wait_all_tasks_blocked()
    assert backend.sizes == []
