"""Settings from the environment, and the hub that they describe.

Every error names the variable that has the wrong value. Errors end up in logs, so a URL is shown without its user, its
password and every value of its query that may be a secret.
"""

import difflib
import logging
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import entry_points
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args
from urllib.parse import unquote_plus, urlsplit

from starlette.config import Config

from ._hub.hub import Hub
from ._hub.options import Overflow
from ._hub.patterns import Patterns
from ._log.logged import about
from .backends.base import Backend
from .backends.memory import MemoryBackend

logger: logging.Logger = logging.getLogger("sse_asgi.config")

ENTRY_POINTS = "sse_asgi.backends"
ENV_FILE = ".env"
LIKENESS = 0.8
UNREADABLE = (
    "this URL cannot be read: write an IPv6 address in brackets, and / ? # @ [ ] in a user name or password as "
    "%2F %3F %23 %40 %5B %5D"
)
_HOST = re.compile(r"\[?[0-9a-fA-F:.]*\]?(:\d*)?|[^:@\[\]]*(:\d*)?")
_LOGIN = re.compile(r"[^/@]*:[^@]*@")
_HISTORY = ("history_size", "history_ttl", "history_bytes", "total_bytes")
_NUMBER = re.compile(r"[\d.]*|true|false|yes|no", re.IGNORECASE)
_SECRETS = ("pas", "pw", "word", "user", "secret", "token", "cred", "auth", "key")
# The largest values that every backend can store.
MAX_SIZE = (1 << 63) - 1
MAX_TTL = 10_000_000_000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every option of a hub that the environment can set.

    Attributes:
        backend_url: `SSE_BACKEND_URL`: `memory://`, `redis://`, `rediss://`, `valkey://`, `valkeys://`, `unix://`,
            `redis+sentinel://`, `redis+cluster://`, or a scheme of an installed backend. Options of the history in its
            query override those below, as in `memory://?history_size=10`. In `redis://?timeout=2`, `timeout` limits how
            many seconds publishing waits. If `SSE_BACKEND_URL` is not set, `SSE_REDIS_URL` has the URL, or any of
            `SSE_REDIS_HOST`, `SSE_REDIS_PORT` and `SSE_REDIS_DB` make one.
        hub_name: `SSE_HUB_NAME`: the hub's name; hubs of one name on one backend share their channels.
        history_size: `SSE_HISTORY_SIZE`: events kept for each channel; 0 keeps none.
        history_ttl: `SSE_HISTORY_TTL`: seconds that an event is kept.
        history_bytes: `SSE_HISTORY_BYTES`: bytes of events kept for each channel.
        total_bytes: `SSE_TOTAL_BYTES`: bytes of events kept for all channels together.
        buffer_size: `SSE_BUFFER_SIZE`: live events that may wait for one reader.
        buffer_bytes: `SSE_BUFFER_BYTES`: bytes of the events that may wait for one reader.
        overflow: `SSE_OVERFLOW`: replay, close, drop_oldest or latest.
        ping_interval: `SSE_PING_INTERVAL`: seconds of silence before a ping; 0 sends none.
        patterns: `SSE_PATTERNS`: names with `*`, separated by commas, that readers can subscribe to as one channel.
        presence_ttl: `SSE_PRESENCE_TTL`: seconds without a sign of life after which the readers of a process are
            removed.
        presence_grace: `SSE_PRESENCE_GRACE`: seconds for which a reader that has left stays listed.
        max_runs: `SSE_MAX_RUNS`: runs that this process may produce at the same time.
        url_variable: The name of the variable that `backend_url` was read from, for error messages.
    """

    backend_url: str = "memory://"
    hub_name: str = "default"
    history_size: int = 1000
    history_ttl: float = 3600.0
    history_bytes: int = 4 << 20
    total_bytes: int = 256 << 20
    buffer_size: int = 256
    buffer_bytes: int = 1 << 20
    overflow: Overflow = "replay"
    ping_interval: float = 15.0
    patterns: tuple[str, ...] = ()
    presence_ttl: float = 15.0
    presence_grace: float = 5.0
    max_runs: int = 1000
    url_variable: str = field(default="SSE_BACKEND_URL", repr=False, compare=False)

    def __repr__(self) -> str:
        """Show every setting, and the URL without its secrets."""
        shown = {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        shown["backend_url"] = _without_secrets(self.backend_url)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @classmethod
    def from_environment(cls, config: Config | None = None) -> Self:
        """Read the variables, and log a warning for each name that looks like a misspelt variable.

        Args:
            config: The variables. None reads the environment, then the file `.env` in the working directory.

        Raises:
            ValueError: A value is not allowed; the message names the variable.
            TypeError: `config` is not a Config.
        """
        config = _default_config() if config is None else config
        if not isinstance(config, Config):
            msg = f"config must be a starlette.config.Config (got {type(config).__name__}): write Config(environ=...)"
            raise TypeError(msg)
        _warn_of_typos(config)
        texts = {name: config(_variable(name), default=None) for name in _EVERY_RULE}
        values = {name: _EVERY_RULE[name].read(_variable(name), text) for name, text in texts.items() if text}
        return cls(**_with_one_url(values))


def _variable(name: str) -> str:
    return f"SSE_{name.upper()}"


def _default_config() -> Config:
    try:
        return Config(ENV_FILE if Path(ENV_FILE).is_file() else None)
    except UnicodeDecodeError as error:
        msg = f"{ENV_FILE} in the working directory must be text in UTF-8: {error}"
        raise ValueError(msg) from error


def _warn_of_typos(config: Config) -> None:
    known = [config.env_prefix + _variable(name) for name in _EVERY_RULE]
    for name in sorted({*config.environ, *config.file_values} - set(known)):
        bare = name.upper().removeprefix("EXPORT ")
        if bare.startswith(f"{config.env_prefix}SSE"):
            for meant in difflib.get_close_matches(bare, known, n=1, cutoff=LIKENESS):
                logger.warning("The variable %r is not read: is %s meant?", name, meant, extra=about("setting_unknown"))


def _with_one_url(values: dict[str, Any]) -> dict[str, Any]:
    """Replace the variables about Redis by one `backend_url`."""
    redis = {name: values[name] for name in _REDIS_RULES if name in values}
    others = {name: value for name, value in values.items() if name not in redis}
    if not redis:
        return others
    parts = [name for name in redis if name != "redis_url"]
    ways = [name for name in ("backend_url", "redis_url") if name in values] + parts[:1]
    if len(ways) > 1:
        msg = f"{' and '.join(map(_variable, ways))} are both set: choose one of them to say where events are kept"
        raise ValueError(msg)
    url = redis.get("redis_url") or _redis_url(**redis)
    return others | {"backend_url": url, "url_variable": _variable(parts[0] if parts else "redis_url")}


def _redis_url(redis_host: str = "localhost", redis_port: int = 6379, redis_db: int = 0) -> str:
    return f"redis://{redis_host}:{redis_port}/{redis_db}"


def _host(text: str) -> str:
    """Return a host as a URL has it: an IPv6 address in brackets."""
    return f"[{IPv6Address(text)}]" if ":" in text else text


def _patterns(text: str) -> tuple[str, ...]:
    """Split the names at commas.

    Raises:
        ValueError: A name is not a pattern.
    """
    return Patterns([name.strip() for name in text.split(",")]).names


def create_hub(settings: Settings | str | None = None, *, events: Mapping[str, Any] | None = None) -> Hub:
    """Return the hub that the settings describe; it is not open yet.

    Args:
        settings: A URL, such as `redis://localhost`, replaces the `backend_url` of the environment's settings. None
            reads all settings from the environment.
        events: The type of each event's data, by the event's name; see Hub.

    Raises:
        ValueError: A scheme or an option is unknown, or a value is not allowed. The message lists those that are known.
        TypeError: `settings` is neither Settings nor a URL.
    """
    if isinstance(settings, str):
        settings = replace(Settings.from_environment(), backend_url=settings, url_variable="url")
    elif settings is None:
        settings = Settings.from_environment()
    elif not isinstance(settings, Settings):
        msg = (
            f"settings must be Settings or a URL (got {type(settings).__name__}): write create_hub('redis://localhost'),"
            " or Hub(backend) for a Backend"
        )
        raise TypeError(msg)
    return Hub(
        _create_backend(settings),
        buffer_size=settings.buffer_size,
        buffer_bytes=settings.buffer_bytes,
        overflow=settings.overflow,
        ping_interval=settings.ping_interval or None,
        patterns=settings.patterns,
        presence_ttl=settings.presence_ttl,
        presence_grace=settings.presence_grace,
        max_runs=settings.max_runs,
        events=events,
    )


def _create_backend(settings: Settings) -> Backend:
    if not isinstance(settings.backend_url, str):
        kind = type(settings.backend_url).__name__
        msg = f"{settings.url_variable} must be a URL (got {kind}): write 'redis://localhost', for example"
        raise TypeError(msg)
    try:
        scheme = urlsplit(settings.backend_url).scheme
    except ValueError:  # its text may repeat a password
        msg = f"{_named(settings)}: {UNREADABLE}"
        raise ValueError(msg) from None
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    factory: Callable[[Settings], Backend] | None = _BACKENDS.get(scheme)
    if factory is None and scheme in installed:
        factory = installed[scheme].load()
    if factory is not None:
        return factory(settings)
    known = ", ".join(f"{name}://" for name in sorted({*_BACKENDS, *installed}))
    msg = f"{_named(settings)}: no backend is installed for this scheme; known: {known}"
    raise ValueError(msg)


def _named(settings: Settings) -> str:
    """Return the variable and its URL without secrets, as errors show them."""
    return f"{settings.url_variable}={_without_secrets(settings.backend_url)!r}"


def _without_secrets(url: str) -> str:
    """Return a URL without its user, its password and the values of its query that may be secrets."""
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    rest, question, query = rest.partition("?")
    authority, slash, path = rest.rpartition("@")[2].partition("/")
    if "@" in query or not all(_HOST.fullmatch(host) for host in authority.split(",")):
        return f"{scheme}{slashes}..."  # part of it may be a password that has a ? in it
    return scheme + slashes + authority + slash + path + question + _without_values(query)


def _without_values(query: str) -> str:
    return "&".join(map(_without_value, query.split("&")))


def _without_value(item: str) -> str:
    name, equals, value = item.partition("=")
    if not equals:
        return "..." if item else ""
    harmless = _NUMBER.fullmatch(value) and not any(part in name.lower() for part in _SECRETS)
    return item if harmless else f"{name}=..."


def _memory(settings: Settings) -> MemoryBackend:
    options, others = _read_query(settings, _HISTORY, {})
    for item in others:
        name = unquote_plus(item.partition("=")[0])
        known = ", ".join(options)
        msg = f"{_named(settings)}: unknown option {name!r}; known: {known}"
        raise ValueError(msg)
    return MemoryBackend(**options)


def _redis(settings: Settings) -> Backend:
    try:
        from .backends.redis import RedisBackend  # noqa: PLC0415 - redis-py is optional
    except ImportError as error:
        msg = f"{_named(settings)} needs redis-py: pip install 'sse-asgi[redis]' ({error})"
        raise ValueError(msg) from error
    options, others = _read_query(settings, _HISTORY, {"timeout": _SECONDS})
    url = settings.backend_url.partition("?")[0] + ("?" + "&".join(others) if others else "")
    try:
        return RedisBackend(url, name=settings.hub_name, **options)
    except ValueError as error:
        msg = f"{_named(settings)}: {error}"
        raise ValueError(msg) from error


_SERVERS = ("redis", "rediss", "valkey", "valkeys")
_REDIS_SCHEMES = (*_SERVERS, "unix", *(f"{server}+{kind}" for server in _SERVERS for kind in ("sentinel", "cluster")))
_BACKENDS: dict[str, Callable[[Settings], Backend]] = {"memory": _memory} | dict.fromkeys(_REDIS_SCHEMES, _redis)


def _read_query(
    settings: Settings, names: tuple[str, ...], more: "dict[str, _Rule]"
) -> tuple[dict[str, Any], list[str]]:
    """Read the query of the backend's URL.

    Args:
        settings: The settings, which have the URL.
        names: The settings that are options of the backend; an item of the query overrides its setting.
        more: The rules of options that are not settings.

    Returns:
        The options, and the other items of the query as they are written.
    """
    options: dict[str, Any] = {name: getattr(settings, name) for name in names}
    rules = {name: _RULES[name] for name in options} | more
    others = []
    for item in filter(None, settings.backend_url.partition("?")[2].split("&")):
        name, _, value = map(unquote_plus, item.partition("="))
        if name in rules:
            options[name] = rules[name].read(f"{name} in {settings.url_variable}", value)
        else:
            others.append(item)
    return options, others


class _Rule(NamedTuple):
    """How the text of one setting is read: the allowed values in words, the conversion, and a check of the result."""

    allowed: str
    cast: Callable[[str], Any]
    accepts: Callable[[Any], bool] = lambda value: bool(value)  # noqa: PLW0108 - bool is a type, not a function

    def read(self, name: str, text: str) -> Any:
        try:
            value = self.cast(text)
        except ValueError:
            value = None
        if value is None or not self.accepts(value):
            msg = f"{name}={_shown(text)!r}: must be {self.allowed}"
            raise ValueError(msg)
        return value


def _shown(text: str) -> str:
    """Return the text of a setting without secrets, because users put URLs into settings that are not URLs."""
    start, question, query = _LOGIN.sub("...@", text).partition("?")
    return start + question + _without_values(query)


_SECONDS = _Rule("a number of seconds above 0", float, lambda value: 0 < value < math.inf)
_RULES = {
    "backend_url": _Rule("a URL like memory://", str),
    "hub_name": _Rule("a name without braces", str, lambda value: not set("{}") & set(value)),
    "history_size": _Rule(f"a whole number of events, 0 to {MAX_SIZE}", int, lambda value: 0 <= value <= MAX_SIZE),
    "history_ttl": _Rule(f"seconds above 0 and at most {MAX_TTL}", float, lambda value: 0 < value <= MAX_TTL),
    "history_bytes": _Rule(f"a whole number of bytes, 1 to {MAX_SIZE}", int, lambda value: 1 <= value <= MAX_SIZE),
    "total_bytes": _Rule(f"a whole number of bytes, 1 to {MAX_SIZE}", int, lambda value: 1 <= value <= MAX_SIZE),
    "buffer_size": _Rule("a whole number of events, at least 1", int, lambda value: value >= 1),
    "buffer_bytes": _Rule("a whole number of bytes, at least 1", int, lambda value: value >= 1),
    "overflow": _Rule(f"one of {', '.join(get_args(Overflow))}", str, lambda value: value in get_args(Overflow)),
    "patterns": _Rule("channel names with a *, separated by commas", _patterns),
    "presence_ttl": _Rule("a number of seconds above 0", float, lambda value: 0 < value < math.inf),
    "presence_grace": _Rule("a number of seconds, 0 for none", float, lambda value: 0 <= value < math.inf),
    "max_runs": _Rule("a whole number of runs, at least 1", int, lambda value: value >= 1),
    "ping_interval": _Rule("a number of seconds, 0 for no pings", float, lambda value: 0 <= value < math.inf),
}

_REDIS_RULES = {
    "redis_url": _Rule("a URL like redis://localhost", str),
    "redis_host": _Rule("a host's name or address", _host, lambda value: not set("/@?#% ") & set(value)),
    "redis_port": _Rule("a port, from 1 to 65535", int, lambda value: 1 <= value < 1 << 16),
    "redis_db": _Rule("the number of a database, at least 0", int, lambda value: value >= 0),
}

_EVERY_RULE = _RULES | _REDIS_RULES
