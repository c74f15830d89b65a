"""Redis URLs and redis-py's connection options, read into one form."""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import (
    URL_QUERY_ARGUMENT_PARSERS,
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

SENTINEL_PORT = 26379
REDIS_PORT = 6379
SCHEMES: Mapping[str, type[AbstractConnection]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "valkey": Connection,
    "valkeys": SSLConnection,
    "unix": UnixDomainSocketConnection,
}
KNOWN = (
    "known are redis://, rediss://, unix://, valkey:// and valkeys://, redis+sentinel://host,host/service/db and "
    "redis+cluster://host,host, the last two also with rediss, valkey and valkeys"
)
UNREADABLE = (
    "the hosts of this Redis URL cannot be read: write host:port, with an IPv6 address in brackets, and write "
    "/ ? # @ in a user name or password as %2F %3F %23 %40"
)
NO_VALUE = (  # without the name, which may be the rest of a password
    "every option in a Redis URL must have a value: write name=value, or leave the option out, and write a ? in a "
    "password as %3F"
)
# These concern redis-py's pools, which a hub does not use. A URL that has them works.
IGNORED = {"max_connections"}
ELSEWHERE = {"timeout", "history_size", "history_ttl", "history_bytes", "total_bytes"}
OBJECTS = {
    "connection_class",
    "credential_provider",
    "driver_info",
    "encoder_class",
    "event_dispatcher",
    "maint_notifications_config",
    "parser_class",
    "redis_connect_func",
    "retry",
    "retry_on_error",
}
REQUIREMENTS = ("none", "optional", "required")


class Node(TypedDict, total=False):
    """The options that name one node; empty where the other options name it."""

    host: str
    port: int


class Where(NamedTuple):
    """The parts of a URL.

    Attributes:
        make: The connection class of redis-py, which reads the options.
        options: The options.
        nodes: The first nodes to ask, as further options.
        kind: "sentinel", "cluster", or empty for a single server.
        service: The name that Sentinel has for the master.
        sentinel: The options of the connections to Sentinel.
    """

    make: Callable[..., AbstractConnection]
    options: dict[str, Any]
    nodes: list[Node]
    kind: str = ""
    service: str = ""
    sentinel: Mapping[str, Any] = {}


def read_options(given: Mapping[str, Any]) -> Where:
    """Read redis-py's connection options.

    Raises:
        ValueError: An option cannot be used.
    """
    options = {name: value for name, value in given.items() if name not in IGNORED}
    requirement = options.get("ssl_cert_reqs")
    if isinstance(requirement, str):
        options["ssl_cert_reqs"] = _requirement(requirement)
    return Where(options.pop("connection_class", Connection), _with_checks(options), [{}])


def read_url(url: str) -> Where:
    """Read `redis://user:password@host:port/db?options`, `unix:///path` or, with +sentinel or +cluster, several hosts.

    Raises:
        ValueError: The text is not such a URL. The message does not repeat text that may be a secret.
    """
    scheme, found, rest = url.partition("://")
    scheme, plus, kind = scheme.lower().partition("+")
    make = SCHEMES.get(scheme)
    if not found or make is None or (plus and (kind not in ("sentinel", "cluster") or scheme == "unix")):
        raise ValueError(KNOWN)
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, _, hosts = authority.rpartition("@")
    name, _, password = user.partition(":")
    options: dict[str, Any] = {"username": unquote(name), "password": unquote(password)}
    given = _read_query(query, secure=make is SSLConnection, kind=kind)
    options = {option: value for option, value in options.items() if value} | given
    if "#" in url or (scheme != "unix" and "@" in path):
        raise ValueError(UNREADABLE)
    if scheme == "unix":
        return Where(make, options | ({"path": unquote(slash + path)} if path else {}), [{}])
    if plus and not hosts:
        raise ValueError(KNOWN)
    return _with_nodes(make, options, hosts, path.strip("/"), kind)


def _with_nodes(
    make: Callable[..., AbstractConnection], options: dict[str, Any], hosts: str, path: str, kind: str
) -> Where:
    several = hosts.split(",") if kind else [hosts]
    nodes = [_node(host, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT) for host in several]
    service, _, db = path.partition("/") if kind == "sentinel" else ("", "", path)
    if db and not db.isdecimal():
        msg = f"the database in a Redis URL is a number, not {db!r}"
        raise ValueError(msg)
    if kind == "sentinel" and not service:
        msg = "a Sentinel URL names the service, as in redis+sentinel://host:26379/mymaster"
        raise ValueError(msg)
    if db:
        options.setdefault("db", int(db))
    # Options that begin with sentinel_ are for the connections to Sentinel. The TLS options are for both.
    own = {name: options.pop(name) for name in list(options) if name.startswith("sentinel_")}
    shared = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel = shared | {name.removeprefix("sentinel_"): value for name, value in own.items()}
    return Where(make, _with_checks(options), nodes, kind, unquote(service), _with_checks(sentinel))


def _node(text: str, port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        host, found = parts.hostname, parts.port
    except ValueError:  # its message repeats the text, which may be a secret
        raise ValueError(UNREADABLE) from None
    return {"host": unquote(host or "localhost"), "port": found or port}


def _read_query(query: str, *, secure: bool, kind: str) -> dict[str, Any]:
    if any("=" not in item and "@" in item for item in query.split("&")):  # a password with a ? in it
        raise ValueError(UNREADABLE)
    options: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        plain = name.removeprefix("sentinel_") if kind == "sentinel" else name
        _check_option(name, plain, secure=secure, kind=kind)
        if not text:
            raise ValueError(NO_VALUE)
        if plain not in IGNORED:
            options.setdefault(name, _read_value(name, plain, text))
    return options


def _check_option(name: str, plain: str, *, secure: bool, kind: str) -> None:
    if name in ELSEWHERE:
        msg = f"{name!r} is an argument of RedisBackend: in a query it is read from SSE_BACKEND_URL only"
        raise ValueError(msg)
    if plain in OBJECTS:
        msg = f"{name!r} cannot be written in a URL: give RedisBackend a mapping of redis-py's connection options"
        raise ValueError(msg)
    if plain == "ssl" or (plain.startswith("ssl_") and not secure):
        scheme = f"rediss+{kind}" if kind else "rediss"
        msg = f"{name!r}: TLS is chosen by the scheme, so begin the URL with {scheme}://, and write no 'ssl' in it"
        raise ValueError(msg)


def _read_value(name: str, plain: str, text: str) -> Any:
    if plain == "ssl_cert_reqs":
        return _requirement(text)
    read = _NUMBERS.get(plain) or URL_QUERY_ARGUMENT_PARSERS.get(plain, str)
    try:
        return read(text)
    except (TypeError, ValueError):
        msg = f"{name!r} in a Redis URL must be a number, or a value that redis-py's documentation names"
        raise ValueError(msg) from None


# Only later versions of redis-py read these as numbers.
_NUMBERS: Mapping[str, Callable[[str], Any]] = {"protocol": int, "socket_read_size": int, "ssl_min_version": int}


def _with_checks(options: dict[str, Any]) -> dict[str, Any]:
    """Turn off the check of the host name if certificates are not checked, as later versions of redis-py do."""
    unchecked = options.get("ssl_cert_reqs") in ("none", ssl.CERT_NONE)
    return options | ({"ssl_check_hostname": False} if unchecked else {})


def _requirement(text: str) -> str:
    short = text.lower().removeprefix("cert_")
    if short not in REQUIREMENTS:
        msg = f"ssl_cert_reqs must be {', '.join(REQUIREMENTS)}, or CERT_NONE and so on (got {text!r})"
        raise ValueError(msg)
    return short
