"""RedisServer: a real redis-server for tests."""

import socket
import stat
from pathlib import Path

import anyio
import pytest

from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.testing import RedisServer
from sse_asgi.testing._redis import _free_port


def answers(url: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=1):
            return True
    except OSError:
        return False


def test_a_hub_works_on_it() -> None:
    """It answers in the block, and not after it; a second block starts another one."""
    server = RedisServer()

    async def main() -> None:
        async with Hub(RedisBackend(server.url)) as hub, hub.subscribe("a") as subscription:
            await hub.publish("a", "hello")
            assert (await anext(subscription)).data == "hello"

    for _ in range(2):
        with server:
            anyio.run(main)
        assert not answers(server.url)


def test_a_server_that_runs_is_left_as_it_is() -> None:
    """With a URL nothing is started."""
    with RedisServer() as running:
        with RedisServer(running.url) as server:
            assert server.url == running.url
        assert answers(running.url)


def test_without_a_server_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What to install, or the variable to set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"apt install redis-server.* or set SSE_TEST_REDIS_URL=redis://"):
        with RedisServer():
            pytest.fail("there is none")


def test_a_server_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message has the command to try. A server with the other name is used too."""
    binary = tmp_path / "valkey-server"
    binary.write_text("#!/bin/sh\nexit 1\n")
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"valkey-server does not start: try it by hand, as .*--port"):
        with RedisServer():
            pytest.fail("it does not start")


def test_a_port_that_another_server_took_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next attempt takes another port."""
    with RedisServer() as first:
        ports = [int(first.url.rpartition(":")[2])]
        monkeypatch.setattr("sse_asgi.testing._redis._free_port", lambda: ports.pop() if ports else _free_port())
        with RedisServer() as second:
            assert second.url != first.url
            assert ports == []
