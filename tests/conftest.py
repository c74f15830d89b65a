"""What all tests share: both event loops for every async test, and a Redis for those that need one."""

from collections.abc import Iterator
from typing import Any

import pytest

from real_redis.launcher import RedisServer


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run each async test on asyncio and on trio."""
    return request.param


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Start one server for all tests that do it no harm; each uses a hub of its own name."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
