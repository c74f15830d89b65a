"""Facts that several tests on a real Redis wait for, and servers that are not Redis."""

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from real_redis.launcher import RedisServer
from real_redis.readers import reading
from sse_asgi import BackendError, Hub


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{one.levelname} {one.message}" for one in caplog.records if one.name == "sse_asgi.backends.redis"]


@asynccontextmanager
async def stranger(answer: bytes) -> AsyncIterator[str]:
    """Answer the first bytes of each connection with `answer`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer.replace(b"PORT", str(port).encode()))
        await reader.read(-1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.close()
        await server.wait_closed()


async def state_is(hub: Hub, state: str) -> None:
    with anyio.fail_after(10):
        while hub.state != state:
            await anyio.sleep(0.002)


async def until_up(hub: Hub, patience: float = 20) -> None:
    with anyio.fail_after(patience):
        while hub.state != "up":
            await anyio.sleep(0.01)


async def reason(hub: Hub) -> str:
    with pytest.raises(BackendError) as caught:
        await hub.publish("a", "1")
    return str(caught.value)


async def ids(hub: Hub, channel: str, count: int) -> list[str]:
    return [await hub.publish(channel, str(number)) or "" for number in range(count)]


async def resumed(hub: Hub, channel: str, last_event_id: str) -> tuple[list[str | None], list[str]]:
    """Resume, publish one more event, and return the texts and gaps before it."""
    end = secrets.token_hex(4)
    async with reading(hub, channel, last_event_id=last_event_id) as reader:
        await hub.publish(channel, end)
        await reader.until(lambda one: one.texts[-1:] == [end])
    return ["end" if len(text or "") == len(end) else text for text in reader.texts[:-1]], reader.gaps


def calls(server: RedisServer, command: str) -> int:
    """Return how often a server was sent this command."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.cli("INFO", "commandstats"))
    return int(found[1]) if found else 0


def epoch(hub: Hub) -> str:
    assert hub._registry is not None
    position = hub._registry.position()
    assert position is not None
    return position.epoch


async def restricted(server: RedisServer, name: str, *rules: str) -> str:
    """Make a user with all rights but these; return the URL."""
    server.cli("ACL", "SETUSER", name, "on", ">pw", "~*", "&*", "+@all", *rules)
    return server.url.replace("//", f"//{name}:pw@")


SPIN = "local till = tonumber(ARGV[1]) repeat local now = redis.call('TIME') until now[1] + now[2] / 1000000 > till"


@asynccontextmanager
async def busy(server: RedisServer, seconds: float) -> AsyncIterator[None]:
    """Have another client run a script for so long."""
    server.cli("CONFIG", "SET", "lua-time-limit", "50")
    spinning = asyncio.create_task(asyncio.to_thread(server.cli, "EVAL", SPIN, "0", str(time.time() + seconds)))
    with anyio.fail_after(10):
        while "BUSY" not in await asyncio.to_thread(server.cli, "GET", "a"):
            await anyio.sleep(0.01)
    yield
    await spinning
