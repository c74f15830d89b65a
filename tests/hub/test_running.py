"""The runs of a hub: starting, finding and cancelling them, and what a hub refuses."""

import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sse_asgi import Backend, BackendError, Hub, HubClosedError, MemoryBackend

pytestmark = pytest.mark.anyio


async def forever() -> AsyncIterator[str]:
    yield "1"
    await anyio.sleep_forever()


async def test_a_run_is_started_found_and_cancelled() -> None:
    async with Hub() as hub:
        assert await hub.get_run("a") is None
        run = await hub.start_run("a", forever, ttl=60, max_events=3, max_bytes=1000, fingerprint="print")
        found = await hub.get_run("a")
        assert found is not None
        assert (run.started, found.started, found.key, found.state) == (True, False, "a", "running")
        assert await hub.cancel_run("a")
        await hub.wait_for_runs(5)
        assert (run.state, found.state, await found.wait()) == ("cancelled", "cancelled", "cancelled")


class Plain(MemoryBackend):
    """Supports no presence."""

    attend = Backend.attend


async def test_a_run_that_nobody_follows_needs_presence() -> None:
    async with Hub(Plain()) as hub:
        with pytest.raises(NotImplementedError, match="presence"):
            await hub.start_run("a", ["1"], orphan_timeout=1)
        run = await hub.start_run("a", ["1"])
        assert await run.wait() == "finished"


class Away(MemoryBackend):
    """Does not answer."""

    async def get_run(self, key: str) -> Any:
        await anyio.sleep_forever()


async def test_a_backend_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sse_asgi._hub.opening.READ_SECONDS", 0.02)
    async with Hub(Away()) as hub:
        with pytest.raises(BackendError, match="the run cannot be read"):
            await hub.get_run("a")


class Without(MemoryBackend):
    """Supports no runs."""

    start_run = Backend.start_run
    append_run = Backend.append_run
    end_run = Backend.end_run
    get_run = Backend.get_run
    renew_runs = Backend.renew_runs


async def test_a_backend_without_runs_says_so() -> None:
    backend = Without()
    async with Hub(backend) as hub:
        for call in (lambda: hub.start_run("a", ["1"]), lambda: hub.get_run("a"), lambda: hub.cancel_run("a")):
            with pytest.raises(NotImplementedError, match="start_run"):
                await call()
    unsupported: list[Any] = [
        backend.start_run("a", "me", lease=1, ttl=1),
        backend.append_run("a", "me", 0, []),
        backend.end_run("a", "lost"),
        backend.get_run("a"),
        backend.renew_runs([], lease=1),
    ]
    for awaitable in unsupported:
        with pytest.raises(NotImplementedError, match="does not support runs"):
            await awaitable


async def test_a_backend_without_history_keeps_no_run() -> None:
    async with Hub(MemoryBackend(history_size=0)) as hub:
        with pytest.raises(ValueError, match="history_size"):
            await hub.start_run("a", ["1"])


async def test_a_closed_hub_has_no_runs() -> None:
    hub = Hub()
    for call in (hub.start_run("a", ["1"]), hub.get_run("a"), hub.cancel_run("a"), hub.wait_for_runs(1)):
        with pytest.raises(HubClosedError):
            await call


async def test_runs_are_used_from_another_event_loop() -> None:
    async with Hub() as hub:
        seen: list[Any] = []

        async def elsewhere() -> None:
            run = await hub.start_run("a", ["1"])
            seen.extend((run.started, await hub.cancel_run("b"), await hub.get_run("b")))
            await hub.wait_for_runs(5)

        thread = threading.Thread(target=lambda: anyio.run(elsewhere))
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
        assert seen == [True, False, None]
        run = await hub.get_run("a")
        assert run is not None
        assert run.state == "finished"
