"""What every backend with runs does."""

import math
from collections.abc import AsyncIterator
from typing import Any

import anyio

from ..._hub.hub import Hub
from ..._log.event import ServerSentEvent
from ..._log.run import RunRecord, run_channel
from ...backends.base import Backend
from ._base import Contract
from ._recorder import connected, put, settled, texts

LEASE = 0.3


async def start(backend: Backend, key: str = "a", owner: str = "me", *, ttl: float = 60) -> RunRecord:
    return await backend.start_run(key, owner, lease=LEASE, ttl=ttl, fingerprint="print")


async def append(backend: Backend, after: int, *texts: str, owner: str = "me") -> RunRecord:
    record = await backend.append_run("a", owner, after, [ServerSentEvent(text) for text in texts])
    assert record is not None
    return record


async def events(backend: Backend, record: RunRecord) -> list[str]:
    await backend.subscribe((run_channel(record.key),))
    await backend.reach()
    upto = await backend.subscribe(())
    assert upto is not None
    page = await backend.history((run_channel(record.key),), record.begin, upto, 100)
    assert page.reason is None
    return texts(page.entries)


async def hundred() -> AsyncIterator[str]:
    for number in range(100):
        yield str(number)
        if number % 7 == 0:
            await anyio.sleep(0.002)


async def follow(hub: Hub, delay: float, seen: list[Any]) -> None:
    """Read a run to its end, and leave it once in the middle."""
    await anyio.sleep(delay)
    run = await hub.get_run("a")
    assert run is not None
    last_event_id = None
    while not seen or seen[-1] != '{"state":"finished"}':
        async with run.follow(last_event_id) as subscription:
            async for event in subscription:
                seen.append(event.data)
                last_event_id = event.id
                if len(seen) == 30:
                    break


class RunContract(Contract):
    """The facts of runs."""

    async def test_a_run_from_its_beginning_to_its_end(self) -> None:
        """Its events are delivered and kept, each with a position, and the record says where the last one is."""
        backend = self.with_runs()
        async with connected(backend, run_channel("a")) as tape:
            await put(backend, "other")
            begun = await start(backend)
            assert begun == RunRecord("a", "me", "running", begun.begin, begun.last, 0, "print")
            one = await append(backend, 0, "1", "\u00e4\n2")
            two = await append(backend, 2, "3")
            assert await backend.end_run("a", "finished", owner="me")
            ended = await backend.get_run("a")
            await settled(tape, 4)
        assert ended is not None
        assert [record.appended for record in (one, two, ended)] == [2, 3, 3]
        assert begun.begin < one.last < two.last < ended.last
        assert [entry.position for entry in tape.entries if entry.channels != ("other",)][-1] == ended.last
        assert texts(tape.entries)[-4:] == ["1", "\u00e4\n2", "3", '{"state":"finished"}']
        assert ended == begun._replace(state="finished", appended=3, last=ended.last)

    async def test_the_events_are_history_after_the_beginning(self) -> None:
        """Without a gap, also when nothing was appended, and beyond the size of a channel's history."""
        backend = self.with_runs(history_size=2)
        async with connected(backend):
            begun = await start(backend)
            assert await events(backend, begun) == []
            await append(backend, 0, *map(str, range(10)))
            assert await events(backend, begun) == [*map(str, range(10))]

    async def test_a_key_has_one_run(self) -> None:
        """Whoever comes second gets the record of the first."""
        backend = self.with_runs()
        async with connected(backend):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(start, backend, "a", f"{number}")
            record = await start(backend, owner="late")
            for number in range(20):
                await append(backend, 0, "x", owner=f"{number}")
            assert await events(backend, record) == ["x"]

    async def test_an_append_that_is_repeated_stores_nothing(self) -> None:
        """Nor does an append behind events that the log does not have."""
        backend = self.with_runs()
        async with connected(backend):
            begun = await start(backend)
            assert (await append(backend, 0, "1", "2")).appended == 2
            assert (await append(backend, 0, "1", "2")).appended == 2
            assert (await append(backend, 3, "4")).appended == 2
            assert await events(backend, begun) == ["1", "2"]

    async def test_nothing_is_appended_to_an_ended_run(self) -> None:
        """Nor by one that is not the owner, nor to a run that there is not."""
        backend = self.with_runs()
        async with connected(backend):
            begun = await start(backend)
            assert (await append(backend, 0, "x", owner="you")).owner == "me"
            assert await backend.end_run("a", "cancelled")
            assert (await append(backend, 0, "x")).state == "cancelled"
            assert await events(backend, begun) == ['{"state":"cancelled"}']
            assert await backend.append_run("b", "me", 0, [ServerSentEvent("x")]) is None
            assert await backend.get_run("b") is None

    async def test_one_call_ends_a_run(self) -> None:
        """Of many calls at the same time one has ended it, and its end is one event."""
        backend = self.with_runs()
        ended = []
        async with connected(backend):
            begun = await start(backend)

            async def end(state: Any) -> None:
                ended.append(await backend.end_run("a", state, owner="me" if state == "finished" else None))

            async with anyio.create_task_group() as tasks:
                for state in ("cancelled", "finished") * 10:
                    tasks.start_soon(end, state)
            assert sorted(ended) == [False] * 19 + [True]
            assert len(await events(backend, begun)) == 1
            assert not await backend.end_run("b", "cancelled")

    async def test_an_owner_ends_a_run_that_the_log_has_lost(self) -> None:
        """So that a reader that waits for it learns of its end."""
        backend = self.with_runs()
        async with connected(backend):
            assert await backend.end_run("a", "lost", reason="log", owner="me", ttl=60)
            record = await backend.get_run("a")
            assert record is not None
            assert (record.state, record.reason, record.owner) == ("lost", "log", "me")
            assert await events(backend, record) == ['{"state":"lost","reason":"log"}']
            assert not await backend.end_run("a", "finished", owner="me", ttl=60)

    async def test_a_run_whose_events_were_lost_does_not_end_as_a_whole_one(self) -> None:
        """A count that differs from that of the log ends nothing, and a record that is gone is not made again."""
        backend = self.with_runs()
        async with connected(backend):
            assert not await backend.end_run("a", "finished", owner="me", appended=0, ttl=60)
            assert await backend.get_run("a") is None
            await start(backend)
            await append(backend, 0, "1", "2")
            assert not await backend.end_run("a", "finished", owner="me", appended=3)
            assert not await backend.end_run("a", "finished", owner="you", appended=2)
            assert await backend.end_run("a", "finished", owner="me", appended=2)

    async def test_a_run_is_lost_when_its_lease_is_not_renewed(self) -> None:
        """The other process says so once; a renewed lease goes on."""
        backend = self.with_runs()
        async with connected(backend):
            begun = await start(backend)
            other = await start(backend, "b", "you")
            with anyio.fail_after(10):
                while await backend.renew_runs([("a", "me")], lease=LEASE) == [] and (
                    (await backend.get_run("b")) == other
                ):
                    await anyio.sleep(LEASE / 5)
            assert (await backend.get_run("a")) == begun
            assert await events(backend, other) == ['{"state":"lost","reason":"lease"}']
            assert await backend.renew_runs([("b", "you"), ("a", "me")], lease=LEASE) == ["b"]

    async def test_a_run_is_forgotten_after_its_time(self) -> None:
        """Then its key is free, and a new run begins with nothing of the old one."""
        backend = self.with_runs()
        async with connected(backend):
            await start(backend, ttl=0.2)
            await append(backend, 0, "old")
            await backend.end_run("a", "finished", owner="me")
            with anyio.fail_after(10):
                while await backend.get_run("a") is not None:
                    await anyio.sleep(0.02)
                await anyio.sleep(LEASE)
                await backend.renew_runs([], lease=LEASE)
            again = await start(backend, owner="again")
            assert (again.owner, again.state) == ("again", "running")
            assert await events(backend, again) == []

    async def test_fifty_followers_read_the_same(self) -> None:
        """They come at any time, from the beginning or from any event, also after the end."""
        async with Hub(self.with_runs()) as hub:
            run = await hub.start_run("a", hundred)
            seen: list[list[Any]] = [[] for _ in range(50)]
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    for number, got in enumerate(seen):
                        tasks.start_soon(follow, hub, number / 500, got)
                assert await run.wait() == "finished"
            assert seen == [[*map(str, range(100)), '{"state":"finished"}']] * 50
            assert run.resume_after(None) == run.resume_after("")
            assert math.isfinite(await run.followers())
