"""What a reader or a response can ask for, checked where it is asked for."""

import difflib
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Literal, NamedTuple, get_args

import anyio.lowlevel

from .._log.event import ServerSentEvent, as_event
from .._log.names import RESERVED
from ..dialects import Dialect

MAX_NAME_BYTES = 512
MAX_SHARED = 64

Overflow = Literal["replay", "close", "drop_oldest", "latest"]
Transform = Callable[[ServerSentEvent, Any], Any]
Snapshot = Callable[..., Awaitable[Any]]


class Options(NamedTuple):
    """How one reader wants its events; see `Hub.subscribe`."""

    properties: Any = None
    transform: Transform | None = None
    initial: tuple[ServerSentEvent, ...] = ()
    snapshot: Snapshot | None = None
    buffer_size: int = 256
    buffer_bytes: int = 1 << 20
    overflow: Overflow = "replay"
    position_frames: bool = True
    ping_interval: float | None = 15.0
    identity: str | None = None
    presence: tuple[str, ...] = ()
    personal: bool = False
    rewind: float = 0


class Terms(NamedTuple):
    """What was agreed for a connection, where what never comes is infinitely far; see EventSourceResponse."""

    greeting: bytes
    ping_interval: float
    start_timeout: float
    send_timeout: float
    max_lifetime: float
    cleanup_timeout: float
    on_error: Callable[[Exception], Any] | None
    dialect: Dialect | None = None


_terms: anyio.lowlevel.RunVar[dict[Terms, Terms]] = anyio.lowlevel.RunVar("_terms")


def shared_terms(terms: Terms) -> Terms:
    """Return the first equal terms of this event loop: thousands of connections have few different ones."""
    if terms.on_error is not None or terms.dialect is not None:  # a function may hold on to its request
        return terms
    known = _terms.get(None)
    if known is None or len(known) >= MAX_SHARED:
        known = {}
        _terms.set(known)
    return known.setdefault(terms, terms)


def check_channels(names: Collection[str]) -> tuple[str, ...]:
    """Return the names, each once, or raise for one that cannot be a channel."""
    if isinstance(names, bytes | bytearray) or not isinstance(names, Collection):
        msg = f"channels must be a str or a collection of str, not {type(names).__name__}"
        raise TypeError(msg)
    if not names:
        msg = "at least one channel is needed"
        raise ValueError(msg)
    return tuple(dict.fromkeys(check_channel(name) for name in names))


def check_channel(name: str) -> str:
    """Return the name of a channel: any str without control characters of 1 to 512 bytes.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, or not writable.
    """
    if not isinstance(name, str):
        msg = f"a channel is a str, not {type(name).__name__}: subscribe('a', 'b') or publish(['a', 'b'], ...)"
        raise TypeError(msg)
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= MAX_NAME_BYTES):
        _check_name("channel name", name)
    return name


def check_identity(identity: str | None) -> None:
    """Accept None, and what could be the name of a channel.

    Raises:
        TypeError: It is no str.
        ValueError: It is empty, too long, or not writable.
    """
    if identity is None:
        return
    if not isinstance(identity, str):
        msg = f"identity must be a str, such as str(user.id), not {type(identity).__name__}"
        raise TypeError(msg)
    _check_name("identity", identity)


def _check_name(what: str, name: str) -> None:
    if not name or any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in name):
        msg = f"the {what} {name!r} is empty or has control characters or lone surrogates"
        raise ValueError(msg)
    if len(name.encode()) > MAX_NAME_BYTES:
        msg = f"the {what} {name[:32]!r}... is longer than {MAX_NAME_BYTES} bytes of UTF-8"
        raise ValueError(msg)


def check_public(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of channels, or raise ValueError for one of the library's own."""
    for name in names:
        if name.startswith(RESERVED):
            msg = f"channels that begin with {RESERVED!r} are the library's own: choose another name"
            raise ValueError(msg)
    return names


def check_type(event: str | None) -> None:
    """Accept the type of an event that an application publishes, or raise ValueError for one of the library's own."""
    if event is not None and event.startswith(RESERVED):
        msg = f"event types that begin with {RESERVED!r} are the library's own: choose another one"
        raise ValueError(msg)


def check_key(option: str, value: str | None) -> None:
    """Accept None, and any text that can be written.

    Raises:
        TypeError: It is no str.
        ValueError: It is not writable.
    """
    if value is None:
        return
    if not isinstance(value, str):
        msg = f"{option} must be a str, not {type(value).__name__}: give str(value)"
        raise TypeError(msg)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        msg = f"{option}={value!r} has a lone surrogate: remove or replace it"
        raise ValueError(msg) from error


def check_options(options: Options) -> Options:
    """Return the options, or raise ValueError for one that cannot be."""
    if options.overflow not in get_args(Overflow):
        msg = f"overflow={options.overflow!r} is none of {', '.join(get_args(Overflow))}"
        raise ValueError(msg)
    if options.buffer_size < 1 or options.buffer_bytes < 1:
        msg = f"buffer_size={options.buffer_size} and buffer_bytes={options.buffer_bytes} must be at least 1"
        raise ValueError(msg)
    check_seconds("ping_interval", options.ping_interval)
    check_rewind("rewind", options.rewind)
    if options.rewind and options.snapshot is not None:
        msg = "rewind and snapshot exclude each other: a snapshot stands for all events before it; choose one of them"
        raise ValueError(msg)
    check_identity(options.identity)
    if options.presence and options.identity is None:
        msg = "presence=True needs identity=, under which the reader is listed"
        raise ValueError(msg)
    return options


def check_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Accept the names of options that there are.

    Args:
        what: What has the options.
        given: The names to look at.
        known: Those that there are.

    Raises:
        TypeError: There is another one; the message names those that begin so or are near, or else all.
    """
    for name in given:
        if name not in known:
            longer = sorted(one for one in known if one.startswith(f"{name}_"))
            near = " or ".join(f"{one}=" for one in longer or difflib.get_close_matches(name, known, n=1))
            advice = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}"
            msg = f"{what} has no option {name}=: {advice}"
            raise TypeError(msg)


def check_seconds(name: str, value: float | None) -> float | None:
    """Return a number of seconds or None, or raise for another type, and for a number that is not above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        msg = f"{name} must be a number of seconds or None (got {value!r})"
        raise TypeError(msg)
    if value is not None and not value > 0:  # NaN is neither
        msg = f"{name}={value} must be above 0 seconds; None turns it off"
        raise ValueError(msg)
    return value


def check_rewind(name: str, value: float) -> float:
    """Return a number of events, which may be infinite.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or not whole.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number of events, or math.inf for all (got {value!r})"
        raise TypeError(msg)
    if not value >= 0 or (value != math.inf and value != int(value)):
        msg = f"{name} must be a whole number of events, at least 0, or math.inf for all (got {value!r})"
        raise ValueError(msg)
    return value


def seconds_or_never(name: str, value: float | None) -> float:
    """Return what check_seconds does, and infinity for None."""
    seconds = check_seconds(name, value)
    return math.inf if seconds is None else seconds


def check_callable(name: str, value: Any, *arguments: str) -> Any:
    """Return a function or None, or raise TypeError for anything else, such as the result of calling it.

    Args:
        name: Of the option.
        value: What was given.
        arguments: What it is called with; none where that is not looked at.
    """
    if value is not None and not callable(value):
        msg = f"{name} must be a function, not {type(value).__name__}: pass it without calling it"
        raise TypeError(msg)
    if value is not None and arguments and not _takes(value, arguments):
        msg = f"{name} must be a function of ({', '.join(arguments)}), in this order, and {value!r} is not"
        raise TypeError(msg)
    return value


def is_personal(snapshot: Snapshot | None) -> bool:
    """Tell whether a snapshot is made for one reader: called with its subscription.

    Raises:
        TypeError: It is no function of that, nor of nothing.
    """
    check_callable("snapshot", snapshot)
    if snapshot is None or _takes(snapshot, ()):
        return False
    check_callable("snapshot", snapshot, "subscription")
    return True


def _takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # of what is written in C nobody knows
        return True
    except TypeError:
        return False
    return True


def listed_channels(channels: tuple[str, ...], wanted: bool | str | Collection[str]) -> tuple[str, ...]:  # noqa: FBT001 - as subscribe has it
    """Return on which of its channels a reader is listed."""
    if isinstance(wanted, bool):
        return check_channels(channels) if wanted else ()
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name in names:
        if name not in channels:
            msg = f"presence={name!r} is none of the channels that are subscribed to"
            raise ValueError(msg)
    return names


def initial_events(values: Iterable[Any]) -> tuple[ServerSentEvent, ...]:
    """Check what a fresh stream begins with."""
    if isinstance(values, str | bytes | dict | ServerSentEvent) or not isinstance(values, Iterable):
        msg = f"initial must be a collection of events, as in initial=[...], not {type(values).__name__}"
        raise TypeError(msg)
    events = tuple(as_event(value) for value in values)
    if any(event.id is not None for event in events):
        msg = (
            "initial must be events without an id, because the ids of a stream are positions in the hub's log: "
            "to begin with the newest events of the log, as hub.history(...) returns them, give rewind=n instead"
        )
        raise ValueError(msg)
    return events
