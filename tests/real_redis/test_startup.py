"""What a hub says when its Redis cannot be used, and that it says it once."""

import asyncio
import re
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from redis.asyncio import SSLConnection

from real_redis.launcher import RedisServer, free_port
from real_redis.readers import reading
from sse_asgi import Hub, backends
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._session import PLAIN_VERBS, SHARDED_VERBS
from sse_asgi.backends.redis._url import read_url

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{one.levelname} {one.message}" for one in caplog.records if one.name == "sse_asgi"]


@pytest.mark.parametrize(
    ("credentials", "advice"),
    [("", "it wants a password"), (":wrong@", "it refuses the user or password"), ("no:one@", "it refuses the user")],
)
async def test_a_wrong_password(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, credentials: str, advice: str
) -> None:
    """One error says what is wrong and how to mend it, however often it is tried."""
    server = new_server("--requirepass", "right").start()
    async with new_hub(url=server.url.replace("//", f"//{credentials}")) as hub:
        await anyio.sleep(0.3)
        assert hub.state == "down"
    assert [one.partition(" cannot be used: ")[2][: len(advice)] for one in said(caplog)] == [advice]


@pytest.mark.parametrize("credentials", [":right@", "default:right@"])
async def test_the_right_password(new_server: NewServer, new_hub: NewHub, credentials: str) -> None:
    """A password alone is the default user's."""
    server = new_server("--requirepass", "right").start()
    async with new_hub(url=server.url.replace("//", f"//{credentials}") + "?client_name=me") as hub:
        assert hub.state == "up"
        assert server.cli("CLIENT", "LIST", password="right").count("name=me") == 2


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


@pytest.mark.parametrize(
    ("credentials", "advice"), [(":right@", []), ("", ["it wants a password"]), (":wrong@", ["it refuses the user"])]
)
async def test_another_database_of_a_server_with_a_password(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, credentials: str, advice: list[str]
) -> None:
    """The database is chosen once the server knows who asks, so that what is wrong with the password is said."""
    server = new_server("--requirepass", "right").start()
    async with new_hub(url=server.url.replace("//", f"//{credentials}") + "/1") as hub:
        assert hub.state == ("down" if advice else "up")
    assert [one.partition(" cannot be used: ")[2][:19] for one in said(caplog)] == advice


async def test_a_replica(new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A replica is refused with the way to find its master."""
    replica = new_server("--replicaof", "127.0.0.1", str(free_port())).start()
    async with new_hub(replica) as hub:
        assert hub.state == "down"
    assert [one.partition(" cannot be used: ")[2][:15] for one in said(caplog)] == ["it is a replica"]


@pytest.mark.parametrize(
    ("rights", "missing"),
    [(("~*", "&*", "+@all", "-info"), "'info' command"), (("~*", "+@all", "resetchannels"), "channels")],
    ids=["command", "channels"],
)
async def test_missing_rights(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, rights: tuple[str, ...], missing: str
) -> None:
    """A user who may not do what is needed is told what is missing, and where to read on."""
    server = new_server("--user", "me", "on", ">pw", *rights).start()
    async with new_hub(url=server.url.replace("//", "//me:pw@"), timeout=0.2) as hub:
        with anyio.move_on_after(0.3):
            async with hub.subscribe("a"):
                pass
    errors = [one for one in said(caplog) if "the ACL rules of this user are not enough" in one]
    assert len(errors) == 1
    assert missing in errors[0]


def documented_rules() -> list[str]:
    lines = (Path(__file__).parents[2] / "docs" / "redis.md").read_text().splitlines()
    return [rule for line in lines if line.startswith(("    ~", "    +")) for rule in line.split()]


def test_the_documented_rights_name_all_commands() -> None:
    """Whatever is sent, from a script or without one, and nothing else."""
    directory = Path(backends.redis.__file__).parent
    scripts = "".join(one.read_text() for one in directory.glob("*.lua"))
    modules = "".join(one.read_text() for one in directory.glob("*.py"))
    sent = re.findall(r"(?:call|attempt)\((?:event, )?'([A-Z]+)'", scripts)
    sent += re.findall(r'(?:call|request)\((?:\w+, )?"([A-Z]+)"', modules)
    assert {"XADD", "PEXPIRE", "HKEYS", "HMGET"} < set(sent)
    named = {rule[1:].partition("|")[0].upper() for rule in documented_rules() if rule.startswith("+")}
    others = {"HELLO", "CLIENT", *PLAIN_VERBS, *SHARDED_VERBS}
    assert named == {*sent, *others}


async def test_the_documented_rights_are_enough(new_server: NewServer, new_hub: NewHub) -> None:
    """A user with the rules that docs/redis.md names, and no others, can do all that a hub does."""
    server = new_server("--user", "me", "on", ">pw", "resetchannels", *documented_rules()).start()
    url = server.url.replace("//", "//me:pw@") + "/1?client_name=me"
    async with new_hub(url=url) as hub, new_hub(url=url, history_size=0, name="plain") as plain:
        async with reading(hub, "a", "b") as reader, reading(plain, "a", "b") as other:
            await hub.publish(["a", "b"], "1", idempotency_key="key")
            await plain.publish(["a", "b"], "1", idempotency_key="key")
            await reader.has("1")
            await other.has("1")
            server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            await hub.publish("a", "2")
            await reader.has("1", "2")
            assert reader.gaps == []
        assert len(await hub.history("a")) == 2


async def test_the_documented_rights_are_enough_to_make_room(new_server: NewServer, new_hub: NewHub) -> None:
    """The same user may let channels give way to others."""
    server = new_server("--user", "me", "on", ">pw", "resetchannels", *documented_rules()).start()
    async with new_hub(url=server.url.replace("//", "//me:pw@"), total_bytes=250) as hub:
        for number in range(30):
            await hub.publish(f"c{number % 5}", "x" * (70 if number % 3 else 1))
        assert 0 < sum([len(await hub.history(f"c{number}")) for number in range(5)]) < 10


@pytest.mark.parametrize("size", [0, 10])
async def test_the_documented_rights_are_enough_for_presence(new_server: NewServer, new_hub: NewHub, size: int) -> None:
    """The same user may list who is here, and let go of whom nobody hears of any more."""
    server = new_server("--user", "me", "on", ">pw", "resetchannels", *documented_rules()).start()
    ada, bob = Member("a", "ada"), Member("a", "bob")
    async with new_hub(url=server.url.replace("//", "//me:pw@"), history_size=size) as hub:
        await hub.backend.attend("one", lease=0.01, entered=[ada])
        with anyio.fail_after(5):
            while await hub.backend.present("a") != ["bob"]:
                await hub.backend.attend("two", lease=0.05, entered=[bob])
        await hub.backend.attend("two", lease=60, left=[bob])
        assert await hub.backend.present("a") == []


async def test_the_documented_rights_are_enough_on_a_cluster(cluster: list[RedisServer], new_hub: NewHub) -> None:
    """The same user finds its node there, and knows the others."""
    for node in cluster:
        node.cli("ACL", "SETUSER", "me", "on", ">pw", "resetchannels", *documented_rules())
        with anyio.fail_after(20):
            while "cluster_state:ok" not in node.cli("CLUSTER", "INFO"):
                await anyio.sleep(0.05)
    async with new_hub(url=f"redis+cluster://me:pw@127.0.0.1:{cluster[0].port}") as hub:
        async with reading(hub, "a") as reader:
            await hub.publish("a", "1")
            await reader.has("1")
        nodes = hub.backend._addresses._nodes  # type: ignore[attr-defined]
        assert {next(nodes)["port"] for _ in range(4)} == {node.port for node in cluster}


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


# Servers that are not what they should be

OLD = b"-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n"
HELLO = b"%4\r\n+server\r\n+redis\r\n+proto\r\n:3\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n"
MASTER = b"*1\r\n$6\r\nmaster\r\n"
VERSION_5 = MASTER + b"$19\r\nredis_version:5.0.9\r\n$0\r\n\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n:0\r\n"
MOVED = b"+OK\r\n" + MASTER + b"+OK\r\n" * 3 + b"-MOVED 1 :PORT\r\n"


@asynccontextmanager
async def stranger(answer: bytes) -> AsyncIterator[str]:
    """Answer the first bytes of each connection with these, whatever they were."""

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
    """Whatever answers at the address, the hub opens, and the log says what is wrong with it."""
    async with stranger(answer) as url, new_hub(url=url) as hub:
        assert hub.state == "down"
    assert len(said(caplog)) == 1
    assert reason in said(caplog)[0]


async def test_a_silent_server(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A server that accepts and never answers holds up the start for two seconds."""
    async with stranger(b"") as url, new_hub(url=url) as hub:
        assert hub.state == "down"
    assert "no answer within 2 s" in caplog.text


# What is refused where it is written


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://localhost", "redis://, rediss://, unix://"),
        ("redis://localhost/abc", "the database in a Redis URL is a number, not 'abc'"),
        ("redis://localhost?colour=blue", "an option of this Redis URL is unknown to redis-py: .*colour"),
        ("redis+sentinel://localhost", "a Sentinel URL names the service"),
        ("redis+pigeon://localhost", "known are redis://"),
        ("redis+cluster://", "known are redis://"),
        ("unix+cluster://a", "known are redis://"),
        ("redis:host", "known are redis://"),
        ("redis://host?timeout=2", "'timeout' is an argument of RedisBackend"),
        ("redis://host?retry=2", "'retry' cannot be written in a URL"),
        ("redis://host?ssl_cert_reqs=none", "'ssl_cert_reqs': TLS is chosen by the scheme"),
        ("rediss://host?ssl_cert_reqs=CERT_WHAT", r"ssl_cert_reqs must be none, optional, required.*got 'CERT_WHAT'"),
        ("redis://host?socket_timeout=soon", "'socket_timeout' in a Redis URL must be a number"),
        ("redis://host?protocol=9", "a value that redis-py refuses: protocol must be"),
        ("redis+sentinel://host/main?sentinel_colour=blue", "unknown to redis-py: .*colour"),
        ("redis+sentinel://host/main?sentinel_socket_timeout=soon", "'sentinel_socket_timeout' in a Redis URL must be"),
    ],
)
def test_a_bad_url_is_refused(url: str, message: str) -> None:
    """What cannot be an address is a ValueError where it is given."""
    with pytest.raises(ValueError, match=message):
        RedisBackend(url)


@pytest.mark.parametrize("secret", ["se/cret", "se#cret", "se?cret", "se?cret=1&x", "se\u2100cret", "12?se=cret"])
@pytest.mark.parametrize("form", ["redis://me:%s@host", "rediss+sentinel://me:%s@one,two/main", "redis://:%s"])
def test_a_password_that_is_not_encoded_is_not_repeated(form: str, secret: str) -> None:
    """The error, and whatever it is printed with, says how it is written instead."""
    try:
        RedisBackend(form % secret)
    except ValueError as error:
        text = "".join(traceback.format_exception(error))
        assert "cret" not in text.replace("form % secret", "")


@pytest.mark.parametrize(
    "url",
    [
        "redis://host?max_connections=10&health_check_interval=5&socket_keepalive=true&retry_on_timeout=1&protocol=2",
        "rediss://host?ssl_cert_reqs=CERT_REQUIRED",
        "redis+sentinel://host/main?sentinel_socket_timeout=0.5&sentinel_max_connections=2",
        {"host": "host", "max_connections": 10},
        {"host": "host", "connection_class": SSLConnection, "ssl_cert_reqs": "CERT_NONE"},
    ],
)
def test_a_url_that_was_written_for_redis_py_is_understood(url: str | dict[str, object]) -> None:
    """Options that do not matter to a hub are no mistake."""
    RedisBackend(url)


def test_what_is_written_in_a_url_is_decoded_once() -> None:
    """With every version of redis-py; what has its own special characters is given as it is meant."""
    read = read_url("valkey://m%2565:p%40ss@h%6Fst/3?client_name=a%2562&db=4")
    assert read.options == {"username": "m%65", "password": "p@ss", "client_name": "a%62", "db": 4}
    assert read.nodes == [{"host": "host", "port": 6379}]
    assert read_url("unix://me:pw@/run/a%20b@c.sock").options == {
        "username": "me",
        "password": "pw",
        "path": "/run/a b@c.sock",
    }
    assert read_url("unix://").options == {}
    sentinel = read_url("valkeys+sentinel://h/a%20b/2?sentinel_socket_timeout=0.5&ssl_cert_reqs=CERT_NONE&client_name=")
    assert sentinel.sentinel == {"socket_timeout": 0.5, "ssl_cert_reqs": "none", "ssl_check_hostname": False}
    assert (sentinel.service, sentinel.options["db"]) == ("a b", 2)


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
    """All the forms of an address are understood; what is logged of them is harmless."""
    assert RedisBackend(url)._addresses.shown == shown


@pytest.mark.parametrize("options", [{"name": ""}, {"name": "{x}"}, {"prefix": "a}"}, {"timeout": 0}])
def test_a_bad_option_is_refused(options: dict[str, object]) -> None:
    """What cannot be is a ValueError that names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        RedisBackend(**options)  # type: ignore[arg-type]
