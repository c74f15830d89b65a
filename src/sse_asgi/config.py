"""Configuration to objects: settings from the environment, and the hub that they describe."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple, Self, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.config import Config

from ._hub import Hub
from ._options import Overflow
from .backends.base import Backend
from .backends.memory import MemoryBackend

ENTRY_POINTS = "sse_asgi.backends"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the environment can say about a hub.

    Attributes:
        backend_url: `SSE_BACKEND_URL`: `memory://`, `redis://`, `rediss://`, `unix://`, `redis+sentinel://`,
            `redis+cluster://`, or a scheme of an installed backend; its query overrides the history's options, as in
            `memory://?history_size=10`, and in `redis://?timeout=2` it bounds how long publishing waits.
        hub_name: `SSE_HUB_NAME`: which hub of a shared backend this is.
        history_size: `SSE_HISTORY_SIZE`: events kept for each channel; 0 keeps none.
        history_ttl: `SSE_HISTORY_TTL`: seconds that an event is kept.
        buffer_size: `SSE_BUFFER_SIZE`: live events that may wait for one reader.
        buffer_bytes: `SSE_BUFFER_BYTES`: bytes of them.
        overflow: `SSE_OVERFLOW`: replay, close, drop_oldest or latest.
        ping_interval: `SSE_PING_INTERVAL`: seconds of silence before a ping; 0 sends none.
    """

    backend_url: str = "memory://"
    hub_name: str = "default"
    history_size: int = 1000
    history_ttl: float = 3600.0
    buffer_size: int = 256
    buffer_bytes: int = 1 << 20
    overflow: Overflow = "replay"
    ping_interval: float = 15.0

    @classmethod
    def from_environment(cls, config: Config | None = None) -> Self:
        """Read the variables.

        Args:
            config: Where to look, as in `Config(".env")`; None is the environment alone.

        Raises:
            ValueError: A value that is not allowed; the message names the variable.
        """
        config = config or Config()
        texts = {name: config(f"SSE_{name.upper()}", default=None) for name in _RULES}
        return cls(**{name: _RULES[name].read(f"SSE_{name.upper()}", text) for name, text in texts.items() if text})


def create_hub(settings: Settings | None = None) -> Hub:
    """Make the hub that the settings describe; opening it is up to the caller.

    Args:
        settings: None reads the environment.

    Raises:
        ValueError: An unknown scheme or option, or a value that is not allowed; the message lists what is known.
    """
    settings = settings or Settings.from_environment()
    return Hub(
        _create_backend(settings),
        buffer_size=settings.buffer_size,
        buffer_bytes=settings.buffer_bytes,
        overflow=settings.overflow,
        ping_interval=settings.ping_interval or None,
    )


def _create_backend(settings: Settings) -> Backend:
    try:
        scheme = urlsplit(settings.backend_url).scheme
    except ValueError as error:
        msg = f"SSE_BACKEND_URL={_shown(settings.backend_url)!r}: {error}"
        raise ValueError(msg) from error
    installed = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    factory: Callable[[Settings], Backend] | None = _BACKENDS.get(scheme)
    if factory is None and scheme in installed:
        factory = installed[scheme].load()
    if factory is not None:
        return factory(settings)
    known = ", ".join(f"{name}://" for name in sorted({*_BACKENDS, *installed}))
    msg = f"SSE_BACKEND_URL={_shown(settings.backend_url)!r}: no backend is installed for this scheme; known: {known}"
    raise ValueError(msg)


def _shown(url: str) -> str:
    """Leave out the user and password of a URL, which would end up in a log."""
    scheme, slashes, rest = url.partition("://")
    return scheme + slashes + rest.rpartition("@")[2]


def _memory(settings: Settings) -> MemoryBackend:
    options, others = _read_query(settings, {})
    for name, _ in others:
        known = ", ".join(options)
        msg = f"SSE_BACKEND_URL={_shown(settings.backend_url)!r}: unknown option {name!r}; known: {known}"
        raise ValueError(msg)
    return MemoryBackend(**options)


def _redis(settings: Settings) -> Backend:
    try:
        from .backends.redis import RedisBackend  # noqa: PLC0415 - optional
    except ImportError as error:
        msg = (
            f"SSE_BACKEND_URL={_shown(settings.backend_url)!r} needs redis-py: pip install 'sse-asgi[redis]' ({error})"
        )
        raise ValueError(msg) from error
    options, others = _read_query(settings, {"timeout": _SECONDS})
    url = settings.backend_url.partition("?")[0] + ("?" + urlencode(others) if others else "")
    try:
        return RedisBackend(url, name=settings.hub_name, **options)
    except ValueError as error:
        msg = f"SSE_BACKEND_URL={_shown(settings.backend_url)!r}: {error}"
        raise ValueError(msg) from error


_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
_BACKENDS: dict[str, Callable[[Settings], Backend]] = {"memory": _memory} | dict.fromkeys(_REDIS_SCHEMES, _redis)


def _read_query(settings: Settings, more: "dict[str, _Rule]") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the backend's options, the history's and more, and what else the URL's query says."""
    options: dict[str, Any] = {"history_size": settings.history_size, "history_ttl": settings.history_ttl}
    rules = {name: _RULES[name] for name in options} | more
    others = []
    for name, value in parse_qsl(settings.backend_url.partition("?")[2], keep_blank_values=True):
        if name in rules:
            options[name] = rules[name].read(f"{name} in SSE_BACKEND_URL", value)
        else:
            others.append((name, value))
    return options, others


class _Rule(NamedTuple):
    """How the text of one setting is read."""

    allowed: str
    cast: Callable[[str], Any]
    accepts: Callable[[Any], bool] = lambda value: bool(value)  # noqa: PLW0108 - bool is a type, not a function

    def read(self, name: str, text: str) -> Any:
        try:
            value = self.cast(text)
        except ValueError:
            value = None
        if value is None or not self.accepts(value):
            msg = f"{name}={text!r}: must be {self.allowed}"
            raise ValueError(msg)
        return value


_SECONDS = _Rule("a number of seconds above 0", float, lambda value: 0 < value < math.inf)
_RULES = {
    "backend_url": _Rule("a URL like memory://", str),
    "hub_name": _Rule("a name", str),
    "history_size": _Rule("a whole number of events, at least 0", int, lambda value: value >= 0),
    "history_ttl": _SECONDS,
    "buffer_size": _Rule("a whole number of events, at least 1", int, lambda value: value >= 1),
    "buffer_bytes": _Rule("a whole number of bytes, at least 1", int, lambda value: value >= 1),
    "overflow": _Rule(f"one of {', '.join(get_args(Overflow))}", str, lambda value: value in get_args(Overflow)),
    "ping_interval": _Rule("a number of seconds, 0 for no pings", float, lambda value: 0 <= value < math.inf),
}
