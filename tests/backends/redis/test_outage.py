"""The log lines of an outage."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from real_redis.helpers import said
from real_redis.launcher import RedisServer, free_port
from sse_asgi import Hub
from sse_asgi.backends.redis._outage import Outage
from sse_asgi.backends.redis._reasons import UnusableError

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


async def test_an_evicting_policy(new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A policy that may evict keys without an expiry is one warning, and the hub works."""
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


async def test_an_outage_is_one_warning_and_one_line_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """However many attempts fail; the last reason is known while it lasts."""
    caplog.set_level("INFO")
    outage = Outage("here")
    assert [outage.begin(UnusableError(reason)) for reason in ("one", "two")] == [True, False]
    assert outage.reason == "two"
    assert outage.end()
    assert (outage.reason, outage.began) == ("", None)
    assert not outage.end()
    assert said(caplog) == [
        "WARNING Redis at here: one. Reconnecting; readers wait, and publishing fails",
        said(caplog)[1],
    ]
    assert said(caplog)[1].startswith("INFO Redis at here is back after 0.")


async def test_each_advice_is_one_error(caplog: pytest.LogCaptureFixture) -> None:
    """In each outage; the texts that were logged are forgotten at its end."""
    outage = Outage("here")
    for _ in range(2):
        for reason in ("a", "b", "a"):
            outage.begin(UnusableError(reason, advice=True))
        outage.end()
    assert said(caplog) == [f"ERROR Redis at here cannot be used: {reason}" for reason in "abab"]


async def test_an_evicting_policy_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """In all sessions."""
    outage = Outage("here")
    for _ in range(2):
        outage.warn("allkeys-lru")
    assert len(said(caplog)) == 1
    assert "maxmemory-policy allkeys-lru" in said(caplog)[0]
