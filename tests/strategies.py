"""Strategies for Hypothesis: text that tries to break out of its field, fields of events, streams, and their chunks."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

PATIENT = settings(deadline=None)
"""Settings of every property: a slow example is not a failure."""

LINE_ENDS = ["\n", "\r", "\r\n"]

_AWKWARD = [
    *LINE_ENDS,
    *("\0", " ", "\t", ":", "\v", "\f", "\x1c", "\x85", "\N{LINE SEPARATOR}", "\N{PARAGRAPH SEPARATOR}"),
    *(
        "\N{ZERO WIDTH NO-BREAK SPACE}",
        "\N{REPLACEMENT CHARACTER}",
        "\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\U0001f600",
    ),
    *("data: x", "data", "event: x", "event", "id: x", "id", "retry: 1", ": x", "\n\n", "\r\r", "\n\ndata: x\n\n"),
]


def texts() -> st.SearchStrategy[str]:
    """Any text that is valid Unicode, most of it made to break out of its field."""
    pieces = st.one_of(st.sampled_from(_AWKWARD), st.text(st.characters(codec="utf-8"), max_size=4))
    return st.lists(pieces, max_size=6).map("".join)


def single_lines() -> st.SearchStrategy[str]:
    """Text without line ends."""
    return texts().map(lambda text: text.replace("\r", "").replace("\n", ""))


def ids() -> st.SearchStrategy[str]:
    """Event ids that may be written."""
    return single_lines().map(lambda text: text.replace("\0", "").strip(" \t"))


def fields() -> st.SearchStrategy[dict[str, Any]]:
    """Keyword arguments that `encode` accepts."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "data": st.one_of(texts(), texts().map(str.encode)),
        "event": single_lines().filter(bool),
        "id": ids(),
        "retry": st.integers(0, 1 << 53),
        "comment": texts(),
    }
    return st.fixed_dictionaries({}, optional=optional).filter(bool)


_NAMES = ["data", "event", "id", "retry", "", "dat", "Data", "data ", " data", "\ufeffdata", "\0", "x"]
_SEPARATORS = ["", ":", ": ", ":  ", "::", ":\t"]
_VALUES = [
    "",
    "a",
    "0",
    "12",
    "007",
    "+1",
    "-1",
    "1.5",
    "1 ",
    "\N{ARABIC-INDIC DIGIT ONE}",
    "\N{SUPERSCRIPT TWO}",
    "a\0b",
]
_JUNK = [
    b"",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xe2\x82",
    b"\xc0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb",
]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """One line of a stream, well-formed or not, with or without its end."""
    if draw(st.integers(0, 3)) == 0:
        body = b""
    else:
        name, separator = draw(st.sampled_from(_NAMES)), draw(st.sampled_from(_SEPARATORS))
        value = draw(st.one_of(st.sampled_from(_VALUES), single_lines()))
        body = f"{name}{separator}{value}".encode() + draw(st.sampled_from(_JUNK))
    return body + draw(st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\r", b""]))


def streams() -> st.SearchStrategy[bytes]:
    """Streams built from lines, after zero, one or two byte order marks."""
    boms = st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\xef\xbb\xbf", b"\xef\xbb"])
    structured = st.builds(lambda bom, parts: bom + b"".join(parts), boms, st.lists(lines(), max_size=12))
    noise = st.lists(st.sampled_from(list(b"daeivntry: \r\n\0019\xef\xbb\xbf\xc3\xa9")), max_size=40).map(bytes)
    return st.one_of(structured, noise, st.binary(max_size=40))


@st.composite
def chunked_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream, cut into chunks at random, empty ones included, or into single bytes."""
    stream = draw(streams())
    if draw(st.booleans()):
        return [stream[index : index + 1] for index in range(len(stream))]
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
