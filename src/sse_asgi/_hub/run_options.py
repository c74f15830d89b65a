"""The options of a run, and the functions that check them."""

import inspect
import math
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypedDict

from .._log.run import followers_channel
from .options import MAX_NAME_BYTES, check_channel, check_key, check_seconds

Source: TypeAlias = AsyncIterable[Any] | Iterable[Any]
SourceOrFunction: TypeAlias = Source | Callable[[], Source]

MAX_KEY_BYTES = MAX_NAME_BYTES - len(followers_channel(""))
ADVICE = "pass a generator function without arguments, or what it returns"


class RunOptions(TypedDict, total=False):
    """The options of `Hub.start_run`."""

    ttl: float
    max_events: int
    max_bytes: int
    orphan_timeout: float | None
    fingerprint: str | None


class RunTerms(NamedTuple):
    """The options of a run; see `Hub.start_run`. The lease is the hub's."""

    ttl: float
    max_events: int
    max_bytes: int
    orphan_timeout: float | None
    lease: float


def check_run(key: str, source: Any, terms: RunTerms, fingerprint: str | None) -> None:
    """Check the arguments of `Hub.start_run`.

    Raises:
        TypeError: An argument has a wrong type, or the source cannot be iterated.
        ValueError: The key or a number is bad.
    """
    check_run_key(key)
    check_key("fingerprint", fingerprint)
    for name, seconds in (("ttl", terms.ttl), ("orphan_timeout", terms.orphan_timeout)):
        check_seconds(name, seconds)
        if (seconds is None and name == "ttl") or seconds == math.inf:
            msg = f"{name} must be a finite number of seconds (got {seconds})"
            raise ValueError(msg)
    check_whole("max_events", terms.max_events)
    check_whole("max_bytes", terms.max_bytes)
    if inspect.iscoroutinefunction(source):
        msg = f"the source of a run must be iterable (got the async function {source!r}): put a `yield` into it"
        raise TypeError(msg)
    if not callable(source):
        source_of(source)


def check_run_key(key: Any) -> None:
    """Accept a key that could be the name of a channel, and is a bit shorter.

    Raises:
        TypeError: The key is not a str.
        ValueError: The key is empty, too long, or not writable.
    """
    if not isinstance(key, str):
        msg = f"the key of a run must be a str (got {type(key).__name__}): give it a name, as in 'chat:42'"
        raise TypeError(msg)
    check_channel(key)
    if len(key.encode()) > MAX_KEY_BYTES:
        msg = f"the key of a run must have at most {MAX_KEY_BYTES} bytes of UTF-8 (got {key[:32]!r}...): shorten it"
        raise ValueError(msg)


def check_whole(name: str, value: Any) -> None:
    """Accept a whole number above 0.

    Raises:
        TypeError: The value is not an int.
        ValueError: The value is below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{name} must be an int (got {value!r}): give a whole number, at least 1"
        raise TypeError(msg)
    if value < 1:
        msg = f"{name} must be at least 1 (got {value})"
        raise ValueError(msg)


def source_of(given: SourceOrFunction) -> Source:
    """Return the source that was given, or that the given function returns.

    Raises:
        TypeError: It cannot be iterated.
    """
    source = given() if callable(given) else given
    refused = isinstance(source, str | bytes | bytearray | memoryview | Mapping | type)
    if isinstance(source, AsyncIterable | Iterable) and not refused:
        return source
    if inspect.iscoroutine(source):
        source.close()
    msg = f"the source of a run must be iterable (got {source!r}): {ADVICE}"
    raise TypeError(msg)
