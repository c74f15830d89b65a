"""The log lines of an outage."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from real_redis.helpers import said
from real_redis.launcher import RedisServer, free_port
from sse_asgi import Hub

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


async def test_an_evicting_policy(new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that may evict what never expires is warned of once, and the hub works."""
    server = new_server("--maxmemory-policy", "allkeys-lru").start()
    async with new_hub(server) as hub:
        assert hub.state == "up"
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        await asyncio.sleep(0.3)
        assert hub.state == "up"
    assert len([one for one in said(caplog) if "maxmemory-policy allkeys-lru" in one]) == 1


async def test_no_server(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A server that is not there is one warning, not one for each attempt."""
    async with new_hub(url=f"redis://127.0.0.1:{free_port()}") as hub:
        assert hub.state == "down"
        await anyio.sleep(0.5)
    assert [one.split(" ")[0] for one in said(caplog)] == ["WARNING"]
