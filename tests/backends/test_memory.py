"""What is MemoryBackend's own: its clock, its bounds, and its warning."""

import logging
import sys
from typing import Any

import pytest

from sse_asgi import Hub, MemoryBackend, ServerSentEvent
from sse_asgi.backends import _shelf, memory

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put the backend's time in the test's hands."""
    clock = Clock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


async def put(backend: MemoryBackend, channel: str, once: str | None = None) -> Any:
    return await backend.publish((channel,), ServerSentEvent("x"), key=None, idempotency_key=once)


async def test_old_events_expire(clock: Clock) -> None:
    """Events older than history_ttl are gone, and whoever missed one is told `expired`."""
    backend = MemoryBackend(history_ttl=60)
    first = await put(backend, "a")
    second = await put(backend, "a")
    clock.now += 50
    third = await put(backend, "a")
    clock.now += 20
    late = await backend.history(("a",), first, third, 10)
    assert ([entry.position for entry in late.entries], late.reason) == ([third], "expired")
    assert (await backend.history(("a",), second, third, 10)).reason is None


async def test_whoever_has_everything_is_complete_at_any_age(clock: Clock) -> None:
    """A reader whose id is the log's last sequence misses nothing, however long ago that was."""
    backend = MemoryBackend(history_ttl=60)
    first = await put(backend, "a")
    last = await put(backend, "a")
    clock.now += 10_000
    assert (await backend.history(("a",), last, last, 10)).reason is None
    assert (await backend.history(("a",), first, last, 10)).reason == "expired"
    await put(backend, "b")
    assert backend._events.logs.keys() == {"b"}


async def test_history_ttl_none_keeps_for_ever(clock: Clock) -> None:
    """Without a ttl only the size bounds a channel."""
    backend = MemoryBackend(history_ttl=None)
    first = await put(backend, "a")
    last = await put(backend, "a")
    clock.now += 1e9
    assert len((await backend.history(("a",), first, last, 10)).entries) == 1


async def test_idle_channels_are_bounded() -> None:
    """The channels that were published to least recently are emptied, and their readers are told `evicted`."""
    backend = MemoryBackend(max_channels=3)
    start = await put(backend, "0")
    for number in range(1, 6):
        last = await put(backend, str(number))
    assert backend._events.logs.keys() == {"3", "4", "5"}
    assert (await backend.history(("1",), start, last, 10)).reason == "evicted"
    assert (await backend.history(("5",), start, last, 10)).reason is None
    assert (await backend.history(("never used",), start, last, 10)).reason is None


async def test_an_emptied_channel_remembers_when_it_is_used_again() -> None:
    """A channel that comes back still knows what it had to let go."""
    backend = MemoryBackend(max_channels=1)
    start = await put(backend, "other")
    missed = await put(backend, "a")
    await put(backend, "other")
    last = await put(backend, "a")
    assert (await backend.history(("a",), start, last, 10)).reason == "evicted"
    assert (await backend.history(("a",), missed, last, 10)).reason is None


async def test_memory_of_emptied_channels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When even their names are too many, every reader that old is told, rather than none."""
    monkeypatch.setattr(_shelf, "MAX_EMPTIED", 2)
    backend = MemoryBackend(max_channels=1)
    start = await put(backend, "0")
    for number in range(1, 6):
        last = await put(backend, str(number))
    assert len(backend._events._emptied) == 2
    assert (await backend.history(("1",), start, last, 10)).reason == "evicted"


async def test_idempotency_keys_are_forgotten_after_two_minutes(clock: Clock) -> None:
    """A key that is used again later publishes again."""
    backend = MemoryBackend()
    first = await put(backend, "a", once="key")
    clock.now += 119
    assert await put(backend, "a", once="key") == first
    clock.now += 2
    assert await put(backend, "a", once="key") != first
    assert len(backend._published) == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_workers_are_warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A hub in the memory of one of several workers says so when it opens, and names the fix."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with caplog.at_level(logging.WARNING, "sse_asgi"):
        async with Hub():
            pass
    assert "4 workers" in caplog.text
    assert "SSE_BACKEND_URL=redis://" in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        "/bin/gunicorn -k asgi -w 4 app:app",
        "/bin/gunicorn -w4 app:app",
        "/lib/hypercorn/__main__.py app:app --workers=4",
        "/bin/granian --interface asgi --workers 4 app:app",
    ],
)
async def test_a_server_that_was_asked_for_several_is_warned(
    command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers tell an application nothing of its siblings, but their command line does."""
    monkeypatch.setattr(sys, "argv", command.split())
    async with Hub():
        pass
    assert "4 workers" in caplog.text


@pytest.mark.parametrize(
    "command",
    [
        "/bin/gunicorn -w 1 app:app",
        "/bin/granian app:app",
        "/bin/gunicorn app:app -w",
        "/bin/hypercorn --workers many app:app",
        "/bin/make -w 4",
    ],
)
async def test_one_worker_is_not_warned(
    command: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One process is what this backend is for."""
    monkeypatch.setattr(sys, "argv", command.split())
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    async with Hub():
        pass
    assert not caplog.records
