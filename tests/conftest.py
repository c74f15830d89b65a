"""Fixtures for all tests: both event loops for every async test, and a Redis for the tests that need one."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from real_redis.launcher import RedisServer


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Run each async test on asyncio and on trio."""
    return request.param


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Start one server for all tests that do not damage it; each test uses a hub with a name of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def record() -> Callable[[str, str, str, float | str], None]:
    """Return a function that records seconds, or a text, for the tables that scripts/tables writes into the docs."""
    path = os.environ.get("MEASUREMENTS")

    def write(table: str, row: str, column: str, value: float | str) -> None:
        if path is not None:
            with Path(path).open("a") as file:
                file.write(json.dumps([table, row, column, value]) + "\n")

    return write
