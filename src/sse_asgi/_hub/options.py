"""The options of readers and responses, and the functions that check them."""

import difflib
import enum
import inspect
import math
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Final, Literal, NamedTuple, get_args

from .._log.event import ServerSentEvent, as_event
from .._log.names import END, RESERVED

MAX_NAME_BYTES = 512

Overflow = Literal["replay", "close", "drop_oldest", "latest"]
Transform = Callable[[ServerSentEvent, Any], Any]
Snapshot = Callable[..., Awaitable[Any]]


class NotGiven(enum.Enum):
    """The type of the default of an option whose value depends on other things."""

    NOT_GIVEN = "not given"

    def __repr__(self) -> str:
        """Show the name in signatures."""
        return self.name


NOT_GIVEN: Final = NotGiven.NOT_GIVEN


class Options(NamedTuple):
    """The checked options of a reader; see `Hub.subscribe`."""

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
    until: str | None = None

    @property
    def same_for_all(self) -> bool:
        """Whether the reader gets the same frames as all others, so that nothing has to look at each event.

        The end of a run is found by its feed.
        """
        return self.transform is None and self.until in (None, END)

    def for_reader(self, properties: Any, identity: str | None, presence: tuple[str, ...]) -> "Options":
        """Return these options for one reader; the same object if the reader has nothing of its own.

        Raises:
            TypeError: The identity is not a str.
            ValueError: The identity cannot be the name of a channel, or `presence` has no identity to list.
        """
        if identity is None:
            if presence:
                msg = "presence=True needs identity=, the name under which the reader is listed"
                raise ValueError(msg)
            return self if properties is None else self._replace(properties=properties)
        check_identity(identity)
        return self._replace(properties=properties, identity=identity, presence=presence)


def check_channels(names: Collection[str]) -> tuple[str, ...]:
    """Return the names, each once.

    Raises:
        TypeError: `names` is not a collection, or a name is not a str.
        ValueError: There is no name, or one that cannot be a channel.
    """
    if isinstance(names, bytes | bytearray) or not isinstance(names, Collection):
        msg = f"channels must be a str or a collection of str (got {type(names).__name__})"
        raise TypeError(msg)
    if not names:
        msg = "at least one channel is needed: give its name"
        raise ValueError(msg)
    return tuple(dict.fromkeys(check_channel(name) for name in names))


def check_channel(name: str) -> str:
    """Return the name of a channel, which is any str of 1 to 512 bytes without control characters.

    Raises:
        TypeError: The name is not a str.
        ValueError: The name is empty, too long, or not writable.
    """
    if not isinstance(name, str):
        msg = f"a channel must be a str (got {type(name).__name__}): subscribe('a', 'b') or publish(['a', 'b'], ...)"
        raise TypeError(msg)
    if not (name.isascii() and name.isprintable() and 0 < len(name) <= MAX_NAME_BYTES):
        _check_name("channel name", name)
    return name


def check_identity(identity: str | None) -> None:
    """Accept None, and a str that could be the name of a channel.

    Raises:
        TypeError: The identity is not a str.
        ValueError: The identity is empty, too long, or not writable.
    """
    if identity is None:
        return
    if not isinstance(identity, str):
        msg = f"identity must be a str, such as str(user.id) (got {type(identity).__name__})"
        raise TypeError(msg)
    _check_name("identity", identity)


def _check_name(what: str, name: str) -> None:
    if not name or any(char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in name):
        msg = f"the {what} {name!r} is empty, or has control characters or lone surrogates: choose another"
        raise ValueError(msg)
    if len(name.encode()) > MAX_NAME_BYTES:
        msg = f"the {what} {name[:32]!r}... is longer than {MAX_NAME_BYTES} bytes of UTF-8: choose a shorter one"
        raise ValueError(msg)


def check_public(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of channels, or raise ValueError for a name that the library keeps for itself."""
    for name in names:
        if name.startswith(RESERVED):
            msg = f"channels that begin with {RESERVED!r} are the library's own: choose another name"
            raise ValueError(msg)
    return names


def check_type(event: str | None) -> None:
    """Accept the type of an application's event, or raise ValueError for a type that the library keeps for itself."""
    if event is not None and event.startswith(RESERVED):
        msg = f"event types that begin with {RESERVED!r} are the library's own: choose another one"
        raise ValueError(msg)


def check_until(until: str | None) -> None:
    """Accept None, and the type that an application's event can have.

    Raises:
        TypeError: It is not a str.
        ValueError: No event that an application publishes has this type.
    """
    if until is None:
        return
    if not isinstance(until, str):
        msg = f"until must be the type of an event, as in until='done' (got {until!r}): give every ending one type"
        raise TypeError(msg)
    try:
        check_type(until)
        ServerSentEvent("", event=until)
    except ValueError as error:
        msg = f"until must be the type of an event that you publish (got {until!r}): {error}"
        raise ValueError(msg) from error


def check_key(option: str, value: str | None) -> None:
    """Accept None, and text that can be written as UTF-8.

    Raises:
        TypeError: The value is not a str.
        ValueError: The value has a lone surrogate.
    """
    if value is None:
        return
    if not isinstance(value, str):
        msg = f"{option} must be a str (got {type(value).__name__}): give str(value)"
        raise TypeError(msg)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        msg = f"{option}={value!r} has a lone surrogate: remove or replace it"
        raise ValueError(msg) from error


def check_options(options: Options) -> Options:
    """Return the options that readers share, or raise ValueError for a bad one."""
    if options.overflow not in get_args(Overflow):
        msg = f"overflow must be one of {', '.join(get_args(Overflow))} (got {options.overflow!r})"
        raise ValueError(msg)
    if options.buffer_size < 1 or options.buffer_bytes < 1:
        msg = f"buffer_size and buffer_bytes must be at least 1 (got {options.buffer_size} and {options.buffer_bytes})"
        raise ValueError(msg)
    check_seconds("ping_interval", options.ping_interval)
    check_rewind("rewind", options.rewind)
    check_until(options.until)
    if options.rewind and options.snapshot is not None:
        msg = "rewind and snapshot exclude each other: a snapshot replaces all events before it; choose one of them"
        raise ValueError(msg)
    return options


def check_known(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Accept names of existing options only.

    Args:
        what: The class or function that has the options, for the error.
        given: The names to check.
        known: The names of all options.

    Raises:
        TypeError: A name is not known; the message suggests similar names, or else lists all.
    """
    for name in given:
        if name not in known:
            longer = sorted(one for one in known if one.startswith(f"{name}_"))
            near = " or ".join(f"{one}=" for one in longer or difflib.get_close_matches(name, known, n=1))
            advice = f"did you mean {near}?" if near else f"known: {', '.join(sorted(known))}"
            msg = f"{what} has no option {name}=: {advice}"
            raise TypeError(msg)


def check_seconds(name: str, value: float | None) -> float | None:
    """Return a number of seconds above 0, or None.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is not above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        msg = f"{name} must be a number of seconds or None (got {value!r})"
        raise TypeError(msg)
    if value is not None and not value > 0:  # NaN is neither
        msg = f"{name} must be above 0 seconds (got {value}): None turns it off"
        raise ValueError(msg)
    return value


def check_rewind(name: str, value: float) -> float:
    """Return a number of events, which may be infinite.

    Raises:
        TypeError: The value is not a number.
        ValueError: The value is negative, or not whole.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{name} must be a number of events, or math.inf for all (got {value!r})"
        raise TypeError(msg)
    if not value >= 0 or (value != math.inf and value != int(value)):
        msg = f"{name} must be a whole number of events, at least 0, or math.inf for all (got {value!r})"
        raise ValueError(msg)
    return value


def seconds_or_never(name: str, value: float | None) -> float:
    """Check a number of seconds as check_seconds does, and return it, or infinity for None."""
    seconds = check_seconds(name, value)
    return math.inf if seconds is None else seconds


def check_drain_timeout(value: Any) -> float:
    """Return a finite number of seconds, which may be 0.

    Raises:
        ValueError: The value is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        msg = f"drain_timeout must be a finite number of seconds, at least 0 (got {value!r}): 0 ends streams at once"
        raise ValueError(msg)
    return float(value)


def check_callable(name: str, value: Any, *arguments: str) -> Any:
    """Return a function or None, or raise TypeError for anything else, such as the result of a call.

    Args:
        name: The option's name.
        value: The option's value.
        arguments: The names of the arguments that the function is called with; without names they are not checked.
    """
    if value is not None and not callable(value):
        msg = f"{name} must be a function (got {type(value).__name__}): pass the function without calling it"
        raise TypeError(msg)
    if value is not None and arguments and not _takes(value, arguments):
        msg = f"{name} must be a function of ({', '.join(arguments)}), in this order (got {value!r})"
        raise TypeError(msg)
    return value


def is_personal(snapshot: Snapshot | None) -> bool:
    """Return True if the snapshot function takes the reader's subscription as its argument.

    Raises:
        TypeError: It is not a function of one argument or of none.
    """
    check_callable("snapshot", snapshot)
    if snapshot is None or _takes(snapshot, ()):
        return False
    check_callable("snapshot", snapshot, "subscription")
    return True


def _takes(function: Callable[..., Any], arguments: tuple[str, ...]) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except ValueError:  # some functions written in C have no signature
        return True
    except TypeError:
        return False
    return True


def listed_channels(channels: tuple[str, ...], wanted: bool | str | Collection[str]) -> tuple[str, ...]:  # noqa: FBT001 - as subscribe has it
    """Return the channels on which a reader is listed.

    Raises:
        ValueError: The reader does not read one of the wanted channels.
    """
    if isinstance(wanted, bool):
        return check_channels(channels) if wanted else ()
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name in names:
        if name not in channels:
            msg = f"presence must name channels of the subscription (got {name!r}): subscribe to it as well"
            raise ValueError(msg)
    return names


def initial_events(values: Iterable[Any]) -> tuple[ServerSentEvent, ...]:
    """Return the values as the events that a fresh stream begins with.

    Raises:
        TypeError: `values` is not a collection of events.
        ValueError: An event has an id.
    """
    if isinstance(values, str | bytes | dict | ServerSentEvent) or not isinstance(values, Iterable):
        msg = f"initial must be a collection of events, as in initial=[...] (got {type(values).__name__})"
        raise TypeError(msg)
    events = tuple(as_event(value) for value in values)
    if any(event.id is not None for event in events):
        msg = (
            "initial must be events without an id, because the ids of a stream are positions in the hub's log: "
            "to begin with the newest events of the log, as hub.history(...) returns them, give rewind=n instead"
        )
        raise ValueError(msg)
    return events
