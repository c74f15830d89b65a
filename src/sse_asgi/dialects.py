"""Dialects: protocols on top of SSE, which say an error, an interruption and an end in words of their own.

A dialect frames, and ends a stream; it does not make the parts inside. An item is a JSON object: a mapping, a pydantic
model, a dataclass, or JSON text. Anything else is refused, so that the text of a user or of a model cannot become a
field, an event or an end. Errors are said in fixed words, never with details of an exception.
"""

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

from ._log.event import own_event, to_json
from .encoder import encode

FAILED = "The server failed while it wrote this answer."
INTERRUPTED = MappingProxyType(
    {
        "shutdown": "The server stopped before this answer was complete. Try again.",
        "lifetime": "This answer took longer than the server allows.",
        "revoked": "The permission to read this answer has ended.",
        "slow": "This answer was read too slowly.",
        "gap": "A part of this answer was lost. Try again.",
        "cancelled": "This answer was stopped.",
        "lost": "The server that wrote this answer has failed. Try again.",
        "refused": "The server has too many open streams. Try again later.",
    }
)
CUT_OFF = "This answer was interrupted. Try again."
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
DONE = encode("[DONE]")
WHITE_SPACE = " \t\r\n"  # of JSON
MAX_SHOWN = 50


class Dialect(Protocol):
    """How a protocol frames its items, and how it says that a stream failed, was interrupted or has ended."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the response, besides those of every event stream."""

    def item(self, value: Any) -> bytes:
        """Return the frame of one item.

        Args:
            value: What the content yielded, or the ServerSentEvent of a subscription, whose `id` goes into the frame.

        Raises:
            TypeError: The protocol cannot carry a value of this type.
            ValueError: The protocol cannot carry this value.
        """

    def failed(self, error: Exception) -> bytes:
        """Return what tells the client that the content raised; `end()` follows."""

    def interrupted(self, reason: str) -> bytes:
        """Return what tells the client that the stream was cut off; `end()` follows.

        Args:
            reason: `shutdown`, `lifetime`, `revoked`, `slow`, `refused` (by a limit), or `gap` (events were lost); for
                a run also `cancelled` or `lost` (its process has failed).
        """

    def end(self) -> bytes:
        """Return the last words of every stream; no bytes if the protocol has none."""


# The four


class _JSONDialect(ABC):
    """The words that a protocol of JSON objects has, given how it writes an error."""

    name: str
    headers = NO_HEADERS
    without_none = False
    needs_type = True

    def item(self, value: Any) -> bytes:
        text, fields, identity = _read(self.name, value, without_none=self.without_none)
        if self.needs_type:
            _type_of(self.name, fields)
        return encode(text, id=identity)

    def failed(self, error: Exception) -> bytes:  # noqa: ARG002 - its details are not for clients
        return self.error(FAILED)

    def interrupted(self, reason: str) -> bytes:
        return self.error(INTERRUPTED.get(reason, CUT_OFF))

    @abstractmethod
    def error(self, message: str) -> bytes:
        """Return an error with this message, for users."""

    def end(self) -> bytes:
        return b""


class _OpenAI(_JSONDialect):
    """`data: {...}` for each item, and `data: [DONE]` at the end."""

    name = "OPENAI"
    needs_type = False

    def error(self, message: str) -> bytes:
        return encode(to_json({"error": {"message": message, "type": "server_error", "param": None, "code": None}}))

    def end(self) -> bytes:
        return DONE


class _Anthropic(_JSONDialect):
    """`event:` with the item's `type`, and `data: {...}`; the last item says that the message is over."""

    name = "ANTHROPIC"

    def item(self, value: Any) -> bytes:
        text, fields, identity = _read(self.name, value, without_none=False)
        return encode(text, event=_type_of(self.name, fields), id=identity)

    def error(self, message: str) -> bytes:
        return self.item({"type": "error", "error": {"type": "api_error", "message": message}})


class _AISDK(_JSONDialect):
    """The AI SDK's UI messages: `data: {"type": ...}` for each part, and `data: [DONE]` at the end."""

    name = "AI_SDK"
    headers = MappingProxyType({"x-vercel-ai-ui-message-stream": "v1"})
    without_none = True  # its schema has optional fields, and none that are null

    def error(self, message: str) -> bytes:
        return encode(to_json({"type": "error", "errorText": message}))

    def end(self) -> bytes:
        return DONE


class _AGUI(_JSONDialect):
    """`data: {"type": ...}` for each event of AG-UI; the last item says that the run is over."""

    name = "AG_UI"
    without_none = True  # as its EventEncoder writes them

    def error(self, message: str) -> bytes:
        return encode(to_json({"type": "RUN_ERROR", "message": message}))


OPENAI: Dialect = _OpenAI()
"""Chat completions and responses of OpenAI, and of services like it; ends with `data: [DONE]`."""
ANTHROPIC: Dialect = _Anthropic()
"""Messages of Anthropic: the type of an item is the event's type."""
AI_SDK: Dialect = _AISDK()
"""UI messages of the AI SDK, with its header; ends with `data: [DONE]`."""
AG_UI: Dialect = _AGUI()
"""Events of AG-UI."""


# Items


class _Item(NamedTuple):
    """The JSON object that an item is: its text on one line, the object, and the event id that it came with."""

    text: str
    fields: Mapping[str, Any]
    id: str | None = None


def _read(name: str, value: Any, *, without_none: bool) -> _Item:
    """Return the JSON object that an item of a dialect is.

    Args:
        name: The dialect's.
        value: The item.
        without_none: Whether the fields of models and dataclasses that are None are left out.

    Raises:
        TypeError: A value of this type is not a JSON object.
        ValueError: It is text that is not the JSON of an object, or it cannot be written as JSON.
    """
    if type(value) is dict:
        return _Item(to_json(value), value)
    if isinstance(value, str | bytes):
        return _Item(*_checked(name, value))
    event = own_event(value)
    if event is not None:
        return _Item(*_checked(name, event.data), event.id)
    fields = dict(value) if isinstance(value, Mapping) else _fields_of_model(value, without_none=without_none)
    if not isinstance(fields, dict):
        _refuse(name, f"got {type(value).__name__}")
    return _Item(to_json(fields), fields)


def _fields_of_model(value: Any, *, without_none: bool) -> Any:
    """Return the fields of a pydantic model or a dataclass by their aliases; anything but a dict is none of these."""
    if isinstance(value, type) or not (dataclasses.is_dataclass(value) or hasattr(value, "__pydantic_serializer__")):
        return None
    try:
        from pydantic_core import to_jsonable_python  # noqa: PLC0415 - optional
    except ImportError:
        fields: Any = dataclasses.asdict(value)
    else:
        fields = to_jsonable_python(value, by_alias=True, exclude_none=without_none)
    if without_none and dataclasses.is_dataclass(value):  # for which pydantic has no exclude_none
        return {key: member for key, member in fields.items() if member is not None}
    return fields


def _type_of(name: str, fields: Mapping[str, Any]) -> str:
    kind = fields.get("type")
    if not isinstance(kind, str) or not kind:
        msg = f"an item of {name} must have a type that is a str (got {_shown(kind)}): add it to the object"
        raise ValueError(msg)
    return kind


def _refuse(name: str, got: str, error: Exception | None = None) -> NoReturn:
    msg = (
        f"an item of {name} must be a JSON object ({got}): yield a mapping, a pydantic model, a dataclass or the JSON "
        "text of an object, and put text into a field of it"
    )
    raise (TypeError if error is None else ValueError)(msg) from error


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= MAX_SHOWN else shown[:MAX_SHOWN] + "..."


# JSON text


def _not_json(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


_DECODER = json.JSONDecoder(parse_constant=_not_json)


def _checked(name: str, given: str | bytes | None) -> tuple[str, dict[str, Any]]:
    """Return JSON text of an object on one line, and the object.

    Raises:
        ValueError: It is not the JSON of an object.
    """
    try:
        text = (given.decode() if isinstance(given, bytes) else given or "").strip(WHITE_SPACE)
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        _refuse(name, f"got {_shown(given)}", error)
    if end != len(text) or type(value) is not dict:
        _refuse(name, f"got {_shown(given)}", ValueError("not one object"))
    # JSON has no line ends inside its strings, so that all of them are white space between its tokens.
    return (text.replace("\r", " ").replace("\n", " ") if "\n" in text or "\r" in text else text), value
