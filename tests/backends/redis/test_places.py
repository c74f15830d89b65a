"""The addresses of a name: each of them is tried."""

import asyncio
import socket
import sys
from collections.abc import Callable

import anyio
import pytest

from real_redis.helpers import state_is
from real_redis.launcher import RedisServer, free_port
from real_redis.readers import reading
from sse_asgi import BackendError, Hub
from sse_asgi.backends.redis import _places
from sse_asgi.backends.redis._inquiries import Inquiries
from sse_asgi.backends.redis._places import Names, Place, connect_first
from sse_asgi.backends.redis._reasons import UnusableError

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


PATIENCE = 30.0


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
    """Of two connections one is used and the other closed; if the caller is cancelled, all are closed."""
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


async def test_a_name_without_an_address() -> None:
    """The error names it."""
    with pytest.raises(UnusableError, match=r"the name 'no-such-host\.invalid' was not found"):
        await Names(Inquiries()).find("no-such-host.invalid", 1)
