"""encode(): the bytes of one frame, refused values, and the fields that parsers read back."""

import enum
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import given
from hypothesis import strategies as st

from oracle import Dispatched, Interpretation, interpret
from sse_asgi.encoder import encode
from strategies import PATIENT, fields, texts

CASES: list[tuple[dict[str, Any], bytes]] = [
    ({"data": "hello"}, b"data: hello\n\n"),
    ({"data": ""}, b"data: \n\n"),
    ({"data": b""}, b"data: \n\n"),
    ({"data": b"bytes"}, b"data: bytes\n\n"),
    ({"data": "one\ntwo"}, b"data: one\ndata: two\n\n"),
    ({"data": "one\rtwo"}, b"data: one\ndata: two\n\n"),
    ({"data": "one\r\ntwo"}, b"data: one\ndata: two\n\n"),
    ({"data": "one\n\rtwo"}, b"data: one\ndata: \ndata: two\n\n"),
    ({"data": b"one\r\ntwo\rthree\nfour"}, b"data: one\ndata: two\ndata: three\ndata: four\n\n"),
    ({"data": "\n"}, b"data: \ndata: \n\n"),
    ({"data": "\r\n\r\n"}, b"data: \ndata: \ndata: \n\n"),
    ({"data": "end\n"}, b"data: end\ndata: \n\n"),
    ({"data": " two  spaces "}, b"data:  two  spaces \n\n"),
    ({"data": "data: x"}, b"data: data: x\n\n"),
    ({"data": "\0"}, b"data: \0\n\n"),
    ({"data": "h\N{LATIN SMALL LETTER E WITH ACUTE}\U0001f600"}, b"data: h\xc3\xa9\xf0\x9f\x98\x80\n\n"),
    ({"data": "x", "event": "chat"}, b"event: chat\ndata: x\n\n"),
    ({"data": "x", "event": " a:b "}, b"event:  a:b \ndata: x\n\n"),
    ({"data": "x", "id": "7"}, b"id: 7\ndata: x\n\n"),
    ({"data": "x", "id": "a b\tc:d"}, b"id: a b\tc:d\ndata: x\n\n"),
    ({"data": "x", "id": ""}, b"id: \ndata: x\n\n"),
    ({"data": "x", "retry": 0}, b"retry: 0\ndata: x\n\n"),
    ({"data": "x", "retry": 1500}, b"retry: 1500\ndata: x\n\n"),
    ({"data": "x", "comment": "why"}, b": why\ndata: x\n\n"),
    ({"event": "chat"}, b"event: chat\n\n"),
    ({"id": "7"}, b"id: 7\n\n"),
    ({"retry": 3000}, b"retry: 3000\n\n"),
    ({"comment": ""}, b": \n\n"),
    ({"comment": "a\nb\rc\r\nd"}, b": a\n: b\n: c\n: d\n\n"),
    ({"comment": "\ndata: x\n\n"}, b": \n: data: x\n: \n: \n\n"),
    (
        {"data": "a\nb", "event": "chat", "id": "7", "retry": 1, "comment": "c\nd"},
        b": c\n: d\nretry: 1\nid: 7\nevent: chat\ndata: a\ndata: b\n\n",
    ),
]


@pytest.mark.parametrize(("given_fields", "frame"), CASES)
def test_fields_are_written_as_exactly_these_bytes(given_fields: dict[str, Any], frame: bytes) -> None:
    """Each field is one line, data and comments one for each of their lines; a blank line ends the frame."""
    assert encode(**given_fields) == frame


@pytest.mark.parametrize("field", ["data", "event", "id", "comment"])
@pytest.mark.parametrize("character", ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_nothing_but_cr_and_lf_ends_a_line(field: str, character: str) -> None:
    """Other characters that str.splitlines splits at are part of the value."""
    name = "" if field == "comment" else field
    assert encode(**{field: f"a{character}b"}) == f"{name}: a{character}b\n\n".encode()  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\r\nb", "\n", "a\r", "\nb"])
def test_line_ends_in_event_and_id_are_refused(field: str, value: str) -> None:
    """A CR or LF in event or id is a ValueError that names the field."""
    with pytest.raises(ValueError, match=f"{field} must not contain line ends"):
        encode("x", **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["\0", "a\0b", "a\0"])
def test_nul_in_an_id_is_refused(value: str) -> None:
    """An id with NUL is a ValueError, because parsers ignore it."""
    with pytest.raises(ValueError, match="NUL"):
        encode("x", id=value)


@pytest.mark.parametrize("value", [" 7", "7 ", "\t7", "7\t", " "])
def test_outer_spaces_in_an_id_are_refused(value: str) -> None:
    """An id with outer spaces is a ValueError, because a browser would send it back without them."""
    with pytest.raises(ValueError, match="space or tab"):
        encode("x", id=value)


def test_an_empty_event_is_refused() -> None:
    """The type "" is a ValueError, because no listener would hear it."""
    with pytest.raises(ValueError, match='event must not be ""'):
        encode("x", event="")


def test_a_negative_retry_is_refused() -> None:
    """A negative retry is a ValueError."""
    with pytest.raises(ValueError, match="must not be negative, as -1 is"):
        encode("x", retry=-1)


@pytest.mark.parametrize("value", [True, False, 1.0, "1"])
def test_a_retry_that_is_not_an_int_is_refused(value: Any) -> None:
    """A bool, a float or a str as retry is a TypeError that names its type."""
    with pytest.raises(TypeError, match=f"retry must be an int, in milliseconds, not {type(value).__name__}"):
        encode("x", retry=value)


@pytest.mark.parametrize("field", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [7, b"7", True, ["7"]])
def test_an_event_id_or_comment_that_is_not_a_str_is_refused(field: str, value: Any) -> None:
    """An event, id or comment that is not a str is a TypeError that names the field and the type."""
    with pytest.raises(TypeError, match=f"{field} must be a str, not {type(value).__name__}"):
        encode("x", **{field: value})


@pytest.mark.parametrize("value", [7, {"a": 1}, ["a"], bytearray(b"a"), memoryview(b"a")])
def test_data_that_is_not_text_is_refused(value: Any) -> None:
    """Data that is neither str nor bytes is a TypeError that names the class for objects."""
    with pytest.raises(TypeError, match=f"not {type(value).__name__}: ServerSentEvent turns objects into JSON"):
        encode(value)


@pytest.mark.parametrize("value", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_bytes_that_are_not_utf_8_are_refused(value: bytes) -> None:
    """Binary data is a ValueError that says to encode it."""
    with pytest.raises(ValueError, match=r"must be UTF-8 text.*base64"):
        encode(value)


@pytest.mark.parametrize("field", ["data", "event", "id", "comment"])
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_lone_surrogates_are_refused_in_every_field(field: str, value: str) -> None:
    """Text that UTF-8 cannot encode is a ValueError; it is not replaced."""
    with pytest.raises(ValueError, match="lone surrogate"):
        encode(**{field: value})  # type: ignore[arg-type]


def test_a_frame_without_any_field_is_refused() -> None:
    """A call without fields is a ValueError that names them."""
    with pytest.raises(ValueError, match="at least one of data, event, id, retry, comment"):
        encode()


class _Kind(str, enum.Enum):  # noqa: UP042 - a StrEnum formats as its value; this formats as its name
    CHAT = "chat"


class _Delay(int, enum.Enum):
    SHORT = 5


@pytest.mark.parametrize("field", ["data", "event", "id"])
def test_a_member_of_a_str_enum_is_written_as_its_text(field: str) -> None:
    """The text is the str itself, although format() of its class returns the name."""
    assert encode(**{field: _Kind.CHAT}) == f"{field}: chat\n\n".encode()  # type: ignore[arg-type]


def test_a_member_of_an_int_enum_is_written_as_its_number() -> None:
    """The text is the int's digits, although format() of its class may return the name."""
    assert encode(retry=_Delay.SHORT) == b"retry: 5\n\n"


# Parsers


def read_back(given_fields: dict[str, Any]) -> Interpretation:
    """Return the events, id and retry that a reader of these fields must get."""
    data, id_ = given_fields.get("data"), given_fields.get("id") or ""
    if isinstance(data, bytes):
        data = data.decode()
    events = [] if data is None else [Dispatched(given_fields.get("event") or "message", with_lf(data), id_)]
    return Interpretation(events, id_, given_fields.get("retry"))


def with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@PATIENT
@given(fields())
def test_a_parser_gives_back_what_went_in(given_fields: dict[str, Any]) -> None:
    """A parser reads a frame as exactly its fields, with CR LF and CR as LF."""
    assert interpret(encode(**given_fields)) == read_back(given_fields)


@PATIENT
@given(fields())
def test_a_frame_is_closed(given_fields: dict[str, Any]) -> None:
    """The content of a frame does not change how the next one is read, except for its id."""
    last = interpret(encode(**given_fields) + encode("next")).events[-1]
    assert last == ("message", "next", given_fields.get("id") or "")


@PATIENT
@given(texts())
def test_a_comment_is_only_comment_lines(comment: str) -> None:
    """Every line of a comment begins with a colon, and together they have the whole text."""
    *lines, blank, rest = encode(comment=comment).decode().split("\n")
    assert (blank, rest) == ("", "")
    assert all(line.startswith(": ") for line in lines)
    assert "\n".join(line[2:] for line in lines) == with_lf(comment)


ANYTHING = st.one_of(texts(), st.text())


@PATIENT
@given(
    st.fixed_dictionaries(
        {},
        optional={"data": ANYTHING, "event": ANYTHING, "id": ANYTHING, "comment": ANYTHING, "retry": st.integers()},
    )
)
def test_text_cannot_add_a_field(given_fields: dict[str, Any]) -> None:
    """Any text is refused, or its frame has lines of the given fields only."""
    try:
        frame = encode(**given_fields)
    except ValueError:
        return
    assert b"\r" not in frame
    names = {line.partition(b":")[0].decode() for line in frame[:-2].split(b"\n")}
    assert names == {"" if name == "comment" else name for name in given_fields}


@PATIENT
@given(fields().filter(lambda given_fields: "data" in given_fields))
def test_httpx_sse_reads_the_same(given_fields: dict[str, Any]) -> None:
    """Another library's parser reads a frame as its fields."""
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=encode(**given_fields))
    read = [(one.event, one.data, one.id, one.retry) for one in EventSource(response).iter_sse()]
    expected = read_back(given_fields)
    assert read == [(*event, expected.retry) for event in expected.events]
