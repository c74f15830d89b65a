"""The runs of a process: starting, finding, cancelling and keeping them up, in this process and in another one."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from hub.backends import Elsewhere
from sse_asgi import (
    BackendError,
    Hub,
    HubClosedError,
    MemoryBackend,
    Run,
    RunConflictError,
    RunLimitError,
    ServerSentEvent,
)
from sse_asgi._hub.registry import CONTROL

pytestmark = pytest.mark.anyio

LEASE = 0.15


async def forever() -> AsyncIterator[str]:
    yield "1"
    await anyio.sleep_forever()


async def texts(run: Run | None) -> list[str]:
    assert run is not None
    with anyio.fail_after(5):
        async with run.follow() as subscription:
            return [f"{event.event or ''} {event.data}".strip() async for event in subscription]


async def until(condition: Any) -> None:
    with anyio.fail_after(5):
        while not condition():
            await anyio.sleep(0.002)


async def found(hub: Hub, key: str = "a") -> Run:
    run = await hub.get_run(key)
    assert run is not None
    return run


async def test_a_run_is_started_once() -> None:
    """By whoever comes first; the others get the run, and their sources are closed or never made."""
    made: list[int] = []
    closed: list[str] = []

    async def source(number: int) -> AsyncIterator[str]:
        try:
            made.append(number)
            yield "x"
            await anyio.sleep(0.02)
        finally:
            closed.append("closed")

    runs: list[Run] = []
    async with Hub() as hub:

        async def start(number: int) -> None:
            runs.append(await hub.start_run("a", source(number) if number % 2 else lambda: source(number)))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(start, number)
        assert [await run.wait() for run in runs] == ["finished"] * 20
    assert (sum(run.started for run in runs), len(made), len(closed)) == (1, 1, 1)


async def test_a_source_that_is_not_used_is_closed() -> None:
    closed: list[str] = []

    def source() -> Iterator[str]:
        try:
            yield "x"
            yield "y"
        finally:
            closed.append("closed")

    async with Hub() as hub:
        await hub.start_run("a", ["x"])
        begun = source()
        next(begun)
        assert not (await hub.start_run("a", begun)).started
        assert closed == ["closed"]


async def test_a_key_with_another_fingerprint_is_a_conflict() -> None:
    async with Hub() as hub:
        await hub.start_run("a", ["x"], fingerprint="one")
        assert not (await hub.start_run("a", ["x"])).started
        assert not (await hub.start_run("a", ["x"], fingerprint="one")).started
        with pytest.raises(RunConflictError, match="409"):
            await hub.start_run("a", ["x"], fingerprint="two")


async def test_a_process_has_so_many_runs() -> None:
    """A run that is there is found beyond the limit, and an ended one makes room."""
    async with Hub(max_runs=2) as hub:
        for key in "ab":
            await hub.start_run(key, forever)
        with pytest.raises(RunLimitError, match="max_runs"):
            await hub.start_run("c", forever)
        assert not (await hub.start_run("a", forever)).started
        assert hub.stats().runs == 2
        await hub.cancel_run("a")
        await until(lambda: hub.stats().runs == 1)
        assert (await hub.start_run("c", forever)).started


async def test_starts_at_once_are_counted() -> None:
    refused: list[str] = []
    async with Hub(Elsewhere(), max_runs=2) as hub:

        async def start(key: str) -> None:
            try:
                await hub.start_run(key, forever)
            except RunLimitError:
                refused.append(key)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(start, f"{number}")
        assert (len(refused), hub.stats().runs) == (8, 2)


async def test_a_source_that_cannot_be_made_fails_its_run() -> None:
    """The caller gets the error, and so does nobody else: the key has a failed run."""

    def broken() -> Any:
        raise LookupError

    async with Hub() as hub:
        with pytest.raises(LookupError):
            await hub.start_run("a", broken)
        with pytest.raises(TypeError, match="must be iterable"):
            await hub.start_run("b", lambda: None)  # type: ignore[arg-type, return-value]
        assert [(await found(hub, key)).state for key in "ab"] == ["failed"] * 2


async def test_a_run_is_cancelled_once() -> None:
    async with Hub() as hub:
        run = await hub.start_run("a", forever)
        assert [await hub.cancel_run("a"), await hub.cancel_run("a"), await hub.cancel_run("b")] == [True, False, False]
        assert (run.state, await run.wait()) == ("cancelled", "cancelled")
        assert await texts(run) == ["1", 'sse.end {"state":"cancelled"}'] or await texts(run) == [
            'sse.end {"state":"cancelled"}'
        ]


async def test_the_order_to_cancel_reaches_the_process_that_produces() -> None:
    backend = MemoryBackend()
    async with Hub(backend) as here, Hub(backend) as there:
        run = await here.start_run("a", forever)
        assert (await there.get_run("a")) is not None
        assert await there.cancel_run("a")
        await until(lambda: here.stats().runs == 0)
        assert run.state == "cancelled"


async def test_a_malformed_order_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with Hub() as hub:
        await hub.start_run("a", forever)
        for data in ("[]", "{}", "x"):
            order = ServerSentEvent(data, event="cancel")
            await hub.backend.publish((CONTROL,), order, key=None, idempotency_key=None)
        await until(lambda: caplog.text.count("malformed") == 3)
        assert (await found(hub)).state == "running"


async def test_a_run_that_nobody_follows_is_cancelled() -> None:
    """Not while somebody does."""
    async with Hub(presence_grace=0.0) as hub:
        run = await hub.start_run("a", forever, orphan_timeout=0.2)
        with anyio.move_on_after(0.5):
            async with run.follow() as subscription:
                async for _ in subscription:
                    pass
        assert (await found(hub)).state == "running"
        assert await run.wait() == "cancelled"
        assert run.reason == "orphan"


class Unknown(MemoryBackend):
    """Does not know who is present."""

    async def present(self, channel: str) -> Any:
        raise BackendError(channel)


async def test_followers_that_are_not_known_keep_a_run() -> None:
    async with Hub(Unknown()) as hub:
        run = await hub.start_run("a", forever, orphan_timeout=0.05)
        await anyio.sleep(0.2)
        assert run.state == "running"


async def test_the_runs_of_a_silent_process_are_lost(caplog: pytest.LogCaptureFixture) -> None:
    """Another process says so, and the source stops as soon as its process wakes."""
    backend = MemoryBackend()
    async with Hub(backend, presence_ttl=1000) as here, Hub(backend, presence_ttl=LEASE) as there:
        run = await here.start_run("a", forever)
        backend._runs._running["a"].until = 0.0
        other = await there.get_run("a")
        assert other is not None
        assert await other.wait() == "lost"
        await here._runs._renew()
        assert (run.state, run.reason) == ("lost", "lease")
        assert "has ended elsewhere (lost)" in caplog.text


async def test_leases_are_renewed() -> None:
    async with Hub(presence_ttl=LEASE) as hub:
        run = await hub.start_run("a", forever)
        await anyio.sleep(LEASE * 4)
        assert (run.state, (await found(hub)).state) == ("running", "running")


async def test_a_run_that_ended_elsewhere_is_noticed_with_its_lease() -> None:
    """Also if the source never yields, and no order has come; or if the log has lost the run."""
    backend = MemoryBackend()
    async with Hub(backend, presence_ttl=LEASE) as hub:
        runs = [await hub.start_run(key, forever) for key in "ab"]
        await backend.end_run("a", "cancelled")
        del backend._runs._running["b"]
        await until(lambda: hub.stats().runs == 0)
        assert [(run.state, run.reason) for run in runs] == [("cancelled", ""), ("lost", "log")]


class Slow(MemoryBackend):
    """Takes its time to say that a run has ended."""

    async def end_run(self, *args: Any, **options: Any) -> bool:
        ended = await super().end_run(*args, **options)
        await anyio.sleep(0.05)
        return ended


async def test_a_run_that_ends_by_itself_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with Hub(Slow()) as hub:
        run = await hub.start_run("a", ["x"])
        await anyio.sleep(0.01)
        await hub._runs._renew()
        assert await run.wait() == "finished"
        assert not caplog.text


class Failing(MemoryBackend):
    """Fails to renew leases."""

    error: Exception | None = None

    async def renew_runs(self, owners: Any, *, lease: float) -> Any:
        if self.error is not None:
            raise self.error
        return await super().renew_runs(owners, lease=lease)


@pytest.mark.parametrize("error", [BackendError("away"), ValueError("bug")])
async def test_a_failure_to_renew_is_logged_once_until_it_works(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    backend = Failing()
    backend.error = error
    async with Hub(backend, presence_ttl=LEASE) as hub:
        await hub.start_run("a", forever)
        await anyio.sleep(LEASE * 2)
        assert caplog.text.count("renewing the leases of runs failed") == 1
        assert ("Traceback" in caplog.text) == isinstance(error, ValueError)
        backend.error = None
        await anyio.sleep(LEASE)
        backend.error = error
        await until(lambda: caplog.text.count("renewing the leases of runs failed") == 2)


async def test_a_hub_that_closes_loses_its_runs(caplog: pytest.LogCaptureFixture) -> None:
    """It says so to every reader, and waits for the sources."""
    backend, closed = MemoryBackend(), []

    async def source() -> AsyncIterator[str]:
        try:
            yield "1"
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.02)
            closed.append("closed")

    async with Hub(backend) as there:
        async with Hub(backend) as here:
            await here.start_run("a", source)
            await anyio.sleep(0.01)
        assert closed == ["closed"]
        run = await found(there)
        assert (run.state, run.reason) == ("lost", "shutdown")
        assert "the run a is lost: its hub was closed" in caplog.text
        with pytest.raises(HubClosedError):
            await here._runs.get("a")


class Gone(MemoryBackend):
    """Ends no run."""

    async def end_run(self, *args: Any, **options: Any) -> bool:
        raise BackendError(str(args))


async def test_a_run_whose_end_cannot_be_stored_ends_with_its_lease(caplog: pytest.LogCaptureFixture) -> None:
    async with Hub(Gone()) as hub:
        run = await hub.start_run("a", forever)
    assert "the run a ends with its lease" in caplog.text
    assert run.state == "lost"


async def test_the_end_of_all_runs_is_awaited() -> None:
    """For so many seconds; other runs may be started meanwhile."""
    go_on = anyio.Event()

    async def source() -> AsyncIterator[str]:
        yield "1"
        await go_on.wait()

    async with Hub() as hub:
        await hub.wait_for_runs(5)
        await hub.start_run("a", source)
        await hub.wait_for_runs(0.01)
        assert hub.stats().runs == 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hub.wait_for_runs, 5)
            tasks.start_soon(hub.wait_for_runs, 5)
            await anyio.sleep(0.01)
            go_on.set()
        assert hub.stats().runs == 0


async def test_closing_twice_changes_nothing() -> None:
    """Nor closing a hub whose runs have ended, and whose sources are still there."""
    async with Hub(Slow()) as hub:
        run = await hub.start_run("a", ["x"])
        await anyio.sleep(0.01)
        await hub.backend.end_run("a", "cancelled")
        await hub._runs.close()
        await hub._runs.close()
        assert run.state in ("finished", "lost")


async def test_an_ended_run_is_given_back(caplog: pytest.LogCaptureFixture) -> None:
    """Its memory, `ttl` after its end."""
    caplog.set_level(logging.INFO)
    async with Hub(presence_ttl=LEASE) as hub:
        await (await hub.start_run("a", ["x" * 1000], ttl=0.1)).wait()
        backend: Any = hub.backend
        assert backend._runs.shelf.total > 1000
        await until(lambda: not backend._runs.shelf.total)
        assert await hub.get_run("a") is None
        assert (await hub.start_run("a", ["y"])).started
