"""Opening a connection: servers that cannot carry a hub are refused with the reason."""

from collections.abc import Callable
from functools import partial

import anyio
import pytest

from real_redis.helpers import said, stranger
from real_redis.launcher import RedisServer, free_port
from sse_asgi import Hub
from sse_asgi.backends.redis._address import Addresses, read_address
from sse_asgi.backends.redis._dial import Server, dial, learn_nodes
from sse_asgi.backends.redis._link import Link
from sse_asgi.backends.redis._reasons import UnusableError

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


OLD = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"


HELLO = b"%4\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n"


MASTER = b"*1\r\n$6\r\nmaster\r\n"


VERSION_5 = MASTER + b"$19\r\nredis_version:5.0.9\r\n$0\r\n\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n:0\r\n"


MOVED = b"+OK\r\n" + MASTER + b"+OK\r\n" * 3 + b"-MOVED 1 :PORT\r\n"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OLD, "cannot be used: it is too old: 6.2 is the oldest Redis that works"),
        (HELLO + VERSION_5, "cannot be used: it is Redis 5.0.9, and 6.2 is the oldest that works"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak RESP"),
        (b"+OK\r\n" + MASTER + b"+OK\r\n" * 4, "it does not answer as Redis does"),
        (MOVED, "the cluster moves the hub's slot: :"),
    ],
    ids=["old", "version", "http", "liar", "mover"],
)
async def test_a_stranger(new_hub: NewHub, caplog: pytest.LogCaptureFixture, answer: bytes, reason: str) -> None:
    """The hub opens, and the log says what is wrong with the server."""
    async with stranger(answer) as url, new_hub(url=url) as hub:
        assert hub.state == "down"
    assert len(said(caplog)) == 1
    assert reason in said(caplog)[0]


async def test_a_silent_server(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A server that accepts and never answers holds up the start for two seconds."""
    async with stranger(b"") as url, new_hub(url=url) as hub:
        assert hub.state == "down"
    assert "no answer within 2 s" in caplog.text


async def test_a_replica(new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A replica is refused with the way to find its master."""
    replica = new_server("--replicaof", "127.0.0.1", str(free_port())).start()
    async with new_hub(replica) as hub:
        assert hub.state == "down"
    assert [one.partition(" cannot be used: ")[2][:15] for one in said(caplog)] == ["it is a replica"]


async def test_a_wrong_database(new_hub: NewHub, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """A database that the server has not is named in one error."""
    async with new_hub(url=f"{shared_redis.url}/99") as hub:
        await anyio.sleep(0.2)
        assert hub.state == "down"
    assert [one.partition(" cannot be used: ")[2][:27] for one in said(caplog)] == ["it has no such database: ch"]


async def test_another_database(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A hub keeps its log in the database that its URL names."""
    async with new_hub(url=f"{shared_redis.url}/3") as hub:
        await hub.publish("a", "1")
    assert shared_redis.cli("-n", "3", "EXISTS", f"sse:{{{name}}}:m") == "1"


async def test_a_server_that_has_answered_is_not_suspected_of_tls(new_hub: NewHub, server: RedisServer) -> None:
    """The hint is for a URL that never worked."""
    async with new_hub(server) as hub:
        server.stop()
        hub.backend._keeper.session.fail("for a test")  # type: ignore[attr-defined]
        with anyio.fail_after(20):
            while "no answer within 2 s" not in hub.backend.trouble:
                await anyio.sleep(0.01)
        assert "TLS" not in hub.backend.trouble


async def test_a_cluster_leads_to_the_node_of_a_key(cluster: list[RedisServer]) -> None:
    """Every node leads there; then all nodes are known. A second connection to a node that has died is refused."""
    with anyio.fail_after(20):
        while not all("cluster_state:ok" in node.cli("CLUSTER", "INFO") for node in cluster):
            await anyio.sleep(0.05)
    addresses = read_address(f"redis+cluster://127.0.0.1:{cluster[0].port}")
    ports = set()
    for key in (b"a", b"b", b"c", b"d", b"e", b"f"):
        server = await dial(addresses, key, partial(Link, 5))
        assert await server.link.call("EXISTS", key) == 0
        ports.add(server.endpoint.shown)
        server.link.close("for a test")
    assert len(ports) > 1
    await dial_again(addresses, server)
    next(node for node in cluster if str(node.port) in server.endpoint.shown).kill()
    with pytest.raises(UnusableError, match="Connection refused"):
        await dial(addresses, key, partial(Link, 5), server)


async def dial_again(addresses: Addresses, server: Server) -> None:
    """Connect a second time, and learn the nodes."""
    again = await dial(addresses, b"f", partial(Link, 5), server)
    assert again.run == server.run
    await learn_nodes(again, addresses)
    again.link.close("for a test")
    assert len({(await addresses.find()).shown for _ in range(4)}) == 3


async def test_a_single_server_has_no_nodes_to_learn(shared_redis: RedisServer) -> None:
    """It is asked again and again."""
    addresses = read_address(shared_redis.url)
    server = await dial(addresses, b"a", partial(Link, 5))
    await learn_nodes(server, addresses)
    server.link.close("for a test")
    assert {(await addresses.find()).shown for _ in range(3)} == {server.endpoint.shown}
