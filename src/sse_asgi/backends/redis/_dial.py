"""Opening a connection, and finding out whether that server can carry a hub."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from redis.exceptions import RedisError

from ._address import DIAL_SECONDS, Address, Addresses
from ._link import Link, LinkLostError
from ._resp import ReplyError

logger = logging.getLogger("sse_asgi")

OLDEST = (6, 2)

# How an error reply begins, and what to do about it.
ADVICE = {
    "WRONGPASS": "it refuses the user or password: set them in the URL, as in redis://user:password@host",
    "NOAUTH": "it wants a password: set it in the URL, as in redis://:password@host or redis://user:password@host",
    "ERR AUTH": "it has no password for this user: leave it out of the URL",
    "ERR DB index": "it has no such database: choose another number at the end of the URL, or raise `databases`",
    "ERR SELECT": "a cluster has database 0 only: leave the number out of the URL",
    "ERR unknown command": "it is too old: 6.2 is the oldest Redis that works",
    "NOPERM": "the ACL rules of this user are not enough: see docs/redis.md for those that are needed",
}


class UnusableError(Exception):
    """A connection could not be had; the message says why, and `advice` whether somebody must do something."""

    def __init__(self, reason: str, *, advice: bool = False) -> None:
        """Say why."""
        super().__init__(reason)
        self.advice = advice


class Server(NamedTuple):
    """What a server said of itself.

    Attributes:
        address: Where it is.
        link: The connection to it.
        run: Names the life of its process.
        cluster: Whether it is a node of a cluster.
        clock: Its clock at our monotonic time 0, in seconds.
        evicts: The maxmemory-policy, where it may evict keys that never expire.
    """

    address: Address
    link: Link
    run: bytes
    cluster: bool
    clock: float
    evicts: str | None


class _MovedError(Exception):
    """The slot is on another node."""


Opener = Callable[[], Link]


async def dial(addresses: Addresses, probe: bytes, new_link: Opener, same: Server | None = None) -> Server:
    """Connect to the master that owns a key.

    Args:
        addresses: Where it may be.
        probe: The key.
        new_link: Makes what reads the connection.
        same: Where it was a moment ago.

    Raises:
        UnusableError: There is none that answers and suits.
    """
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            address = same.address if same is not None else await addresses.find()
            try:
                return await _greet(address, probe, new_link())
            except _MovedError as moved:
                host, _, port = str(moved).rpartition(":")
                return await _greet(
                    addresses.at(host or address.shown.rpartition(":")[0], int(port)), probe, new_link()
                )
    except TimeoutError:
        msg = f"no answer within {DIAL_SECONDS:g} s"
        raise UnusableError(msg) from None
    except (OSError, LinkLostError, RedisError) as error:
        raise UnusableError(str(error) or type(error).__name__) from error
    except (KeyError, TypeError, ValueError) as error:
        msg = f"it does not answer as Redis does: {error!r}"
        raise UnusableError(msg) from error
    except ReplyError as error:
        raise explain(str(error)) from error
    except _MovedError as error:
        msg = f"the cluster moves the hub's slot: {error}"
        raise UnusableError(msg) from error


async def learn_nodes(server: Server, addresses: Addresses) -> None:
    """Have all nodes of a cluster asked when this one is away; those of the URL only if the user may not know them.

    Raises:
        LinkLostError: The connection ended.
    """
    if server.cluster:
        with contextlib.suppress(ReplyError):
            slots = await server.link.call("CLUSTER", "SLOTS")
            nodes = dict.fromkeys((host, port) for _, _, *owners in slots for host, port, *_ in owners if host)
            addresses.learn([(host.decode(), port) for host, port in nodes])


def explain(text: str) -> UnusableError:
    """Add to an error reply what to do about it."""
    advice = next((advice for start, advice in ADVICE.items() if text.startswith(start)), None)
    return UnusableError(f"{advice} ({text})" if advice else text, advice=advice is not None)


async def _greet(address: Address, probe: bytes, link: Link) -> Server:
    try:
        await address.connect(link)
        clock = -time.monotonic()
        hello, role, info, memory, now, *_ = await asyncio.gather(
            link.call(*await address.hello()),
            link.call("ROLE"),
            link.call("INFO", "server"),
            link.call("INFO", "memory"),
            link.call("TIME"),
            *([link.call("SELECT", address.db)] if address.db else []),  # after HELLO, which says who we are
            link.call("EXISTS", probe),
        )
        clock += int(now[0]) + int(now[1]) / 1_000_000
        _check_role(role)
        return _read_server(address, link, hello, _fields(info) | _fields(memory), clock)
    except ReplyError as error:
        link.close("it cannot be used")
        if str(error).startswith("MOVED"):
            raise _MovedError(str(error).split(" ")[2]) from error
        raise
    except BaseException:
        link.close("it cannot be used")
        raise


def _check_role(role: list[bytes]) -> None:
    if role[0] != b"master":
        msg = "it is a replica: name the master, or let Sentinel find it with redis+sentinel://host/service"
        raise UnusableError(msg, advice=True)


def _read_server(address: Address, link: Link, hello: dict[bytes, bytes], info: dict[str, str], clock: float) -> Server:
    version = info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        msg = f"it is Redis {version}, and 6.2 is the oldest that works"
        raise UnusableError(msg, advice=True)
    policy = info.get("maxmemory_policy", "")
    run, cluster = info.get("run_id", "").encode(), hello[b"mode"] == b"cluster"
    return Server(address, link, run, cluster, clock, policy if policy.startswith("allkeys-") else None)


def _fields(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else str(info)
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
