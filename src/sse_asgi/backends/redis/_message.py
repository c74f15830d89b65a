r"""The wire form of events, in a stream and on a topic.

A payload is a line of JSON, empty for most events, then the event's frame as `encode` writes it, so that the bytes for
a reader need not be written again. A message is `<epoch> <sequence> <previous> <payload>`, where `previous` is the
sequence of its channel's event before. Without history a message is `- 0 0 <payload>`.

Every client that may write to this Redis can write anything here, so that every message is checked.
"""

import json
import re
from typing import Any

from ..._log.event import Entry, ReceivedEntry, ServerSentEvent
from ..._log.position import Position

PLAIN_EPOCH = b"-"
PLAIN = PLAIN_EPOCH + b" 0 0 "
RETURN, NEWLINE = b"\r\n"

# The header, then the fields in the order in which `encode` writes them, without an id. int() reads no more than 4300
# digits.
_PAYLOAD = re.compile(rb".*\n(?:: .*\n)*+(?:retry: [0-9]{1,4300}\n)?+(?:event: .+\n)?+(?:data: .*\n)++\n")


def payload(event: ServerSentEvent, channels: tuple[str, ...], key: str | None) -> bytes:
    """Return the payload of an event."""
    header: dict[str, Any] = {}
    if len(channels) > 1:
        header["c"] = channels
    if key is not None:
        header["k"] = key
    line = json.dumps(header, separators=(",", ":")).encode() if header else b""
    return b"%b\n%b" % (line, event.encode())


def entry(channels: tuple[str, ...], position: Position | None, first: bytes, data: bytes) -> Entry:
    """Make an entry of a payload.

    Args:
        channels: The channel that the payload was read from. A header may name several.
        position: The position of the event; None without history.
        first: The `id:` line, without its line end; empty without history.
        data: The payload.

    Raises:
        ValueError: The payload is not of this library.
    """
    # Most payloads are one line of data: this check does not depend on their length.
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
