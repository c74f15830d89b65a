"""A decoder for event streams, written from the standards alone, with which tests compare the library.

It takes the whole stream at once, follows the algorithms step by step in their own words, and shares no code with the
library.

- https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6
- https://encoding.spec.whatwg.org/#utf-8-decode
"""

from typing import NamedTuple

ASCII_DIGITS = "0123456789"
REPLACEMENT_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Dispatched(NamedTuple):
    """One event as a browser would dispatch it."""

    type: str
    data: str
    last_event_id: str


class Interpretation(NamedTuple):
    """The result of a whole stream."""

    events: list[Dispatched]
    last_event_id: str
    retry: int | None


def interpret(stream: bytes) -> Interpretation:
    """Decode, parse and interpret a whole stream."""
    interpreter = _Interpreter()
    for line in split_lines(utf8_decode(stream)):
        interpreter.process(line)
    # "Once the end of the file is reached, any pending data must be discarded."
    return Interpretation(interpreter.events, interpreter.last_event_id, interpreter.reconnection_time)


def split_lines(text: str) -> list[str]:
    """Return the lines that an end-of-line = ( cr lf / cr / lf ) closes; text after the last one is not a line yet."""
    lines = []
    line = ""
    index = 0
    while index < len(text):
        if text[index : index + 2] == "\r\n":
            lines.append(line)
            line = ""
            index += 2
        elif text[index] in "\r\n":
            lines.append(line)
            line = ""
            index += 1
        else:
            line += text[index]
            index += 1
    return lines


class _Interpreter:
    def __init__(self) -> None:
        self.events: list[Dispatched] = []
        self.last_event_id = ""
        self.reconnection_time: int | None = None
        self.data_buffer = ""
        self.event_type_buffer = ""
        self.last_event_id_buffer = ""

    def process(self, line: str) -> None:
        if line == "":  # "If the line is empty (a blank line): Dispatch the event"
            self.dispatch()
        elif line[0] == ":":  # "If the line starts with a U+003A COLON character (:): Ignore the line."
            pass
        elif ":" in line:  # "If the line contains a U+003A COLON character (:)"
            colon = line.index(":")
            field, value = line[:colon], line[colon + 1 :]
            if value[:1] == " ":  # "If value starts with a U+0020 SPACE character, remove it from value."
                value = value[1:]
            self.process_field(field, value)
        else:  # "using the whole line as the field name, and the empty string as the field value"
            self.process_field(line, "")

    def process_field(self, field: str, value: str) -> None:
        if field == "event":
            self.event_type_buffer = value
        elif field == "data":
            self.data_buffer += value
            self.data_buffer += "\n"
        elif field == "id":
            if "\0" not in value:
                self.last_event_id_buffer = value
        elif field == "retry" and value != "" and all(character in ASCII_DIGITS for character in value):
            self.reconnection_time = int(value)

    def dispatch(self) -> None:
        self.last_event_id = self.last_event_id_buffer
        if self.data_buffer == "":
            self.event_type_buffer = ""
            return
        data = self.data_buffer
        if data[-1] == "\n":
            data = data[:-1]
        self.events.append(Dispatched(self.event_type_buffer or "message", data, self.last_event_id))
        self.data_buffer = ""
        self.event_type_buffer = ""


def utf8_decode(stream: bytes) -> str:
    """Strip one leading byte order mark, then decode with U+FFFD in the place of each error."""
    if stream[:3] == b"\xef\xbb\xbf":
        stream = stream[3:]
    decoder = _Utf8Decoder()
    index = 0
    while index < len(stream):
        if decoder.handle(stream[index]):
            index += 1
    if decoder.needed:  # "If byte is end-of-queue and UTF-8 bytes needed is not 0 … return error."
        decoder.text += REPLACEMENT_CHARACTER
    return decoder.text


class _Utf8Decoder:
    """https://encoding.spec.whatwg.org/#utf-8-decoder."""

    def __init__(self) -> None:
        self.text = ""
        self.code_point = 0
        self.seen = 0
        self.needed = 0
        self.lower_boundary = 0x80
        self.upper_boundary = 0xBF

    def handle(self, byte: int) -> bool:
        """Handle a byte; False restores it to the queue, to be handled again."""
        if self.needed == 0:
            self.first(byte)
            return True
        if not self.lower_boundary <= byte <= self.upper_boundary:
            self.code_point = self.needed = self.seen = 0
            self.lower_boundary, self.upper_boundary = 0x80, 0xBF
            self.text += REPLACEMENT_CHARACTER
            return False
        self.lower_boundary, self.upper_boundary = 0x80, 0xBF
        self.code_point = (self.code_point << 6) | (byte & 0x3F)
        self.seen += 1
        if self.seen == self.needed:
            self.text += chr(self.code_point)
            self.code_point = self.needed = self.seen = 0
        return True

    def first(self, byte: int) -> None:
        if byte <= 0x7F:
            self.text += chr(byte)
        elif 0xC2 <= byte <= 0xDF:
            self.needed, self.code_point = 1, byte & 0x1F
        elif 0xE0 <= byte <= 0xEF:
            self.lower_boundary = 0xA0 if byte == 0xE0 else self.lower_boundary
            self.upper_boundary = 0x9F if byte == 0xED else self.upper_boundary
            self.needed, self.code_point = 2, byte & 0xF
        elif 0xF0 <= byte <= 0xF4:
            self.lower_boundary = 0x90 if byte == 0xF0 else self.lower_boundary
            self.upper_boundary = 0x8F if byte == 0xF4 else self.upper_boundary
            self.needed, self.code_point = 3, byte & 0x7
        else:
            self.text += REPLACEMENT_CHARACTER
