r"""Events as they are kept in a stream and announced on a topic.

A payload is a line of JSON, empty for most events, then the event's frame as `encode` writes it, so that a reader's
bytes need not be written again. A message is `<epoch> <sequence> <previous> <payload>`, where previous is the sequence
that its channel had before; without history it is `- 0 0 <payload>`.

Anybody who may write to this Redis may write anything here, so everything is checked.
"""

import json
import re
from typing import Any

from ..._event import Entry, ServerSentEvent
from ..._position import Position

PLAIN_EPOCH = b"-"
PLAIN = PLAIN_EPOCH + b" 0 0 "
ONE_LINE = 2  # and the blank one

# The order in which `encode` writes the fields; an id is never part of it.
_FRAME = re.compile(
    rb"(?:: [^\r\n]*\n)*(?:retry: [0-9]{1,16}\n)?(?:event: [^\r\n]+\n)?(?:data: [^\r\n]*\n)+\n",
)


def payload(event: ServerSentEvent, channels: tuple[str, ...], key: str | None) -> bytes:
    """Write an event for whoever reads one of its channels."""
    header: dict[str, Any] = {}
    if len(channels) > 1:
        header["c"] = channels
    if key is not None:
        header["k"] = key
    line = json.dumps(header, separators=(",", ":")).encode() if header else b""
    return b"%b\n%b" % (line, event.encode())


def entry(channels: tuple[str, ...], position: Position | None, first: bytes, header: bytes, frame: bytes) -> Entry:
    """Make a log's entry of a payload's two parts.

    Args:
        channels: The one that it was read from, unless the header names several.
        position: Its place; None without history.
        first: The line of its id; empty without history.
        header: The line of JSON.
        frame: The event's own frame.

    Raises:
        ValueError: It is not one of ours.
    """
    # Most frames are one line: bytes.splitlines() knows the same line ends as the standard.
    one_line = frame.startswith(b"data: ") and frame.endswith(b"\n\n") and len(frame.splitlines()) == ONE_LINE
    if not one_line and not _FRAME.fullmatch(frame):
        raise ValueError
    if not frame.isascii():
        frame.decode()
    key = None
    if header:
        channels, key = _read_header(header, channels)
    return Entry(ServerSentEvent.from_frame(frame), position, channels, key, first + frame)


def _read_header(header: bytes, channels: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    fields = json.loads(header)
    names, key = (fields.get("c", channels), fields.get("k")) if isinstance(fields, dict) else ((), None)
    if not isinstance(names, list | tuple) or channels[0] not in names or not isinstance(key, str | None):
        raise ValueError
    if not all(isinstance(one, str) for one in names):
        raise ValueError
    return tuple(names), key
