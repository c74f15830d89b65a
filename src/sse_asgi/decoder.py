"""Chunks of bytes to events, by the WHATWG algorithm.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

import codecs
import contextlib
from typing import NamedTuple


class DecodedEvent(NamedTuple):
    """One event as a browser would dispatch it; `id` is the last event id in force."""

    event: str
    data: str
    id: str


class EventDecoder:
    """Reads one event stream in chunks of any size.

    Attributes:
        last_event_id: What a browser would send as Last-Event-ID when it reconnects.
        retry: The last reconnection time received, in milliseconds, or None.
    """

    def __init__(self) -> None:
        """Begin at the first byte of a stream."""
        self.last_event_id: str = ""
        self.retry: int | None = None
        # "The UTF-8 decode algorithm strips one leading BOM if any" and replaces what is not UTF-8.
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._skip_lf = False
        self._partial_line: list[str] = []
        self._event = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> list[DecodedEvent]:
        """Return the events that this chunk completes.

        What is incomplete at the end of a stream is discarded, as the standard demands, by not feeding more.
        """
        *lines, rest = self._split(self._utf8.decode(chunk))
        events = []
        for tail in lines:
            line = "".join((*self._partial_line, tail))
            self._partial_line.clear()
            if line:
                self._field(line)
            elif event := self._dispatch():
                events.append(event)
        if rest:
            self._partial_line.append(rest)
        return events

    def _split(self, text: str) -> list[str]:
        """Split at CR LF, CR and LF; a CR at the end of a chunk ends its line at once."""
        if text and self._skip_lf:
            text = text.removeprefix("\n")
            self._skip_lf = False
        if text.endswith("\r"):
            self._skip_lf = True
        return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            with contextlib.suppress(ValueError):  # int() refuses thousands of digits
                self.retry = int(value)

    def _dispatch(self) -> DecodedEvent | None:
        self.last_event_id = self._id
        event, data = self._event or "message", self._data
        self._event, self._data = "", []
        return DecodedEvent(event, "\n".join(data), self._id) if data else None
