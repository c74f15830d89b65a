"""Two connections that are used and lost together."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from real_redis.helpers import busy, state_is
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub
from sse_asgi.backends.redis._address import read_address
from sse_asgi.backends.redis._inbox import Inbox
from sse_asgi.backends.redis._keys import Keys
from sse_asgi.backends.redis._link import LinkLostError
from sse_asgi.backends.redis._resp import (
    ReplyError,
)
from sse_asgi.backends.redis._scripts import Scripts
from sse_asgi.backends.redis._session import Session, is_elsewhere, is_moving

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


WRAPPED = "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write."


@pytest.mark.parametrize(
    ("text", "elsewhere", "moving"),
    [
        ("READONLY You can't write against a read only replica.", True, False),
        (WRAPPED, True, False),
        ("MOVED 1 host:1", True, False),
        ("ASK 1 host:1", False, True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False, True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", False, True),
        ("BUSYGROUP Consumer Group name already exists", False, False),
        ("ERR unknown command 'READONLY '", False, False),
    ],
)
def test_what_an_error_asks_for(text: str, elsewhere: bool, moving: bool) -> None:  # noqa: FBT001
    """Some are about the server, some about the moment, also where Redis 6.2 has wrapped them."""
    assert (is_elsewhere(ReplyError(text)), is_moving(ReplyError(text))) == (elsewhere, moving)


async def test_two_connections_to_different_servers_are_refused(
    new_server: NewServer, server: RedisServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub whose commands and messages would go to different servers connects again until they do not."""
    async with proxied(server, new_server().start()) as proxy, new_hub(url=proxy.url) as hub:
        assert hub.state == "down"
        proxy.targets.pop()
        await state_is(hub, "up")
    assert "the two connections reached different servers" in caplog.text


async def test_a_server_that_went_back(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A log whose last sequence is before this process's position begins another life."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        shared_redis.cli("HSET", f"sse:{{{name}}}:m", "s", "5")
        await reader.until(lambda one: one.gaps == ["epoch"])
        await hub.publish("a", "2")
        await reader.has("1", "2")


async def test_another_process_begins_a_new_life(server: RedisServer, new_hub: NewHub) -> None:
    """A hub that hears nothing finds out within a few seconds that its log is another one."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        server.cli("FLUSHALL")
        await other.publish("b", "1")
        await reader.until(lambda one: one.gaps == ["epoch"])


STILL = """
import asyncio, sys, time
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend

async def main():
    async with Hub(RedisBackend(sys.argv[1])) as hub:
        await hub.publish("a", "0")
        print("ready", flush=True)
        while not sys.stdin.readline():
            pass
        began = time.monotonic()
        await hub.publish("a", "1")
        print(time.monotonic() - began, flush=True)

asyncio.run(main())
"""


async def test_a_connection_that_was_forgotten_while_the_process_stood_still(shared_redis: RedisServer) -> None:
    """After a standstill the first event is not sent to a dead connection."""
    async with proxied(shared_redis) as proxy:
        command = [sys.executable, "-c", STILL, proxy.url]
        process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
        assert process.stdin is not None
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGSTOP)
        await anyio.sleep(5)
        proxy.forget()
        process.stdin.write(b"go\n")
        process.send_signal(signal.SIGCONT)
        assert float(await process.stdout.readline()) < 10  # it was stored
        assert await process.wait() == 0


async def test_a_connection_that_lived_on(
    new_hub: NewHub, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One probe serves all publishers, and the connection is kept."""
    async with new_hub(server) as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        session = keeper.session
        session._due = 0
        await asyncio.gather(*(hub.publish("a", str(number)) for number in range(3)))
        await anyio.sleep(1.2)
        assert keeper.session is session
        assert not session.doubtful


async def test_a_process_that_stood_still_finds_out_by_itself(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """Its readers are live again soon, although nothing is published here."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as reader:
            session = far.backend._keeper.session  # type: ignore[attr-defined]
            proxy.forget()
            session._due = 0
            session.ended.set()  # as if the time for the next look had come
            with anyio.fail_after(4):
                while session.reason is None:
                    await anyio.sleep(0.01)
            assert session.reason == "no answer soon after this process had stood still"
            await hub.publish("a", "1")
            await reader.has("1")
            assert reader.gaps == []


async def test_only_the_messages_were_forgotten(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """The connection that messages come on is looked at as well."""
    async with new_hub() as hub:
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        session._messages.data_received = len  # nothing that arrives is read
        session._due = 0
        await hub.publish("a", "1")
        with anyio.fail_after(4):
            while session.reason is None:
                await anyio.sleep(0.01)
        assert session.reason == "no answer soon after this process had stood still"


@asynccontextmanager
async def opened(url: str, name: str, *, keeps: bool = True) -> AsyncIterator[tuple[Session, Inbox]]:
    """Open and fence a session without a keeper."""
    keys = Keys("sse", name)
    inbox = Inbox(keys, keeps=keeps)
    session = Session(keys, inbox, 5, lambda: None)
    await session.open(read_address(url))
    await session.fence(Scripts(), None)
    try:
        yield session, inbox
    finally:
        await asyncio.wait(session.close())
        assert session.gone


async def test_a_session_says_where_its_channels_begin(shared_redis: RedisServer, name: str) -> None:
    """At the mark; without history there is none. A session that has ended is not used."""
    async with opened(shared_redis.url, name) as (session, inbox):
        topic = Keys("sse", name).topic("a")
        mark = await session.subscribe({topic: inbox.add_user(topic, "a")}, hold=True)
        assert mark is not None
        assert inbox.channels[topic].last == mark.sequence
        assert (session.age >= 0, session.gone) == (True, False)
        session.check()
        session.fail("for a test")
        with pytest.raises(LinkLostError, match="for a test"):
            session.check()
    async with opened(shared_redis.url, name, keeps=False) as (session, _):
        assert await session.subscribe({}) is None


async def test_a_session_that_ends_while_it_subscribes(shared_redis: RedisServer, name: str) -> None:
    """The caller gets an error; a mark that arrives for a cancelled caller is dropped."""
    async with opened(shared_redis.url, name) as (session, inbox):
        gone = asyncio.create_task(session.subscribe({}))
        await asyncio.sleep(0)
        gone.cancel()
        assert await session.subscribe({}, hold=True) is not None
        waiting = asyncio.create_task(session.subscribe({}))
        await asyncio.sleep(0)
        session.fail("for a test")
        with pytest.raises(LinkLostError, match="for a test"):
            await waiting
        assert inbox.position is not None or gone.cancelled()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("DEL",), "its log is gone"),
        (("HSET", "e", "0badc0de"), "its log began another life"),
        (("HSET", "s", "1"), "it lost its last events"),
        (("HSET", "s", "9000000000000000"), "its clock was set"),
    ],
)
async def test_a_probe_finds_another_log(
    shared_redis: RedisServer, name: str, command: tuple[str, ...], reason: str
) -> None:
    """The session ends with the reason."""
    async with opened(shared_redis.url, name) as (session, inbox):
        mark = await session.subscribe({}, hold=True)
        assert mark is not None
        inbox.begin(mark)
        shared_redis.cli(command[0], f"sse:{{{name}}}:m", *command[1:])
        session.probe()
        with anyio.fail_after(10):
            await session.ended.wait()
        assert session.reason == reason


async def test_a_probe_finds_a_replica(server: RedisServer, name: str) -> None:
    """A server that was demoted is left; one that is only busy is not."""
    async with opened(server.url, name) as (session, _):
        async with busy(server, 0.5):
            session.probe()
            await asyncio.sleep(0.1)
        assert session.reason is None
        session._look_at_role([b"slave"])
        assert session.reason == "it is not a master any more"
    async with opened(server.url, name) as (session, _):
        session._look_at_role(ReplyError("BUSY Redis is busy running a script."))
        assert session.reason is None
        session._look_at_role(ReplyError("NOPERM no"))
        assert session.reason == "NOPERM no"
