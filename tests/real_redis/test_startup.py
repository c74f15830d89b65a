"""The log lines and errors of a hub whose Redis cannot be used."""

import re
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from real_redis.helpers import reason, said, until_up
from real_redis.launcher import RedisServer, free_port
from real_redis.readers import reading
from sse_asgi import BackendError, Hub, backends
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis._session import PLAIN_VERBS, SHARDED_VERBS

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


@pytest.mark.parametrize(
    ("credentials", "advice"),
    [("", "it wants a password"), (":wrong@", "it refuses the user or password"), ("no:one@", "it refuses the user")],
)
async def test_a_wrong_password(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, credentials: str, advice: str
) -> None:
    """One error names the fault and the fix, however many attempts are made."""
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


@pytest.mark.parametrize(
    ("credentials", "advice"), [(":right@", []), ("", ["it wants a password"]), (":wrong@", ["it refuses the user"])]
)
async def test_another_database_of_a_server_with_a_password(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, credentials: str, advice: list[str]
) -> None:
    """The database is chosen after the login, so that a wrong password is reported as such."""
    server = new_server("--requirepass", "right").start()
    async with new_hub(url=server.url.replace("//", f"//{credentials}") + "/1") as hub:
        assert hub.state == ("down" if advice else "up")
    assert [one.partition(" cannot be used: ")[2][:19] for one in said(caplog)] == advice


@pytest.mark.parametrize(
    ("rights", "missing"),
    [(("~*", "&*", "+@all", "-info"), "'info' command"), (("~*", "+@all", "resetchannels"), "channels")],
    ids=["command", "channels"],
)
async def test_missing_rights(
    new_server: NewServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture, rights: tuple[str, ...], missing: str
) -> None:
    """A user with too few rights: the error names the missing right and the documentation."""
    server = new_server("--user", "me", "on", ">pw", *rights).start()
    async with new_hub(url=server.url.replace("//", "//me:pw@"), timeout=0.2) as hub:
        with anyio.move_on_after(0.3):
            async with hub.subscribe("a"):
                pass
    errors = [one for one in said(caplog) if "the ACL rules of this user are not enough" in one]
    assert len(errors) == 1
    assert missing in errors[0]


def documented_rules() -> list[str]:
    text = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
    return [rule for block in re.findall(r"```text\n(.*?)```", text, re.DOTALL) for rule in block.split()]


def test_the_documented_rights_name_all_commands() -> None:
    """Every command that is sent, by a script or without one, and no other."""
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
    """The same user may list members, and expire those of dead processes."""
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


async def test_the_reason_is_said(new_hub: NewHub, locked: RedisServer) -> None:
    """Where the password is wrong or missing, in errors of publishing, of history and of presence."""
    for credentials, text in (("", "it wants a password"), (":wrong@", "it refuses the user or password")):
        async with new_hub(url=locked.url.replace("//", f"//{credentials}"), timeout=0.3) as hub:
            assert f"Redis was away for 0.3 s: {text}" in await reason(hub)
            with pytest.raises(BackendError, match=text):
                await hub.history("a")
            with pytest.raises(BackendError, match=text):
                await hub.presence("a")


async def test_the_reason_of_an_outage_of_a_hub_that_was_up(new_hub: NewHub, server: RedisServer) -> None:
    """The last one counts."""
    async with new_hub(server, timeout=0.7) as hub:
        await hub.publish("a", "1")
        server.cli("REPLICAOF", "127.0.0.1", str(free_port()))
        assert "it is a replica" in await reason(hub)
        server.kill()
        with anyio.fail_after(20):
            while "Connection refused" not in await reason(hub):
                pass
        server.start()
        await until_up(hub)
        assert hub.backend.trouble == ""
