"""Examples in several processes, which the environment connects to one hub on Redis."""

import secrets

import pytest

from examples.conftest import Load, cookies, served
from real_redis.launcher import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Return asyncio only, which RedisBackend needs."""
    return "asyncio"


@pytest.fixture(autouse=True)
def own_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test a hub of its own."""
    monkeypatch.setenv("SSE_HUB_NAME", secrets.token_hex(8))


async def test_a_chat_of_several_processes(
    load: Load, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With SSE_REDIS_URL, readers of one process get messages to another; with one secret, a login holds in both."""
    monkeypatch.setenv("SSE_REDIS_URL", shared_redis.url)
    monkeypatch.setenv("SESSION_SECRET", "of all processes")
    async with served(load("login_chat")) as one, served(load("login_chat")) as other:
        async with one.streams.stream("/stream") as stream:
            await one.http.post("/login", data={"user": "Ada"})
            await other.http.post("/post", data={"message": "hello"}, headers=cookies(one.http))
            data = (await stream.next_event()).data
    assert '"user":"Ada","text":"hello"' in data


async def test_redis_is_told_in_parts(load: Load, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSE_REDIS_HOST, SSE_REDIS_PORT and SSE_REDIS_DB together name the database."""
    for name, value in {"HOST": "127.0.0.1", "PORT": str(shared_redis.port), "DB": "1"}.items():
        monkeypatch.setenv(f"SSE_REDIS_{name}", value)
    async with served(load("mounted_stream")) as one, served(load("mounted_stream")) as other:
        async with one.streams.stream("/stream/") as stream:
            await other.http.post("/hello")
            assert (await stream.next_event()).data == '{"message":"Hello, sse!"}'
