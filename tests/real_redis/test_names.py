"""Names, addresses and sentinels of which some do not answer: none of them holds anything else up."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from real_redis.deaf_dns import deaf_dns
from real_redis.launcher import RedisServer, free_port
from real_redis.readers import reading
from real_redis.test_network import state_is
from real_redis.test_startup import said, stranger
from sse_asgi import BackendError, Hub
from sse_asgi.backends.redis import _places
from sse_asgi.backends.redis._inquiries import Inquiries
from sse_asgi.backends.redis._places import Names, Place, connect_first
from sse_asgi.backends.redis._reasons import UnusableError

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]

PATIENCE = 30.0
STOP_SECONDS = 8.0  # a look-up takes 40 s here; 2 s are promised, on a machine that has nothing else to do

SERVE = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from sse_asgi import Hub, BackendError
from sse_asgi.backends.redis import RedisBackend
{loop}

async def main():
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with Hub(RedisBackend(sys.argv[1], timeout=1)) as hub:
        try:
            await hub.publish("a", "1")
        except BackendError as error:
            print(error)
        await asyncio.wait_for(asyncio.to_thread(len, ()), 5)
        print(sum("look-up" in one.name for one in threading.enumerate()), flush=True)
        await asyncio.sleep(60)

{run}
"""

PUBLISH = """
import sys
from sse_asgi import BackendError, Publisher
with Publisher(sys.argv[1]) as publisher:
    try:
        publisher.publish("a", "1")
    except BackendError as error:
        print(error, flush=True)
"""

LOOPS = [("", "asyncio.run(main())"), ("import uvloop", "uvloop.run(main())")]


@pytest.mark.parametrize(("loop", "run"), LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("url", ["redis://redis.example", "redis+sentinel://redis.example,other.example/main"])
def test_a_dns_that_does_not_answer(tmp_path: Path, loop: str, run: str, url: str) -> None:
    """It takes no thread of the application, one look-up runs for each name, and the process ends at once."""
    script = SERVE.format(loop=loop, run=run)
    with deaf_dns(tmp_path) as (prefix, environment):
        command = [*prefix, sys.executable, "-c", script, url]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as one:
            assert one.stdout is not None
            said, look_ups = one.stdout.readline(), one.stdout.readline()
            began = time.monotonic()
            one.send_signal(signal.SIGINT)
            one.communicate(timeout=PATIENCE)
            assert time.monotonic() - began < STOP_SECONDS
    assert "not published: Redis was away for 1 s: " in said
    assert "DNS does not answer for the name 'redis.example'" in said
    assert int(look_ups) == url.count("example")


def test_a_publisher_with_a_dns_that_does_not_answer(tmp_path: Path) -> None:
    """Its script says why, and ends at once without a traceback."""
    with deaf_dns(tmp_path) as (prefix, environment):
        command = [*prefix, sys.executable, "-c", PUBLISH, "redis://redis.example?timeout=1"]
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
        assert time.monotonic() - began < PATIENCE / 2
    assert (
        "Redis was away for 1 s: no answer within 2 s: DNS does not answer for the name 'redis.example'" in done.stdout
    )
    assert "Traceback" not in done.stderr


async def test_a_name_that_is_not_there(new_hub: NewHub) -> None:
    """Whoever publishes is told the name."""
    async with new_hub(url="redis://no-such-host.invalid", timeout=0.3) as hub:
        with pytest.raises(BackendError, match=r"away for 0\.3 s: the name 'no-such-host\.invalid' was not found"):
            await hub.publish("a", "1")


async def test_a_look_up_that_outlives_its_loop() -> None:
    """What comes too late for one caller is for the next; another loop asks anew, and old answers are not used."""
    inquiries, answers = Inquiries(), iter("abc")
    go_on = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow() -> str:
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result(PATIENCE)
        return next(answers)

    with anyio.move_on_after(0.05):
        await inquiries.ask("key", slow)
    go_on.set()
    await asyncio.sleep(0.1)
    assert await inquiries.ask("key", slow) == "a"
    assert await asyncio.to_thread(lambda: asyncio.run(inquiries.ask("key", lambda: "other"))) == "other"
    assert await inquiries.ask("key", slow) == "b"


async def test_an_answer_that_is_old_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up again."""
    monkeypatch.setattr("sse_asgi.backends.redis._inquiries.FRESH_SECONDS", -1)
    inquiries, answers = Inquiries(), iter("abc")

    def slow() -> str:
        time.sleep(0.1)
        return next(answers)

    with anyio.move_on_after(0.05):
        await inquiries.ask("key", slow)
    await asyncio.sleep(0.3)
    assert await inquiries.ask("key", lambda: next(answers)) == "b"


async def test_what_a_call_raises_is_raised() -> None:
    """In the event loop."""
    with pytest.raises(ZeroDivisionError):
        await Inquiries().ask("key", lambda: 1 // 0)


async def test_two_who_ask_the_same() -> None:
    """They get the answer of one call."""
    inquiries, answers = Inquiries(), iter("ab")

    def slow() -> str:
        time.sleep(0.1)
        return next(answers)

    assert set(await asyncio.gather(inquiries.ask("key", slow), inquiries.ask("key", slow))) == {"a"}


# Several addresses


@pytest.fixture
def dead() -> Iterator[int]:
    """Return the port of an address that takes no connection and refuses none, as a machine that is off."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.2", port)), socket.socket() as second:
            second.setblocking(False)  # noqa: FBT003 - the socket module has it so
            second.connect_ex(("127.0.0.2", port))
            yield port


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that gives the name `several` these addresses."""
    ask = socket.getaddrinfo

    def give(*places: tuple[str, int]) -> None:
        def getaddrinfo(host: str, *arguments: object, **options: object) -> object:
            if host != "several":
                return ask(host, *arguments, **options)  # type: ignore[arg-type]
            if options.get("flags"):
                raise socket.gaierror
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]

        monkeypatch.setattr("sse_asgi.backends.redis._places.socket.getaddrinfo", getaddrinfo)

    return give


async def test_a_dead_first_address(
    new_hub: NewHub, shared_redis: RedisServer, dead: int, resolve: Callable[..., None]
) -> None:
    """The next address of the name is tried a moment later, for both connections."""
    resolve(("127.0.0.2", dead), ("127.0.0.1", shared_redis.port))
    async with new_hub(url="redis://several") as hub, reading(hub, "a") as reader:
        await state_is(hub, "up")
        await hub.publish("a", "1")
        await reader.has("1")


async def test_all_addresses_refuse(new_hub: NewHub, resolve: Callable[..., None]) -> None:
    """The error says it of each, once if it is the same."""
    resolve(("127.0.0.1", free_port()), ("127.0.0.3", free_port()))
    async with new_hub(url="redis://several", timeout=0.2) as hub:
        with pytest.raises(BackendError, match=r"away for 0\.2 s: Connection refused$"):
            await hub.publish("a", "1")


async def test_a_first_address_of_another_kind(
    new_hub: NewHub, new_server: NewServer, shared_redis: RedisServer, resolve: Callable[..., None]
) -> None:
    """An address at which a replica answers is left for the others of its name."""
    replica = new_server("--replicaof", "127.0.0.1", str(free_port())).start()
    resolve(("127.0.0.1", replica.port), ("127.0.0.1", shared_redis.port))
    async with new_hub(url="redis://several") as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")


async def test_the_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family that the system prefers is first, each address is tried once, and those to avoid are last."""
    v6, v4 = socket.AF_INET6, socket.AF_INET
    found = [(v6, 1, 6, "", ("::2", 1)), (v6, 1, 6, "", ("::3", 1)), (v4, 1, 6, "", ("192.0.2.1", 1))]
    monkeypatch.setattr("sse_asgi.backends.redis._places.socket.getaddrinfo", lambda *_, **__: [*found, found[0]])
    names = Names(Inquiries())
    places = await names.find("name", 1)
    assert list(map(str, places)) == ["[::2]:1", "192.0.2.1:1", "[::3]:1"]
    names.avoid(places[0])
    assert await names.find("name", 1) == [*places[1:], places[0]]
    for place in places[1:]:
        names.avoid(place)
    assert await names.find("name", 1) == places


async def test_reasons_that_differ_are_all_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its address; a system without a family is one of them."""
    there = Place(socket.AF_INET, ("127.0.0.1", free_port()))
    with pytest.raises(UnusableError) as caught:
        await connect_first([there, Place(-5, ("::1", 7))])
    assert "Connection refused" in str(caught.value)
    assert "[::1]:7: " in str(caught.value)


async def test_one_refuses_and_one_is_dead(dead: int) -> None:
    """The dead one is waited for as long as the caller has time."""
    places = [Place(socket.AF_INET, ("127.0.0.2", dead)), Place(socket.AF_INET, ("127.0.0.1", free_port()))]
    with anyio.move_on_after(0.6) as bound:
        await connect_first(places)
    assert bound.cancelled_caught


async def test_connections_that_are_not_needed_are_closed(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that answer at once one is used, and when nobody waits any more, none."""
    monkeypatch.setattr(_places, "HEAD_START", 0.01)
    place = Place(socket.AF_INET, ("127.0.0.1", shared_redis.port))
    connect, gate, started = _places._connect, asyncio.Event(), list[Place]()

    async def wait_and_connect(place: Place) -> object:
        started.append(place)
        await gate.wait()
        return await connect(place)

    monkeypatch.setattr(_places, "_connect", wait_and_connect)
    reaching = asyncio.create_task(connect_first([place] * 3))
    with anyio.fail_after(PATIENCE):
        while len(started) < 3:
            await asyncio.sleep(0.01)
    gate.set()
    connection, _ = await reaching
    connection.close()
    with anyio.move_on_after(0):
        await connect_first([place])
    await asyncio.sleep(0.1)


ON_UVLOOP = """
import socket, sys, uvloop
from sse_asgi import Hub
from sse_asgi.backends.redis import RedisBackend
ask, dead, port = socket.getaddrinfo, int(sys.argv[1]), int(sys.argv[2])

def getaddrinfo(host, *arguments, **options):
    if options.get("flags"):
        raise socket.gaierror
    return [*ask("127.0.0.2", dead, type=socket.SOCK_STREAM), *ask("127.0.0.1", port, type=socket.SOCK_STREAM)]

async def main():
    socket.getaddrinfo = getaddrinfo
    async with Hub(RedisBackend("redis://several")) as hub, hub.subscribe("a") as subscription:
        await hub.publish("a", "on uvloop")
        print((await anext(subscription)).data)

uvloop.run(main())
"""


async def test_a_dead_first_address_on_uvloop(shared_redis: RedisServer, dead: int) -> None:
    """As on asyncio."""
    command = [sys.executable, "-W", "error", "-c", ON_UVLOOP, str(dead), str(shared_redis.port)]
    done = await anyio.run_process(command, check=False)
    assert (done.stdout, done.stderr) == (b"on uvloop\n", b"")


# Sentinels


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
    """Each of them is named, with what it said."""
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
    """It is told by the URL."""
    watcher = sentinel(server, "requirepass secret")
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{watcher.port}/main?sentinel_password=secret") as hub:
        await state_is(hub, "up")


async def test_a_redis_that_is_taken_for_a_sentinel(
    new_hub: NewHub, shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what it answered."""
    async with new_hub(url=f"redis+sentinel://127.0.0.1:{shared_redis.port}/main") as hub:
        assert hub.state == "down"
    assert "it is not a Sentinel" in said(caplog)[0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"+OK\r\n+OK\r\n", "it does not answer as Sentinel does"),
        (b"*", "no answer within 1 s; if this server uses TLS"),
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
