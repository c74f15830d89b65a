"""The fixtures of tests on a real Redis, and the load whose readers are judged."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from real_redis.crowd import Crowd, crowd
from real_redis.fixtures import anyio_backend, cluster, dead, keys, locked, name, new_hub, new_server, resolve, server

__all__ = ["anyio_backend", "cluster", "dead", "keys", "locked", "name", "new_hub", "new_server", "resolve", "server"]

GAPS = {"none": 0, "one each": 1, "three each": 3}


@pytest.fixture
def judged(name: str, record: Callable[[str, str, str, float | str], None]) -> Callable[..., Any]:
    """Return a context that runs the load, and at the end judges the events of its readers."""

    @asynccontextmanager
    async def run(*urls: str, fault: str, gaps: str = "none", **options: Any) -> AsyncIterator[Crowd]:
        async with crowd(urls, name, **options) as load:
            yield load
        assert [one for one in load.found if not one.faultless] == []
        if gaps in GAPS:
            assert {len(one.gaps) for one in load.found} == {GAPS[gaps]}
        record("redis", fault, "gaps announced", gaps)
        record("redis", fault, "lost", str(sum(len(one.lost) + len(one.kept) for one in load.found)))
        record("redis", fault, "twice", str(sum(len(one.twice) for one in load.found)))
        record("redis", fault, "until live again", f"{load.seconds:.2f} s")

    return run
