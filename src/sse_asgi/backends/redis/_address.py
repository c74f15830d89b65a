"""The address of the server, found anew for each session, so that the hub follows a failover."""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from ._endpoint import Endpoint
from ._inquiries import Inquiries
from ._link import NOT_NEEDED, Link, LinkLostError
from ._places import Names
from ._reasons import SENTINEL_ADVICE, UnusableError, explain
from ._resp import ReplyError
from ._url import Node, Where, read_options, read_url

DIAL_SECONDS = 2.0
SENTINEL_SECONDS = 1.0
STRAGGLER_SECONDS = 0.25


class Addresses:
    """The nodes that may have the log. They are asked in turn.

    Attributes:
        shown: The name of the server in logs, without credentials.
        inquiries: Runs DNS look-ups and calls of a credential provider.
        answered: True if a server has answered as Redis does, so that the scheme of the URL is right.
        waits_for: A step that takes long and does not depend on the server, for errors; empty if there is none.
    """

    def __init__(self, where: Where) -> None:
        """Read the options.

        Raises:
            TypeError: An option is unknown to redis-py.
        """
        self._kind = where.kind
        self._make: Callable[..., AbstractConnection] = partial(where.make, **where.options)
        self._first: Sequence[Node] = where.nodes
        self._nodes: Iterator[Node] = itertools.cycle(where.nodes)
        self.inquiries = Inquiries()
        self.answered = False
        self.waits_for = ""
        self._names = Names(self.inquiries)
        self.shown = ", ".join(self._endpoint(node).shown for node in where.nodes)

    def _endpoint(self, node: Node) -> Endpoint:
        return Endpoint(self._make(**node), self._names, self._kind)

    async def find(self) -> Endpoint:
        """Return the server to connect to now.

        Raises:
            UnusableError: The server is not known.
        """
        return self._endpoint(next(self._nodes))

    def learn(self, nodes: Collection[tuple[str, int]]) -> None:
        """Ask these nodes as well from now on, until other nodes are learned."""
        learned: list[Node] = [{"host": host, "port": port} for host, port in nodes]
        self._nodes = itertools.cycle([*self._first, *learned])

    def at(self, host: str, port: int) -> Endpoint:
        """Return another node of the same cluster, or the master that Sentinel named."""
        return self._endpoint({"host": host, "port": port})


class _Sentinels(Addresses):
    """The master that Sentinel names. All sentinels are asked at once, so that one that is away causes no delay."""

    def __init__(self, where: Where) -> None:
        super().__init__(where)
        self.shown = f"{where.service} of {self.shown}"
        self._service = where.service
        self._question = ("SENTINEL", "MASTER", where.service)
        limits = [where.sentinel.get(name) for name in ("socket_connect_timeout", "socket_timeout")]
        self._seconds = min([SENTINEL_SECONDS, *(float(limit) for limit in limits if limit)])
        self._sentinels = [partial(where.make, **where.sentinel, **node) for node in where.nodes]
        for make in self._sentinels:
            make()

    async def find(self) -> Endpoint:
        asking = [asyncio.create_task(self._ask(Endpoint(make(), self._names, self._kind))) for make in self._sentinels]
        try:
            await _until_named(asking)
            # A sentinel that was cut off may name an old master, so the others have a moment to name a newer one.
            await asyncio.wait(asking, timeout=STRAGGLER_SECONDS)
            answers = [task.result() for task in asking if task.done()]
        finally:
            for task in asking:
                task.cancel()
        masters = [one for one in answers if isinstance(one, _Master)]
        if masters:
            latest = max(masters)
            return self.at(latest.host, latest.port)
        errors = [one for one in answers if isinstance(one, UnusableError)]
        msg = f"No master found for {self._service!r}: {'; '.join(map(str, errors))}"
        raise UnusableError(msg, advice=any(one.advice for one in errors))

    async def _ask(self, endpoint: Endpoint) -> "_Master | UnusableError":
        link = Link(self._seconds)
        try:
            async with asyncio.timeout(self._seconds):
                await endpoint.connect(link)
                await endpoint.ask_login(self.inquiries)
                _, reply = await asyncio.gather(*(link.call(*one) for one in (endpoint.hello(), self._question)))
            return _read_master(reply)
        except TimeoutError:
            late = f"{endpoint.shown}: no answer within {self._seconds:g} s"
            return UnusableError(f"{late}: {endpoint.doing}" if endpoint.doing else endpoint.hinted(late))
        except ReplyError as error:
            known = explain(str(error), SENTINEL_ADVICE)
            return UnusableError(f"{endpoint.shown}: {known}", advice=known.advice)
        except UnusableError as error:
            return UnusableError(f"{endpoint.shown}: {error}", advice=error.advice)
        except (OSError, LinkLostError) as error:
            return UnusableError(f"{endpoint.shown}: {endpoint.hinted(str(error))}")
        except (KeyError, TypeError, ValueError) as error:
            return UnusableError(f"{endpoint.shown}: it does not answer as Sentinel does: {error!r}")
        finally:
            link.close(NOT_NEEDED)


class _Master(NamedTuple):
    """The answer of one sentinel. The number of the election is first, so that the latest master is the greatest."""

    election: int
    host: str
    port: int


def _read_master(reply: Any) -> _Master:
    fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    flags = fields[b"flags"].decode().split(",")
    if down := {"s_down", "o_down"}.intersection(flags):
        msg = f"it says that the master is down ({', '.join(sorted(down))})"
        raise UnusableError(msg)
    return _Master(int(fields[b"config-epoch"]), fields[b"ip"].decode(), int(fields[b"port"]))


async def _until_named(asking: Collection["asyncio.Task[_Master | UnusableError]"]) -> None:
    """Wait for the first answer that names a master, or for all answers."""
    waiting = set(asking)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if any(isinstance(task.result(), _Master) for task in done):
            return


def read_address(where: str | Mapping[str, Any]) -> Addresses:
    """Read a URL, or redis-py's connection options.

    Raises:
        ValueError: The text is not such a URL, or an option is unknown.
    """
    read = read_url(where) if isinstance(where, str) else read_options(where)
    try:
        return _Sentinels(read) if read.kind == "sentinel" else Addresses(read)
    except TypeError as error:
        msg = f"an option of this Redis URL is unknown to redis-py: {error}"
        raise ValueError(msg) from error
    except (AttributeError, RedisError, ValueError) as error:
        msg = f"an option of this Redis URL has a value that redis-py refuses: {error}"
        raise ValueError(msg) from error
