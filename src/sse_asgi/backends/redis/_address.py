"""Where a server is: one URL, found anew for each connection, so that a failover is followed.

redis-py reads URLs and options, asks Sentinel, and knows credentials and TLS. Its public attributes say all that is
needed to open a connection; it does not open it itself, because its connections can only be read by asking for one
reply at a time, and its PubSub subscribes again without saying that messages were lost meanwhile.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider

from ._link import Link

DIAL_SECONDS = 2.0
SENTINEL_PORT = 26379
REDIS_PORT = 6379
KNOWN = (
    "known are redis://, rediss:// and unix://, redis+sentinel://host,host/service/db and redis+cluster://host,host, "
    "the last two also with rediss"
)


class Address:
    """How to connect to one server.

    Attributes:
        shown: What to call it in a log, without credentials.
        db: The number of the database.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        """Take over what redis-py made of the URL and options."""
        self._connection = connection
        self.db = int(connection.db or 0)
        self._path: str | None = getattr(connection, "path", None)
        self._host: str = getattr(connection, "host", "")
        self._port: int = getattr(connection, "port", 0)
        self.shown = self._path or f"{self._host}:{self._port}"

    async def hello(self) -> tuple[str, ...]:
        """Return the command that speaks RESP3 and proves who we are."""
        one = self._connection
        provider = one.credential_provider
        if provider is None and (one.username or one.password):
            provider = UsernamePasswordCredentialProvider(one.username, one.password)
        user = () if provider is None else await provider.get_credentials_async()
        name = ("SETNAME", one.client_name) if one.client_name else ()
        # A single credential is a password.
        return ("HELLO", "3", *(("AUTH", *("default", *user)[-2:]) if user else ()), *name)

    async def connect(self, link: Link) -> None:
        """Open the socket.

        Raises:
            OSError: Nobody answers.
        """
        loop = asyncio.get_running_loop()
        if self._path is not None:
            await loop.create_unix_connection(lambda: link, self._path)
            return
        context = self._connection.ssl_context.get() if isinstance(self._connection, SSLConnection) else None
        await loop.create_connection(lambda: link, self._host, self._port, ssl=context)


class Addresses:
    """Where the log's server may be: the first nodes to ask, each in its turn.

    Attributes:
        shown: What to call it in a log, without credentials.
    """

    def __init__(self, make: Callable[..., AbstractConnection], nodes: Sequence[Mapping[str, Any]]) -> None:
        """Connect by these options of redis-py, and by those of a node.

        Raises:
            TypeError: An option is unknown.
        """
        self.shown = ", ".join(Address(make(**node)).shown for node in nodes)
        self._make = make
        self._first = nodes
        self._nodes = itertools.cycle(nodes)

    async def find(self) -> Address:
        """Return where to connect to now."""
        return Address(self._make(**next(self._nodes)))

    def learn(self, nodes: Collection[tuple[str, int]]) -> None:
        """Ask these as well from now on, until others are named."""
        self._nodes = itertools.cycle([*self._first, *({"host": host, "port": port} for host, port in nodes)])

    def at(self, host: str, port: int) -> Address:
        """Return another node of the same cluster, or the master that Sentinel named."""
        return Address(self._make(host=host, port=port))


class _Sentinels(Addresses):
    """The master that Sentinel names."""

    def __init__(
        self,
        make: Callable[..., AbstractConnection],
        nodes: Sequence[Mapping[str, Any]],
        service: str,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(make, nodes)
        self.shown = f"{service} of {self.shown}"
        self._sentinels = [(node["host"], node["port"]) for node in nodes]
        self._service = service
        self._options = {"socket_timeout": DIAL_SECONDS / 2, "retry": Retry(NoBackoff(), 0), **options}

    async def find(self) -> Address:
        make: Callable[..., Any] = Sentinel  # its constructor has no annotations
        async with make(self._sentinels, sentinel_kwargs=self._options) as sentinel:
            host, port = await sentinel.discover_master(self._service)
        return self.at(str(host), int(port))


def read_address(where: str | Mapping[str, Any]) -> Addresses:
    """Read a URL, or redis-py's connection options.

    Raises:
        ValueError: It is no such URL, or an option is unknown.
    """
    try:
        if not isinstance(where, str):
            return _single(dict(where))
        scheme, _, rest = where.partition("://")
        scheme, plus, kind = scheme.lower().partition("+")
        return _read_several(scheme, kind, rest) if plus else _single(_read_url(where))
    except TypeError as error:
        msg = f"an option of this Redis URL is unknown to redis-py: {error}"
        raise ValueError(msg) from error


def _single(options: dict[str, Any]) -> Addresses:
    return Addresses(partial(options.pop("connection_class", Connection), **options), [{}])


def _read_several(scheme: str, kind: str, rest: str) -> Addresses:
    """Read `redis+sentinel://user:password@host,host:port/service/db?options` or `redis+cluster://...`."""
    end = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    user, at, hosts = rest[:end].rpartition("@")
    path, question, query = rest[end:].partition("?")
    service, _, db = path.strip("/").partition("/")
    if scheme not in ("redis", "rediss") or kind not in ("sentinel", "cluster") or not hosts:
        raise ValueError(KNOWN)
    options = _read_url(f"{scheme}://{user}{at}localhost/{db if kind == 'sentinel' else service}{question}{query}")
    del options["host"]
    make = options.pop("connection_class", Connection)
    nodes = [_node(host, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for host in hosts.split(",")]
    if kind == "cluster":
        return Addresses(partial(make, **options), nodes)
    if not service:
        msg = "a Sentinel URL names the service, as in redis+sentinel://host:26379/mymaster"
        raise ValueError(msg)
    # Options that begin with sentinel_ are for the connections to Sentinel; those of TLS are shared.
    own = {name: options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    sentinel = {name.removeprefix("sentinel_"): value for name, value in own.items()}
    if make is SSLConnection:
        sentinel |= {"ssl": True} | {name: value for name, value in options.items() if name.startswith("ssl_")}
    return _Sentinels(partial(make, **options), nodes, service, sentinel)


def _node(text: str, port: int) -> dict[str, Any]:
    parts = urlsplit(f"//{text}")
    return {"host": parts.hostname or "localhost", "port": parts.port or port}


def _read_url(url: str) -> dict[str, Any]:
    options = dict(parse_url(url))
    parts = urlsplit(url)
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not database.isdecimal():  # redis-py reads it as 0
        msg = f"the database in a Redis URL is a number, not {database!r}"
        raise ValueError(msg)
    return options
