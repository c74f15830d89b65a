"""Replacing memory by Redis takes one environment variable; the packages for Redis are optional."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from real_redis.launcher import RedisServer
from sse_asgi import BackendError, create_hub
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.config import Settings

pytestmark = pytest.mark.anyio

ROUND_TRIP = """
import asyncio, sys
sys.modules["hiredis"] = None
from sse_asgi import create_hub

async def main():
    async with create_hub() as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "without hiredis")
        print((await anext(subscription)).data)

asyncio.run(main())
"""

WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None
from sse_asgi import create_hub
create_hub()
"""


def run(script: str, url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SSE_BACKEND_URL": url}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", script], env=environment, capture_output=True, text=True, check=False
    )


async def test_the_settings_reach_the_backend(shared_redis: RedisServer, name: str) -> None:
    """The URL, the hub's name and the history's options are those of the settings; the query's win."""
    url = f"{shared_redis.url}/0?history_size=2&client_name=me"
    hub = create_hub(Settings(backend_url=url, hub_name=name, history_size=50, history_ttl=60))
    async with hub:
        for number in range(3):
            await hub.publish("a", str(number))
        assert [event.data for event in await hub.history("a")] == ["1", "2"]
        assert shared_redis.cli("CLIENT", "LIST").count("name=me") == 2
    stream = f"sse:{{{name}}}:s:a"
    assert 50_000 < int(shared_redis.cli("PTTL", stream)) <= 60_000


async def test_the_timeout_is_an_option_of_the_url(new_server: Callable[..., RedisServer]) -> None:
    """Publishing waits for so long."""
    async with create_hub(Settings(backend_url=f"{new_server().url}/0?timeout=0.2&client_name=me")) as hub:
        with pytest.raises(BackendError, match=r"Redis was away for 0\.2 s"):
            await hub.publish("a", "x")


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon", ""])
def test_a_wrong_timeout_is_named(text: str) -> None:
    """The error is that of any setting."""
    with pytest.raises(ValueError, match="must be") as caught:
        create_hub(Settings(backend_url=f"redis://a?timeout={text}"))
    assert str(caught.value) == f"timeout in SSE_BACKEND_URL={text!r}: must be a number of seconds above 0"


def test_an_option_that_nobody_knows_is_named() -> None:
    """An option of neither this library nor redis-py is an error."""
    with pytest.raises(ValueError, match=r"SSE_BACKEND_URL=.*unknown to redis-py.*'time_out'"):
        create_hub(Settings(backend_url="redis://a?time_out=2"))


@pytest.mark.parametrize(
    "url",
    [
        "redis://a",
        "rediss://a",
        "unix:///a",
        "redis+sentinel://a,b/c",
        "rediss+sentinel://a/c",
        "redis+cluster://a",
        "valkey://a",
        "valkeys://a",
        "valkey+sentinel://a/c",
        "valkeys+sentinel://a/c",
        "valkey+cluster://a",
        "valkeys+cluster://a",
        "REDIS://a",
    ],
)
def test_each_form_of_address_is_a_redis_backend(url: str) -> None:
    """All the schemes lead to the same backend."""
    assert isinstance(create_hub(Settings(backend_url=url)).backend, RedisBackend)


def test_a_wrong_url_names_the_variable() -> None:
    """The error does not have the password."""
    with pytest.raises(ValueError, match="SSE_BACKEND_URL='redis://host/x': the database") as caught:
        create_hub(Settings(backend_url="redis://me:secret@host/x"))
    assert "secret" not in str(caught.value)


async def test_without_the_extra_one_error_names_it() -> None:
    """A Redis URL without redis-py: the error names the package to install."""
    done = await asyncio.to_thread(run, WITHOUT_REDIS, "redis://localhost")
    assert (
        "ValueError: SSE_BACKEND_URL='redis://localhost' needs redis-py: pip install 'sse-asgi[redis]'" in done.stderr
    )


async def test_hiredis_is_optional(shared_redis: RedisServer) -> None:
    """The backend works without it."""
    done = await asyncio.to_thread(run, ROUND_TRIP, shared_redis.url)
    assert (done.stdout, done.stderr) == ("without hiredis\n", "")
