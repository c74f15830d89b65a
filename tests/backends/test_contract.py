"""The contract of every backend, over the library's own; tests/testing/contract has the memory backend on asyncio."""

import secrets
from typing import Any, Unpack

import pytest

from real_redis.launcher import RedisServer
from sse_asgi import Backend, MemoryBackend
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.testing.contract import BackendContract
from sse_asgi.testing.contract._base import BackendOptions


class TestMemory(BackendContract):
    """On trio."""

    random_logs = 300

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "trio"

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return MemoryBackend(**options)


class TestRedis(BackendContract):
    """On asyncio, the only event loop that RedisBackend runs on."""

    @pytest.fixture(autouse=True)
    def server(self, shared_redis: RedisServer) -> None:
        self.url = shared_redis.url

    def make_backend(self, **options: Unpack[BackendOptions]) -> Backend:
        return RedisBackend(self.url, name=secrets.token_hex(8), **options)


@pytest.mark.parametrize(
    "make_backend", [MemoryBackend, lambda **options: RedisBackend("redis://localhost", **options)]
)
@pytest.mark.parametrize(
    "options", [{"history_size": -1}, {"history_ttl": 0}, {"history_ttl": -1}, {"history_ttl": float("nan")}]
)
def test_bad_options_are_refused(make_backend: Any, options: dict[str, int]) -> None:
    """A history that cannot be is refused where it is asked for."""
    with pytest.raises(ValueError, match="at least 0"):
        make_backend(**options)
