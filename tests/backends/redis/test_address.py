"""Finding the server: Sentinels, of which some do not answer, and the names of addresses in logs."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from real_redis.helpers import said, state_is, stranger
from real_redis.launcher import RedisServer, free_port
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._address import read_address

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


PATIENCE = 30.0


@pytest.fixture
def sentinel(new_server: NewServer, tmp_path: Path) -> Callable[..., RedisServer]:
    """Return a function that starts a Sentinel that watches a master."""

    def start(master: RedisServer, *lines: str) -> RedisServer:
        config = tmp_path / f"sentinel-{free_port()}.conf"
        watched = f"sentinel monitor main 127.0.0.1 {master.port} 1"
        config.write_text("\n".join([watched, "sentinel down-after-milliseconds main 500", *lines]) + "\n")
        return new_server(sentinel=config).start()

    return start


async def test_a_dead_sentinel_is_first(
    new_hub: NewHub, server: RedisServer, sentinel: Callable[..., RedisServer], dead: int
) -> None:
    """The others are asked at the same time; an option of the URL is a number."""
    other = sentinel(server)
    for options in ("", "?sentinel_socket_connect_timeout=0.5&sentinel_socket_timeout=0.7"):
        url = f"redis+sentinel://127.0.0.2:{dead},127.0.0.1:{free_port()},127.0.0.1:{other.port}/main{options}"
        async with new_hub(url=url) as hub:
            await state_is(hub, "up")
            assert await hub.publish("a", "1")


async def test_a_sentinel_that_has_not_heard_of_the_election(
    new_hub: NewHub, new_server: NewServer, server: RedisServer, sentinel: Callable[..., RedisServer]
) -> None:
    """The one that knows the latest is believed, wherever it stands."""
    old = new_server("--replicaof", "127.0.0.1", str(server.port)).start()
    late = sentinel(old, "sentinel config-epoch main 1")
    early = sentinel(server, "sentinel config-epoch main 7")
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{late.port},127.0.0.1:{early.port}/main") as hub:
        await state_is(hub, "up")


async def test_sentinels_that_cannot_tell(
    new_hub: NewHub,
    new_server: NewServer,
    sentinel: Callable[..., RedisServer],
    dead: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The error names each of them, with its answer."""
    gone = new_server().start()
    watcher, locked, nothing = sentinel(gone), sentinel(gone, "requirepass secret"), free_port()
    gone.kill()
    with anyio.fail_after(PATIENCE):
        while "s_down" not in watcher.cli("SENTINEL", "MASTER", "main"):
            await anyio.sleep(0.05)
    hosts = ",".join(f"127.0.0.1:{port}" for port in (watcher.port, locked.port, nothing))
    async with new_hub(url=f"redis+sentinel://{hosts},127.0.0.2:{dead}/main") as hub:
        assert hub.state == "down"
    (text,) = said(caplog)
    assert "No master found for 'main'" in text
    assert f"127.0.0.1:{watcher.port}: it says that the master is down" in text
    assert f"127.0.0.1:{locked.port}: it wants a password: set sentinel_password in" in text
    assert f"127.0.0.1:{nothing}: Connection refused" in text
    assert f"127.0.0.2:{dead}: no answer within 1 s: it cannot be reached" in text


async def test_a_sentinel_with_a_password(
    new_hub: NewHub, server: RedisServer, sentinel: Callable[..., RedisServer]
) -> None:
    """The URL has the password."""
    watcher = sentinel(server, "requirepass secret")
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{watcher.port}/main?sentinel_password=secret") as hub:
        await state_is(hub, "up")


async def test_a_redis_that_is_taken_for_a_sentinel(
    new_hub: NewHub, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has its answer."""
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{shared_redis.port}/main") as hub:
        assert hub.state == "down"
    assert "it is not a Sentinel" in said(caplog)[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"+OK\r\n+OK\r\n", "it does not answer as Sentinel does"),
        (b"*", "no answer within 1 s; if this server uses TLS, begin the URL with rediss+sentinel:// and not with"),
    ],
)
async def test_a_stranger_that_is_taken_for_a_sentinel(
    new_hub: NewHub, answer: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """So it does of anything else."""
    async with stranger(answer) as url, new_hub(url=f"{url.replace('redis', 'redis+sentinel')}/main") as hub:
        assert hub.state == "down"
    assert reason in said(caplog)[0]


async def test_a_sentinel_that_hangs_up(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """It is not the end of the search."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"redis+sentinel://127.0.0.1:{server.sockets[0].getsockname()[1]}/main"
        async with new_hub(url=url) as hub:
            assert hub.state == "down"
    assert re.search("connection was lost|closed the connection", said(caplog)[0])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "localhost:6379"),
        ("rediss://me:pw@example.org:7000/3", "example.org:7000"),
        ("unix:///run/redis.sock?db=3", "/run/redis.sock"),
        ("redis+cluster://one,two:7000", "one:6379, two:7000"),
        ("rediss+sentinel://me:pw@one,[::1]:7000/service/3?sentinel_password=x", "service of one:26379, ::1:7000"),
        ({"host": "example.org", "port": 7}, "example.org:7"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, shown: str) -> None:
    """Every form of an address is understood, and its name in logs has no credentials."""
    assert RedisBackend(url)._addresses.shown == shown


async def test_learned_nodes_are_asked_in_turn() -> None:
    """After those of the URL, until others are learned."""
    addresses = read_address("redis+cluster://one,two")
    addresses.learn([("gone", 1)])
    addresses.learn([("three", 7)])
    assert [(await addresses.find()).shown for _ in range(4)] == ["one:6379", "two:6379", "three:7", "one:6379"]
    assert addresses.at("four", 7).shown == "four:7"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("redis://host?colour=blue", "an option of this Redis URL is unknown to redis-py: .*colour"),
        ("redis+sentinel://host/main?sentinel_colour=blue", "unknown to redis-py: .*colour"),
        ({"colour": "blue"}, "unknown to redis-py: .*colour"),
        ("redis://host?protocol=9", "a value that redis-py refuses: protocol must be"),
    ],
)
def test_an_option_that_redis_py_refuses_is_a_value_error(where: str | dict[str, str], message: str) -> None:
    """Where the address is read, not when it is used."""
    with pytest.raises(ValueError, match=message):
        read_address(where)
