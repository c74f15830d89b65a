"""Runs in Redis: what the contract of runs does not see, and what is wrong in Redis."""

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from real_redis.launcher import RedisServer
from sse_asgi import BackendError, Hub, ServerSentEvent

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
KeyName = Callable[[str], str]
EVENT = ServerSentEvent("x")


async def test_nothing_is_left_of_a_forgotten_run(new_hub: NewHub, shared_redis: RedisServer, keys: KeyName) -> None:
    """Nor of one that nobody renewed and nobody forgot: its keys expire."""
    async with new_hub() as hub:
        backend = hub.backend
        await backend.start_run("a", "me", lease=0.05, ttl=0.05)
        await backend.append_run("a", "me", 0, [EVENT])
        await backend.end_run("a", "finished", owner="me")
        await anyio.sleep(0.1)
        await backend.renew_runs([], lease=0)
        assert shared_redis.cli("EXISTS", keys("r:a"), keys("s:sse.run:a")) == "0"
        assert shared_redis.cli("ZSCORE", keys("i"), "sse.run:a") == ""
        assert shared_redis.cli("ZCARD", keys("q")) == "0"
        await backend.start_run("b", "me", lease=20, ttl=5)
        await backend.append_run("b", "me", 0, [EVENT])
        assert 0 < int(shared_redis.cli("PTTL", keys("r:b"))) <= 45_000
        assert 0 < int(shared_redis.cli("PTTL", keys("s:sse.run:b"))) <= 45_000


async def test_another_programs_key_is_an_error(new_hub: NewHub, shared_redis: RedisServer, keys: KeyName) -> None:
    """That names the run."""
    async with new_hub() as hub:
        numbers = "l", "1", "n", "0"
        for fields in (("s", "odd"), ("s", "odd", "b", "1", *numbers), ("s", "running", "b", "x", *numbers)):
            shared_redis.cli("DEL", keys("r:a"))
            shared_redis.cli("HSET", keys("r:a"), *fields)
            with pytest.raises(BackendError, match="not of this library"):
                await hub.backend.get_run("a")
        shared_redis.cli("DEL", keys("r:a"))
        shared_redis.cli("SET", keys("r:a"), "x")
        with pytest.raises(BackendError, match="Redis refused"):
            await hub.backend.get_run("a")


async def test_an_end_that_is_repeated_is_the_first_one(new_hub: NewHub) -> None:
    """As after an answer that was lost on the way."""
    async with new_hub() as hub:
        backend: Any = hub.backend
        await backend.start_run("a", "me", lease=9, ttl=9)
        keeper = backend._opened()
        session = await keeper.commands()
        via = type("Via", (), {"keeper": keeper, "session": session})()
        ends = [
            await backend._runs.end(via, "a", "cancelled", "", owner=None, appended=None, ttl=9, call=call)
            for call in ("one", "one", "two")
        ]
        assert ends == [True, True, False]


async def test_the_leases_of_others_are_left_alone_after_an_outage(new_hub: NewHub) -> None:
    """Until the session is as old as a lease, because no owner could renew its own."""
    async with new_hub() as hub:
        backend = hub.backend
        await backend.start_run("a", "other", lease=0.01, ttl=9)
        await anyio.sleep(0.05)
        await backend.renew_runs([], lease=1000)
        record = await backend.get_run("a")
        assert record is not None
        assert record.state == "running"
        await backend.renew_runs([], lease=0.02)
        record = await backend.get_run("a")
        assert record is not None
        assert record.state == "lost"


async def test_an_append_without_a_run_says_so(new_hub: NewHub) -> None:
    async with new_hub() as hub:
        assert await hub.backend.append_run("a", "me", 0, [EVENT]) is None
        assert list(await hub.backend.renew_runs([("a", "me")], lease=9)) == ["a"]


async def test_events_that_may_not_be_announced_are_an_error(new_hub: NewHub, server: RedisServer) -> None:
    """Which says that they are stored."""
    async with new_hub(server) as hub:
        await hub.backend.start_run("a", "me", lease=9, ttl=9)
        server.cli("ACL", "SETUSER", "default", "-publish")
        with pytest.raises(BackendError, match="refused to announce them"):
            await hub.backend.append_run("a", "me", 0, [EVENT])
        server.cli("ACL", "SETUSER", "default", "+publish")
        record = await hub.backend.get_run("a")
        assert record is not None
        assert record.appended == 1


async def test_one_call_ends_any_number_of_runs(new_hub: NewHub, shared_redis: RedisServer, keys: KeyName) -> None:
    """In scripts of a hundred runs each, so that none of them blocks Redis for long."""
    async with new_hub() as hub:
        for number in range(201):
            await hub.backend.start_run(f"{number}", "me", lease=0.01, ttl=9)
        await anyio.sleep(0.5)  # a session that is younger than the lease ends no run
        assert await hub.backend.renew_runs([("0", "me")], lease=0.5) == []
        records = [await hub.backend.get_run(f"{number}") for number in range(201)]
        assert [record and record.state for record in records] == ["running"] + ["lost"] * 200
        assert shared_redis.cli("ZCARD", keys("q")) == "201"


async def test_a_run_does_not_begin_too_late(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would produce it. If only the clock of Redis was set, it begins in the next session."""
    async with new_hub() as hub:
        backend: Any = hub.backend
        backend._opened().inbox.clock -= 3600
        assert (await backend.start_run("a", "me", lease=9, ttl=9)).state == "running"
        monkeypatch.setattr("sse_asgi.backends.redis._backend.START_SECONDS", -1.0)
        with pytest.raises(BackendError, match="too late, and the run was not begun"):
            await backend.start_run("b", "me", lease=9, ttl=9)
        assert await backend.get_run("b") is None
        assert (await backend.start_run("a", "me", lease=9, ttl=9)).state == "running"
