"""Events, as an application writes them and as a log keeps them."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

from ..encoder import encode
from .others import fields_of_event, fields_of_frame
from .position import Position


class ServerSentEvent:
    """One event, immutable, and valid because its frame exists.

    Attributes:
        data: The payload as text, or None.
        event: The type, or None for the browser's default, `message`.
        id: The event id, or None.
        retry: Milliseconds, or None.
        comment: Text that parsers skip, or None.
        channels: The reader's channels that the event was published to; empty for an event not read from a
            subscription.
    """

    __slots__ = ("_frame", "channels", "comment", "data", "event", "id", "retry")

    data: str | None
    event: str | None
    id: str | None
    retry: int | None
    comment: str | None
    channels: tuple[str, ...]
    _frame: bytes

    def __init__(
        self,
        data: Any = None,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the standard's name of the field
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        """Turn the data into text and check every field.

        Args:
            data: A str is used as it is, bytes as UTF-8 text, None writes no data field, anything else becomes compact
                JSON. With pydantic installed, models, dataclasses, datetime, UUID and every type that pydantic
                serialises are allowed.
            event: The event's type.
            id: The event id.
            retry: The browser's reconnection time, in milliseconds.
            comment: Text that parsers skip.

        Raises:
            ValueError: A value cannot be written, the data has NaN, or there is no field at all.
            TypeError: A value has the wrong type, or the data is not serialisable.
        """
        text = data if data is None or isinstance(data, str | bytes) else to_json(data)
        frame = encode(text, event=event, id=id, retry=retry, comment=comment)
        _set_frame(self, frame)
        _set_data(self, text.decode() if isinstance(text, bytes) else text)
        _set_event(self, event)
        _set_id(self, id)
        _set_retry(self, retry)
        _set_comment(self, comment)
        _set_channels(self, ())

    @classmethod
    def parse(cls, frame: str | bytes) -> Self:
        """Read one frame, as any library writes it; for instance to publish it.

        Args:
            frame: Its text, or its bytes, with the blank line that ends it. Fields that the standard does not know are
                left out.

        Raises:
            ValueError: It is not exactly one frame, or one that cannot be written again.
            TypeError: It is neither str nor bytes.
        """
        return cls(**fields_of_frame(frame))

    @classmethod
    def from_frame(cls, frame: bytes) -> Self:
        """Return an event for a frame without an id, written by `encode`."""
        event = object.__new__(cls)
        _set_frame(event, frame)
        return event

    if not TYPE_CHECKING:  # mypy would accept every attribute  # pragma: no branch - always true at run time

        def __getattr__(self, name: str) -> object:
            """Read the fields that are not set yet from the frame."""
            if name not in _FIELDS:
                msg = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(msg)
            for field, value in _read_frame(self._frame).items():
                object.__setattr__(self, field, value)
            return getattr(self, name)

    def encode(self) -> bytes:
        """Return the frame, the bytes of this event on the wire."""
        return self._frame

    def __setattr__(self, name: str, value: object) -> NoReturn:
        """Raise AttributeError: many readers may share an event."""
        msg = "a ServerSentEvent is immutable: make a new one"
        raise AttributeError(msg)

    def __delattr__(self, name: str) -> NoReturn:
        """Raise AttributeError."""
        self.__setattr__(name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the fields."""
        return _rebuild, (self._fields(), self.channels)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _FIELDS[:-1]}

    def __eq__(self, other: object) -> bool:
        """Compare the frames."""
        return self._frame == other._frame if isinstance(other, ServerSentEvent) else NotImplemented

    def __hash__(self) -> int:
        """Hash the frame."""
        return hash(self._frame)

    def __repr__(self) -> str:
        """Show the fields that are set."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self._fields().items() if value is not None)
        return f"ServerSentEvent({shown})"


# Every publish makes an event; these setters cost a third of a loop of object.__setattr__.
_set_frame, _set_channels, _set_comment, _set_data, _set_event, _set_id, _set_retry = (
    getattr(ServerSentEvent, slot).__set__ for slot in ServerSentEvent.__slots__
)
_FIELDS = ("data", "event", "id", "retry", "comment", "channels")


def _read_frame(frame: bytes) -> dict[str, Any]:
    lines: dict[str, list[str]] = {}
    for line in frame.decode().split("\n")[:-2]:
        name, _, value = line.partition(": ")
        lines.setdefault(name, []).append(value)
    texts = {name: "\n".join(values) for name, values in lines.items()}
    retry = int(texts["retry"]) if "retry" in texts else None
    return {
        "data": texts.get("data"),
        "event": texts.get("event"),
        "id": None,
        "retry": retry,
        "comment": texts.get(""),
        "channels": (),
    }


def _rebuild(fields: dict[str, Any], channels: tuple[str, ...]) -> ServerSentEvent:
    event = ServerSentEvent(**fields)
    _set_channels(event, channels)
    return event


def own_event(value: Any) -> ServerSentEvent | None:
    """Return an event as it is, one of FastAPI or sse-starlette as an event of ours, and None for anything else."""
    if isinstance(value, ServerSentEvent):
        return value
    fields = fields_of_event(value)
    return None if fields is None else ServerSentEvent(**fields)


def as_event(value: Any) -> ServerSentEvent:
    """Return an event as it is, also one of FastAPI or sse-starlette, and anything else as the data of a new one."""
    event = own_event(value)
    return ServerSentEvent(value) if event is None else event


def as_frame(value: Any) -> bytes:
    """Return the frame of as_event(value), without making an event for plain text."""
    return encode(value) if isinstance(value, str | bytes) else as_event(value).encode()


def to_json(value: object) -> str:
    """Return compact JSON, the form of every payload that is not text.

    Raises:
        ValueError: The value has a NaN or an infinity.
        TypeError: The value cannot be written as JSON.
    """
    try:
        return _JSON.encode(value)
    except TypeError as error:
        if not str(error).startswith("keys must be "):
            raise
    except ValueError as error:
        if not str(error).startswith("Out of range float"):
            raise
        msg = "NaN and infinities in data are not JSON compliant: put None in their place, which becomes null"
        raise ValueError(msg) from error
    return to_json(_with_json_keys(value))


def _with_json_keys(value: Any) -> Any:
    """Convert keys that json.dumps refuses (UUID, date, Enum, Decimal) to text, as pydantic does."""
    if isinstance(value, dict):
        return {_json_key(key): _with_json_keys(member) for key, member in value.items()}
    return [_with_json_keys(member) for member in value] if isinstance(value, list | tuple) else value


def _json_key(key: Any) -> Any:
    if key is None or isinstance(key, str | int | float):
        return key
    return next(iter(_jsonable({key: None}, f"a key of type {type(key).__name__}")))


def _serialisable(value: object) -> object:
    return _jsonable(value, f"data of type {type(value).__name__}")


def _jsonable(value: object, what: str) -> Any:
    """Convert a value to types that json.dumps writes.

    Raises:
        TypeError: pydantic is not installed, or cannot convert the value.
    """
    try:
        from pydantic_core import PydanticSerializationError, to_jsonable_python  # noqa: PLC0415 - optional
    except ImportError:
        msg = f"{what} cannot be written as JSON: install pydantic, or convert it, for instance by str()"
        raise TypeError(msg) from None
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, TypeError) as error:
        msg = f"{what} cannot be written as JSON: pydantic says: {error}; convert it, for instance by str()"
        raise TypeError(msg) from error


_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_serialisable)


class RenderedEvent(NamedTuple):
    """An event whose data is made for each reader, by calling `render` with the reader's properties.

    A function cannot leave its process, so only the memory backend accepts one.
    """

    render: Callable[[Any], Any]
    event: str | None
    retry: int | None

    def render_for(self, properties: Any) -> ServerSentEvent | None:
        """Return this reader's event, or None if the function returns a falsy value."""
        data = self.render(properties)
        return ServerSentEvent(data, event=self.event, retry=self.retry) if data else None

    def encode(self) -> bytes:
        """Return no bytes, because each reader gets its own."""
        return b""


def as_published(data: Any, event: str | None, retry: int | None) -> ServerSentEvent | RenderedEvent:
    """Return the event to publish: `data` if it is an event, else an event with this data, which may be a function.

    Raises:
        ValueError: There is no data, so that no browser would see the event, or an id, which only the log assigns.
        TypeError: The data is not serialisable.
    """
    if type(data) is str and "\r" not in data:  # nearly every event; its other fields are read from the frame if needed
        made = object.__new__(ServerSentEvent)
        _set_frame(made, encode(data, event=event, retry=retry))
        _set_data(made, data)
        _set_event(made, event)
        return made
    if (given := own_event(data)) is not None:
        return _unchanged(given, event, retry)
    if data is None:
        msg = 'an event without data is ignored by browsers: publish "" for an empty event'
        raise ValueError(msg)
    if not callable(data):
        return ServerSentEvent(data, event=event, retry=retry)
    ServerSentEvent("", event=event, retry=retry)
    return RenderedEvent(data, event, retry)


def _unchanged(data: ServerSentEvent, event: str | None, retry: int | None) -> ServerSentEvent:
    if event is not None or retry is not None:
        msg = "give event and retry to the ServerSentEvent, not to publish"
        raise ValueError(msg)
    if data.id is not None or data.data is None:
        msg = f"{data!r} cannot be published: it needs data, and no id, because ids are positions in the hub's log"
        raise ValueError(msg)
    return data


POSITION_EVENT = "sse.position"
# Many clients take an id only from an event with data, and browsers do not dispatch an event whose data is empty.
_POSITION_BODY = encode("{}", event=POSITION_EVENT)


class Entry:
    """One line of a log: an event at a position.

    Attributes:
        event: The published event. None is a position that a reader is shown, and the frame is an `sse.position`.
        position: The place in the log; None where no history is kept.
        channels: The channels that the event was published to.
        key: Names the value that the event updates, for subscriptions with `overflow="latest"`.
        frame: The bytes of the event with its id, written once for all readers; empty if each reader gets its own.
    """

    __slots__ = ("_seen", "channels", "event", "frame", "key", "position")

    def __init__(
        self,
        event: ServerSentEvent | RenderedEvent | None,
        position: Position | None = None,
        channels: tuple[str, ...] = (),
        key: str | None = None,
    ) -> None:
        """Store an event with its place, and write its frame."""
        self.event: ServerSentEvent | RenderedEvent | None = event
        self.position: Position | None = position
        self.channels: tuple[str, ...] = channels
        self.key: str | None = key
        body = _POSITION_BODY if event is None else event.encode()
        self.frame: bytes = b"id: %b\n%b" % (str(position).encode(), body) if body and position is not None else body
        self._seen: ServerSentEvent | None = None

    def seen_as(self, frame: bytes) -> "Entry":
        """Return an entry at this position with the bytes for one reader."""
        entry = Entry(None, self.position)
        entry.frame = frame
        return entry

    def for_reader(self, event: ServerSentEvent, channels: Sequence[str]) -> ServerSentEvent:
        """Return an event as a reader of these channels sees it: with its id and the matching channels.

        All readers of one channel share one object.
        """
        if self._seen is not None and event is self.event:
            return self._seen
        identity = event.id if self.position is None else str(self.position)
        seen = _rebuild({**event._fields(), "id": identity}, ())
        matched = self.channels
        if len(matched) > 1:
            matched = tuple(name for name in matched if name in channels)
        _set_channels(seen, matched)
        if event is self.event and matched is self.channels:
            self._seen = seen
        return seen


class ReceivedEntry(Entry):
    """An entry that a backend received as a frame. Its event is made at the first access, which is rare."""

    __slots__ = ()

    def __init__(self, frame: bytes, position: Position | None, channels: tuple[str, ...], key: str | None) -> None:
        """Store the fields."""
        self.frame = frame
        self.position = position
        self.channels = channels
        self.key = key
        self._seen = None

    def __getattr__(self, name: str) -> ServerSentEvent:
        """Make the event, whose own frame has no id."""
        if name != "event":
            raise AttributeError(name)
        frame = self.frame if self.position is None else self.frame.partition(b"\n")[2]
        self.event = ServerSentEvent.from_frame(frame)
        return self.event


FOREIGN = ("epoch", "fork")


class History(NamedTuple):
    """One page of a log.

    Attributes:
        entries: The entries in the order of their positions.
        next: The position after which the next page begins; None if this page reached the requested end.
        reason: The reason why events after the requested position are missing: `trimmed`, `expired`, `epoch`, `fork` or
            `evicted`. None if no event is missing.
        lost: The last missing sequence, so that a loss over several pages is announced once. Always set for `trimmed`,
            `expired` and `evicted`; set for the other reasons, and for a request from the beginning, if it is known.
    """

    entries: Sequence[Entry]
    next: Position | None = None
    reason: str | None = None
    lost: int = 0

    def announced(self, told: int | None) -> str | None:
        """Return the reason if the loss is later than `told`, the last loss that the reader knows; None hides all."""
        return self.reason if self.foreign or (told is not None and self.lost > told) else None

    @property
    def foreign(self) -> bool:
        """Whether the requested position does not belong to this log."""
        return self.reason is not None and (self.reason in FOREIGN or not self.lost)
