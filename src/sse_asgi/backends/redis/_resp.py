"""Commands to bytes, and bytes to replies: RESP3, pushed in as it arrives.

https://redis.io/docs/latest/develop/reference/protocol-spec/

hiredis parses where it is installed. The parser below does the same in Python, and takes twice the time for a message.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

try:
    import hiredis
except ImportError:
    hiredis = None  # type: ignore[assignment]


class ReplyError(Exception):
    """An error reply of the server."""


class ProtocolError(Exception):
    """The bytes that arrived are not RESP."""


NOT_ENOUGH: Any = object()
Argument = bytes | str | int


def pack_slowly(arguments: tuple[Argument, ...]) -> bytes:
    """Write one command without hiredis."""
    parts = [b"*%d\r\n" % len(arguments)]
    for one in arguments:
        data = one if isinstance(one, bytes) else str(one).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Reader(Protocol):
    """A parser: bytes go in, replies come out."""

    def feed(self, data: bytes, /) -> Any:
        """Take bytes that have arrived."""

    def gets(self) -> Any:
        """Return the next reply, or NOT_ENOUGH. An error reply is returned, not raised."""


class Push(list[Any]):
    """A message that is not a reply."""


class _Incomplete(Exception):  # noqa: N818 - it is not an error
    pass


class Parser:
    """A reader without hiredis. An incomplete reply is read again from its beginning when more bytes have arrived."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._data = b""
        self._at = 0

    def feed(self, data: bytes, /) -> None:
        """Append the bytes, and drop those that were read."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def gets(self) -> Any:
        """Return the next reply, or NOT_ENOUGH."""
        start = self._at
        try:
            return self._value()
        except _Incomplete:
            self._at = start
            return NOT_ENOUGH
        except ValueError as error:
            raise ProtocolError(str(error)) from error

    def _value(self) -> Any:
        line = self._line()
        read = _READERS.get(line[:1])
        if read is None:
            msg = f"a reply must begin with its type (got {line[:20]!r})"
            raise ProtocolError(msg)
        return read(self, line[1:])

    def _line(self) -> bytes:
        end = self._data.find(b"\r\n", self._at)
        if end < 0:
            raise _Incomplete
        line, self._at = self._data[self._at : end], end + 2
        return line

    def blob(self, length: bytes) -> bytes | None:
        """Read a string of this length; a negative length is null."""
        start, end = self._at, self._at + int(length)
        if int(length) < 0:
            return None
        if len(self._data) < end + 2:
            raise _Incomplete
        self._at = end + 2
        return self._data[start:end]

    def items(self, length: bytes) -> list[Any] | None:
        """Read this number of values; a negative number is null."""
        return None if int(length) < 0 else [self._value() for _ in range(int(length))]

    def pairs(self, length: bytes) -> dict[Any, Any]:
        """Read this number of keys with their values."""
        return {self._value(): self._value() for _ in range(int(length))}


_READERS: dict[bytes, Callable[[Parser, bytes], Any]] = {
    b"+": lambda _, line: line,
    b"-": lambda _, line: ReplyError(line.decode(errors="replace")),
    b":": lambda _, line: int(line),
    b",": lambda _, line: float(line),
    b"#": lambda _, line: line == b"t",
    b"_": lambda *_: None,
    b"$": Parser.blob,
    b"=": lambda parser, line: (parser.blob(line) or b"")[4:],  # a verbatim string begins with its kind, as in "txt:"
    b"*": Parser.items,
    b"~": Parser.items,
    b">": lambda parser, line: Push(parser.items(line) or ()),
    b"%": Parser.pairs,
}

if hiredis is None:
    PUSH: type[list[Any]] = Push
    PIECE = sys.maxsize
    new_reader: Callable[[], Reader] = Parser
    pack: Callable[[tuple[Argument, ...]], bytes] = pack_slowly
else:
    PUSH = hiredis.PushNotification
    PIECE = 16_384  # hiredis moves its whole buffer after each kilobyte that it has read
    new_reader = partial(hiredis.Reader, protocolError=ProtocolError, replyError=ReplyError, notEnoughData=NOT_ENOUGH)
    pack = cast("Callable[[tuple[Argument, ...]], bytes]", hiredis.pack_command)
