"""Opening a connection to a server, and checking that the server can carry a hub."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ._address import DIAL_SECONDS, Addresses
from ._endpoint import PROVIDER, Endpoint
from ._link import Link, LinkLostError
from ._reasons import UnusableError, explain
from ._resp import ReplyError

OLDEST = (6, 2)
NO_CREDENTIALS = f"{PROVIDER} has not answered yet"


class Server(NamedTuple):
    """A connected server, and its own description.

    Attributes:
        endpoint: How to connect to it.
        link: The connection to it.
        run: The id of its process.
        cluster: True if it is a node of a cluster.
        clock: Its clock at our monotonic time 0, in seconds.
        evicts: The maxmemory-policy, if the server may evict keys that never expire.
    """

    endpoint: Endpoint
    link: Link
    run: bytes
    cluster: bool
    clock: float
    evicts: str | None


class _MovedError(Exception):
    """The hub's slot is on another node."""


Opener = Callable[[], Link]
FAILURES = (UnusableError, OSError, LinkLostError, ReplyError, _MovedError, KeyError, TypeError, ValueError)


async def dial(addresses: Addresses, key: bytes, new_link: Opener, same: Server | None = None) -> Server:
    """Connect to the master that owns a key.

    Args:
        addresses: The nodes that may have it.
        key: The key.
        new_link: Makes the link of the connection.
        same: The server of the session's first connection, to which the second one must go.

    Raises:
        UnusableError: No server answers and can carry a hub.
    """
    endpoint = same.endpoint if same is not None else None
    clock = _Clock()
    try:
        async with clock.limit():
            endpoint = endpoint or await addresses.find()
        try:
            return await _greet(addresses, endpoint, key, new_link(), clock)
        except _MovedError as moved:
            host, _, port = str(moved).rpartition(":")
            host = host or endpoint.shown.rpartition(":")[0]
            endpoint = addresses.at(host, int(port)).with_login_of(endpoint)
            return await _greet(addresses, endpoint, key, new_link(), clock)
    except FAILURES as error:
        if endpoint is not None and same is None:
            endpoint.avoid()
        if endpoint is not None and addresses.answered:
            endpoint.hint = ""
        raise _why(error, endpoint) from error


class _Clock:
    """The time limit of one server, without the time of a credential provider."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + DIAL_SECONDS

    def limit(self) -> asyncio.Timeout:
        return asyncio.timeout_at(self._end)

    async def without(self, waiting: Awaitable[None]) -> None:
        began = self._loop.time()
        await waiting
        self._end += self._loop.time() - began


def _why(error: Exception, endpoint: Endpoint | None) -> UnusableError:
    """Return the error with the advice for an operator who reads the log."""
    doing, hinted = (endpoint.doing, endpoint.hinted) if endpoint is not None else ("", str)
    match error:
        case UnusableError():
            return error
        case TimeoutError() if not error.errno:
            late = f"no answer within {DIAL_SECONDS:g} s"
            return UnusableError(f"{late}: {doing}" if doing else hinted(late))
        case OSError() | LinkLostError():
            return UnusableError(hinted(str(error) or type(error).__name__))
        case ReplyError():
            return explain(str(error))
        case _MovedError():
            return UnusableError(f"the cluster moves the hub's slot: {error}")
        case _:
            return UnusableError(hinted(f"it does not answer as Redis does: {error!r}"))


async def learn_nodes(server: Server, addresses: Addresses) -> None:
    """Learn the nodes of a cluster, unless the user may not ask for them.

    Raises:
        LinkLostError: The connection ended.
    """
    if server.cluster:
        with contextlib.suppress(ReplyError):
            slots = await server.link.call("CLUSTER", "SLOTS")
            nodes = dict.fromkeys((host, port) for _, _, *owners in slots for host, port, *_ in owners if host)
            addresses.learn([(host.decode(), port) for host, port in nodes])


async def _greet(addresses: Addresses, endpoint: Endpoint, key: bytes, link: Link, timer: _Clock) -> Server:
    try:
        async with timer.limit():
            await endpoint.connect(link)
        addresses.waits_for = NO_CREDENTIALS
        await timer.without(endpoint.ask_login(addresses.inquiries))
        async with timer.limit():
            return await _introduce(endpoint, key, link)
    except ReplyError as error:
        link.close("it cannot be used")
        if str(error).startswith("MOVED"):
            raise _MovedError(str(error).split(" ")[2]) from error
        raise
    except BaseException:
        link.close("it cannot be used")
        raise
    finally:
        addresses.waits_for = ""


async def _introduce(endpoint: Endpoint, key: bytes, link: Link) -> Server:
    clock = -time.monotonic()
    hello, role, info, memory, now, *_ = await asyncio.gather(
        link.call(*endpoint.hello()),
        link.call("ROLE"),
        link.call("INFO", "server"),
        link.call("INFO", "memory"),
        link.call("TIME"),
        *([link.call("SELECT", endpoint.db)] if endpoint.db else []),  # after HELLO, which logs in
        link.call("EXISTS", key),
    )
    clock += int(now[0]) + int(now[1]) / 1_000_000
    _check_role(role)
    return _read_server(endpoint, link, hello, _fields(info) | _fields(memory), clock)


def _check_role(role: list[bytes]) -> None:
    if role[0] != b"master":
        msg = "it is a replica: name the master, or let Sentinel find it with redis+sentinel://host/service"
        raise UnusableError(msg, advice=True)


def _read_server(
    endpoint: Endpoint, link: Link, hello: dict[bytes, bytes], info: dict[str, str], clock: float
) -> Server:
    version = info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        msg = f"it is Redis {version}, and 6.2 is the oldest that works"
        raise UnusableError(msg, advice=True)
    policy = info.get("maxmemory_policy", "")
    run, cluster = info.get("run_id", "").encode(), hello[b"mode"] == b"cluster"
    return Server(endpoint, link, run, cluster, clock, policy if policy.startswith("allkeys-") else None)


def _fields(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
