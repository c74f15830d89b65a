"""Events as other libraries write them: their frames, and their classes of events, which are not imported.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import json
from collections.abc import Mapping
from typing import Any

FASTAPI = "fastapi.sse.ServerSentEvent"
SSE_STARLETTE = "sse_starlette.event.ServerSentEvent"
FIELDS = frozenset({"data", "event", "id", "retry", "comment"})
FIRST_WORDS = ("data:", "event:", "id:", "retry:", ":")
LAST_CHARACTERS = ("\n\n", "\n\r\n", "\r\r")
# No event of another library, and nearly everything that is published or yielded.
PLAIN = frozenset({dict, list, tuple, str, bytes, int, float, bool, type(None)})


def fields_of_event(value: object) -> dict[str, Any] | None:
    """Return the fields of another library's event, as ServerSentEvent takes them; None if it is not one."""
    if type(value) in PLAIN:
        return None
    names = _names(type(value))
    if FASTAPI in names:
        return _common_fields(value) | {"data": _fastapi_data(value)}
    if SSE_STARLETTE in names:
        data = value.data  # type: ignore[attr-defined]
        return _common_fields(value) | {"data": data if data is None else str(data)}
    return None


def is_event_class(kind: type) -> bool:
    """Return True for another library's class of events."""
    return not _names(kind).isdisjoint({FASTAPI, SSE_STARLETTE})


def _names(kind: type) -> set[str]:
    return {f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__}


def _common_fields(value: Any) -> dict[str, Any]:
    return {"event": value.event, "id": value.id, "retry": value.retry, "comment": value.comment}


def _fastapi_data(value: Any) -> Any:
    """Return `raw_data` as it is, or `data`, which FastAPI always writes as JSON, text included."""
    if value.raw_data is not None or value.data is None:
        return value.raw_data
    data = value.data.decode() if isinstance(value.data, bytes) else value.data
    return json.dumps(data, ensure_ascii=False) if isinstance(data, str) else data


def fields_of_frame(frame: str | bytes) -> dict[str, Any]:
    """Return the fields of one frame, as ServerSentEvent takes them.

    Raises:
        TypeError: It is neither str nor bytes.
        ValueError: It is not exactly one frame of UTF-8 that ends in one blank line.
    """
    if not isinstance(frame, str | bytes):
        msg = f"a frame must be str or bytes (got {type(frame).__name__})"
        raise TypeError(msg)
    text = (frame if isinstance(frame, str) else _decoded(frame)).removeprefix("\ufeff")
    *lines, blank, rest = ["", *text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if blank or rest or "" in lines[1:] or not lines[1:]:
        msg = f"a frame must be one event that ends in one blank line (got {frame[:64]!r}): parse one frame at a time"
        raise ValueError(msg)
    return _read(lines[1:])


def _decoded(frame: bytes) -> str:
    try:
        return frame.decode()
    except UnicodeDecodeError as error:
        msg = f"a frame must be UTF-8 ({error.reason} at byte {error.start})"
        raise ValueError(msg) from error


def _read(lines: list[str]) -> dict[str, Any]:
    """Read lines as the standard says; a field that it ignores is left out, and the last of several ones counts."""
    values: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        values.setdefault(name, []).append(value.removeprefix(" "))
    fields: dict[str, Any] = {
        "data": "\n".join(values["data"]) if "data" in values else None,
        "event": values.get("event", [""])[-1] or None,
        "id": next((value for value in reversed(values.get("id", [])) if "\0" not in value), None),
        "retry": next((int(value) for value in reversed(values.get("retry", [])) if _is_number(value)), None),
        "comment": "\n".join(values[""]) if "" in values else None,
    }
    if all(value is None for value in fields.values()):
        msg = f"a frame must have a field of the standard or a comment (got {lines[0]!r})"
        raise ValueError(msg)
    return fields


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19  # noqa: PLR2004 - int() refuses thousands of digits


def advice_on(value: object) -> str | None:
    """Return what to do where data look as if they were meant to be an event; None if they do not."""
    if isinstance(value, Mapping):
        if "data" in value and FIELDS.issuperset(value):
            return (
                "a mapping of an event's fields is sent as JSON data: yield ServerSentEvent(...) with these fields, or "
                "ServerSentEvent(mapping) if JSON is meant"
            )
        return None
    text = value if isinstance(value, str) else value.decode(errors="replace") if isinstance(value, bytes) else ""
    if text.startswith(FIRST_WORDS) and text.endswith(LAST_CHARACTERS):
        return (
            "text that looks like a frame is sent as data, inside another frame: yield ServerSentEvent(...), or "
            "ServerSentEvent.parse(frame) for another library's frame, or stream all of them with encoded=True"
        )
    return None
