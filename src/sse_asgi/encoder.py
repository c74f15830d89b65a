"""Fields to the bytes of one frame.

Pure, and the inverse of the parser in the WHATWG standard:
https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""


def encode(
    data: str | bytes | None = None,
    *,
    event: str | None = None,
    id: str | None = None,  # noqa: A002 - the standard's name of the field
    retry: int | None = None,
    comment: str | None = None,
) -> bytes:
    r"""Write one frame that every conforming parser reads back as these fields.

    Line ends inside `data` (CR LF, CR or LF, nothing else) become LF for the reader.

    Args:
        data: The payload; bytes must be UTF-8. `""` is an event with empty data, None writes no data field.
        event: The type that `addEventListener` listens for; the browser's default is `message`.
        id: What the browser sends back as Last-Event-ID; `""` resets it.
        retry: Milliseconds that the browser waits before it reconnects.
        comment: Text that parsers skip; may have several lines.

    Returns:
        The frame as UTF-8, its lines ended by LF, closed by one blank line.

    Raises:
        ValueError: A value that cannot be written as it is, or no field at all.
        TypeError: A value of the wrong type.
    """
    plain = event is None and id is None and retry is None and comment is None
    head = "" if plain else _head(event, id, retry, comment)
    if type(data) is str and "\n" not in data and "\r" not in data:  # the same as _lines, without the call
        frame = f"{head}data: {data}\n\n"
    elif data is not None:
        frame = head + _lines("data", data) + "\n"
    elif head:
        frame = head + "\n"
    else:
        msg = "a frame needs at least one of data, event, id, retry, comment"
        raise ValueError(msg)
    try:
        return frame.encode()
    except UnicodeEncodeError as error:
        msg = f"a lone surrogate ({error.object[error.start]!r}) cannot be written as UTF-8: remove or replace it"
        raise ValueError(msg) from error


def _head(event: str | None, id: str | None, retry: int | None, comment: str | None) -> str:  # noqa: A002
    parts = []
    if comment is not None:
        parts.append(_lines("", _text("comment", comment)))
    if retry is not None:
        parts.append("retry: %d\n" % _retry(retry))  # noqa: UP031 - digits, whatever an enum makes of format()
    if id is not None:
        parts.append("id: " + _id(id) + "\n")
    if event is not None:
        parts.append("event: " + _event(event) + "\n")
    return "".join(parts)


def _lines(field: str, value: str | bytes) -> str:
    text = value if isinstance(value, str) else _decoded(value)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\n" in text:
        text = text.replace("\n", "\n" + field + ": ")
    return field + ": " + text + "\n"  # not an f-string: a str enum formats as its name


def _decoded(value: object) -> str:
    if not isinstance(value, bytes):
        msg = f"data must be str, bytes or None, not {type(value).__name__}: ServerSentEvent turns objects into JSON"
        raise TypeError(msg)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        msg = f"data must be UTF-8 text ({error.reason} at byte {error.start}): an event stream carries no binary, "
        raise ValueError(msg + "so encode it first, as base64 for example") from error


def _event(value: str) -> str:
    text = _single_line("event", value)
    if not text:
        msg = 'event must not be "": no listener would hear it; None is the default type, message'
        raise ValueError(msg)
    return text


def _id(value: str) -> str:
    text = _single_line("id", value)
    if "\0" in text:
        msg = "id must not contain NUL: parsers ignore such an id"
        raise ValueError(msg)
    # A browser sends the id back as a header, where outer white space is lost (RFC 9110, section 5.5).
    if text.strip(" \t") != text:
        msg = f"id must not begin or end with a space or tab, as {text!r} does: the browser would send it back without"
        raise ValueError(msg)
    return text


def _retry(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"retry must be an int, in milliseconds, not {type(value).__name__}"
        raise TypeError(msg)
    if value < 0:
        msg = f"retry must not be negative, as {value} is"
        raise ValueError(msg)
    return value


def _single_line(field: str, value: str) -> str:
    text = _text(field, value)
    if "\n" in text or "\r" in text:
        msg = f"{field} must not contain line ends, as {text!r} does"
        raise ValueError(msg)
    return text


def _text(field: str, value: str) -> str:
    if not isinstance(value, str):
        msg = f"{field} must be a str, not {type(value).__name__}"
        raise TypeError(msg)
    return value
