"""Framing: how the items of an iterable become the bytes of a stream, as events or as a stream that is passed on."""

import logging
from collections.abc import AsyncIterable, Iterable
from itertools import takewhile
from typing import Any, Protocol

from .._log.event import as_frame
from .._log.logged import about
from .._log.others import advice_on
from .._loop.running import LoopVar
from ..dialects import Dialect
from ..encoder import encode

logger = logging.getLogger("sse_asgi.stream")

MAX_FRAME_BYTES = 16 << 20
MAX_PLACES = 256
NO_EVENT = (b":", b"retry:")  # the lines of a block that dispatches none

_places: LoopVar[set[tuple[str, str]]] = LoopVar(set)


class Framing(Protocol):
    """Makes bytes of items."""

    def write(self, item: Any) -> bytes:
        """Return complete frames; no bytes if an item completes none."""

    def rest(self) -> bytes:
        """Return what is left when the last item was written."""


class EventFraming:
    """Writes events, and whatever an event takes as data."""

    def __init__(self, iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Write the items of this iterable, which is named where one of them looks like a mistake."""
        self._iterable = iterable

    def write(self, item: Any) -> bytes:
        """Return one frame."""
        if type(item) is str and "\n" not in item and "\r" not in item:  # a token; a call for each would be dear
            return f"data: {item}\n\n".encode() if item.isascii() else encode(item)
        if (advice := advice_on(item)) is not None:
            _warn_once(self._iterable, advice)
        return as_frame(item)

    def rest(self) -> bytes:
        """Return no bytes."""
        return b""


def _warn_once(iterable: object, advice: str) -> None:
    """Log the advice, once for each place of the code in this event loop."""
    places = _places.get()
    place = _place_of(iterable)
    if (place, advice) not in places and len(places) < MAX_PLACES:
        places.add((place, advice))
        logger.warning("%s: %s", place, advice, extra=about("item_suspicious"))


def _place_of(iterable: object) -> str:
    """Return the file and the line where a generator has yielded, or the type of another iterable."""
    for prefix in ("ag", "gi"):
        frame, code = getattr(iterable, f"{prefix}_frame", None), getattr(iterable, f"{prefix}_code", None)
        if code is not None:
            line = code.co_firstlineno if frame is None else frame.f_lineno
            return f"{code.co_filename}:{line} in {code.co_qualname}"
    return f"a {type(iterable).__module__}.{type(iterable).__qualname__} that is streamed"


class DialectFraming:
    """Writes the items of a dialect."""

    def __init__(self, dialect: Dialect) -> None:
        """Write as this dialect says."""
        self.write = dialect.item

    def rest(self) -> bytes:
        """Return no bytes: the dialect's end is said with the stream's last words."""
        return b""


class ChunkFraming:
    """Passes on a stream that was framed before, byte for byte, cut only where a frame ends.

    The bytes after the last complete frame wait for the rest of their frame. So the library's own words, which may be
    needed at any time, always stand between frames, and a frame that was never finished is not sent at all.
    """

    def __init__(self) -> None:
        """Begin between frames."""
        self._held: list[bytes] = []
        self._size = 0  # of what is held
        self._edge = b""  # its last bytes: enough to see a blank line that begins in one chunk and ends in the next

    def write(self, item: Any) -> bytes:
        """Return the frames that a chunk completes, with the bytes that were held for them.

        Raises:
            TypeError: The chunk is neither bytes nor str.
            ValueError: A frame is larger than 16 MiB.
        """
        if type(item) is bytes and not self._edge and item.endswith(b"\n\n"):  # most chunks of most upstreams
            return item
        if not isinstance(item, bytes | str):
            msg = (
                f"a chunk must be bytes or str with encoded=True (got {type(item).__name__}): yield bytes, as in "
                "event.encode(), or stream events without encoded=True"
            )
            raise TypeError(msg)
        chunk = item.encode() if isinstance(item, str) else item
        edge = self._edge
        data = edge + chunk
        end = end_of_blank_line(data)
        if end or not edge:
            end = end_of_comments(data, end)
        if not end:
            self._hold(chunk, data)
            return b""
        cut = end - len(edge)
        complete = b"".join((*self._held, chunk[:cut])) if self._held else chunk[:cut]
        self._held, self._size, self._edge = [], 0, b""
        if end < len(data):
            self._hold(chunk[cut:], chunk[cut:])
        return complete

    def _hold(self, chunk: bytes, data: bytes) -> None:
        self._held.append(chunk)
        self._size += len(chunk)
        self._edge = data[-2:]
        if self._size > MAX_FRAME_BYTES:
            msg = (
                f"a frame must be at most {MAX_FRAME_BYTES} bytes, and these have no blank line: is it an event stream?"
            )
            raise ValueError(msg)

    def rest(self) -> bytes:
        """Return the comments and the `retry:` that no blank line has followed.

        Raises:
            ValueError: The last frame is not finished.
        """
        left = b"".join(self._held)
        *lines, last = left.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if last or not all(line.startswith(NO_EVENT) for line in takewhile(bool, reversed(lines))):
            msg = f"the stream must end after a blank line (got {left[-64:]!r} at its end): the last frame was not sent"
            raise ValueError(msg)
        return left


class Frames:
    """Knows whether the content that has been sent ends with a complete frame; nothing may be sent inside one."""

    __slots__ = ("_encoded", "_tail", "complete")

    def __init__(self, *, encoded: bool) -> None:
        """Begin before the first byte; in an encoded content no frame can be seen."""
        self._encoded = encoded
        self._tail = b"\n\n"
        self.complete = not encoded

    def begin(self, body: bytes) -> None:
        """Note a body that is about to be sent."""
        self._tail = (self._tail + body)[-4:]
        self.complete = False

    def end(self) -> None:
        """Note that the body has been sent."""
        self.complete = not self._encoded and self._tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))


def end_of_blank_line(data: bytes) -> int:
    """Return where the last blank line ends; 0 if there is none, or if its end is not sure yet."""
    end = data.rfind(b"\n\n") + 2
    if end == 1:
        end = 0
    elif end == len(data):
        return end
    if b"\r" in data:
        # A CR at the very end after a LF is probably half of a CR LF.
        for pair, until in ((b"\r\r", len(data)), (b"\n\r", len(data) - data.endswith(b"\n\r"))):
            at = data.rfind(pair, 0, until)
            if at >= 0:
                after = at + len(pair)
                end = max(end, after + data.startswith(b"\n", after))
    return end


def end_of_comments(data: bytes, start: int) -> int:
    """Return where the comments and the blank lines end that begin at `start`, the beginning of a block."""
    while data.startswith((b":", b"\n"), start):
        after = data.find(b"\n", start) + 1
        if not after or b"\r" in data[start : after - 2]:
            break
        start = after
    return start
