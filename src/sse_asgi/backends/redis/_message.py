r"""Events as they are kept in a stream and announced on a topic.

A payload is a line of JSON, empty for most events, then the event's frame as `encode` writes it, so that a reader's
bytes need not be written again. A message is `<epoch> <sequence> <previous> <payload>`, where previous is the sequence
that its channel had before; without history it is `- 0 0 <payload>`.

Anybody who may write to this Redis may write anything here, so everything is checked.
"""

import json
import re
from typing import Any

from ..._log.event import Entry, ReceivedEntry, ServerSentEvent
from ..._log.position import Position

PLAIN_EPOCH = b"-"
PLAIN = PLAIN_EPOCH + b" 0 0 "
RETURN, NEWLINE = b"\r\n"

# The header, then the fields in the order in which `encode` writes them; an id is never part of it. int() reads no
# more digits than these.
_PAYLOAD = re.compile(rb".*\n(?:: .*\n)*+(?:retry: [0-9]{1,4300}\n)?+(?:event: .+\n)?+(?:data: .*\n)++\n")


def payload(event: ServerSentEvent, channels: tuple[str, ...], key: str | None) -> bytes:
    """Write an event for whoever reads one of its channels."""
    header: dict[str, Any] = {}
    if len(channels) > 1:
        header["c"] = channels
    if key is not None:
        header["k"] = key
    line = json.dumps(header, separators=(",", ":")).encode() if header else b""
    return b"%b\n%b" % (line, event.encode())


def entry(channels: tuple[str, ...], position: Position | None, first: bytes, data: bytes) -> Entry:
    """Make a log's entry of a payload.

    Args:
        channels: The one that it was read from, unless the header names several.
        position: Its place; None without history.
        first: The line of its id, without its end; empty without history.
        data: The payload.

    Raises:
        ValueError: It is not one of ours.
    """
    # Most are one line of data: for them this takes as long however long it is.
    one_line = data[:7] == b"\ndata: " and data[-2:] == b"\n\n" and NEWLINE not in data[7:-2]
    if RETURN in data or not (one_line or _PAYLOAD.fullmatch(data)):
        raise ValueError
    if not data.isascii():
        data.decode()
    key = None
    if data[0] != NEWLINE:
        header, _, _ = data.partition(b"\n")
        channels, key = _read_header(header, channels)
        data = data[len(header) :]
    return ReceivedEntry(first + data if first else data[1:], position, channels, key)


def _read_header(header: bytes, channels: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    try:
        fields = json.loads(header)
    except RecursionError as error:
        raise ValueError from error
    names, key = (fields.get("c", channels), fields.get("k")) if isinstance(fields, dict) else ((), None)
    if not isinstance(names, list | tuple) or channels[0] not in names or not isinstance(key, str | None):
        raise ValueError
    if not all(isinstance(one, str) for one in names):
        raise ValueError
    return tuple(names), key
