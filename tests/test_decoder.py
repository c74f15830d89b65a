"""EventDecoder: the events that a browser would dispatch, from chunks of any size."""

from typing import Any

import pytest
from hypothesis import given

from oracle import Dispatched, Interpretation, interpret
from sse_asgi.decoder import DecodedEvent, EventDecoder
from strategies import PATIENT, chunked_streams


def decode(*chunks: bytes) -> Interpretation:
    """Return the result of feeding these chunks."""
    decoder = EventDecoder()
    events = [Dispatched(*event) for chunk in chunks for event in decoder.feed(chunk)]
    return Interpretation(events, decoder.last_event_id, decoder.retry)


def message(data: str, id: str = "") -> tuple[str, str, str]:  # noqa: A002 - the standard's name of the field
    return ("message", data, id)


# The first four are the examples in section 9.2.6 of the standard.
STREAMS: list[tuple[bytes, list[tuple[str, str, str]]]] = [
    (b"data: YHOO\ndata: +2\ndata: 10\n\n", [message("YHOO\n+2\n10")]),
    (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        [message("first event", "1"), message("second event"), message(" third event")],
    ),
    (b"data\n\ndata\ndata\n\ndata:", [message(""), message("\n")]),
    (b"data:test\n\ndata: test\n\n", [message("test"), message("test")]),
    (b"", []),
    (b"\n\n\n", []),
    (b"event: a\n\ndata: b\n\n", [message("b")]),
    (b"event: a\ndata: b\n\ndata: c\n\n", [("a", "b", ""), message("c")]),
    (b"event: a\nevent: b\ndata: c\n\n", [("b", "c", "")]),
    (b"event:\ndata: b\n\n", [message("b")]),
    (b"data: a\rdata: b\r\ndata: c\n\r\n", [message("a\nb\nc")]),
    (b"data: a\r\rdata: b\r\n\r\n", [message("a"), message("b")]),
    (b"\xef\xbb\xbfdata: a\n\n", [message("a")]),
    (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
    (b"data: \xef\xbb\xbfa\n\n", [message("\ufeffa")]),
    (b"data: a:b: c\n\n", [message("a:b: c")]),
    (b"data:\ta\n\n", [message("\ta")]),
    (b"DATA: a\nData: b\n data: c\ndata : d\ndat: e\n\n", []),
    (b":data: a\n\n", []),
    (b"data: \xff\xc3(\n\n", [message("\ufffd\ufffd(")]),
    ("data: \u2028\v\f\x1c\x85\n\n".encode(), [message("\u2028\v\f\x1c\x85")]),
    (b"data: a\0b\n\n", [message("a\0b")]),
]


@pytest.mark.parametrize(("stream", "events"), STREAMS)
@pytest.mark.parametrize("reader", [decode, interpret])
def test_a_stream_is_these_events(reader: Any, stream: bytes, events: list[tuple[str, str, str]]) -> None:
    """The decoder and the oracle agree on the standard's examples and on corner cases of its grammar."""
    assert reader(stream).events == events


@PATIENT
@given(chunked_streams())
def test_any_bytes_in_any_chunks_are_read_as_the_standard_does(chunks: list[bytes]) -> None:
    """Events, last event id and retry are those of the oracle, for every way to cut the stream."""
    assert decode(*chunks) == interpret(b"".join(chunks))


def test_an_event_is_a_named_tuple() -> None:
    """An event has the standard's three attributes."""
    (event,) = EventDecoder().feed(b"id: 7\nevent: chat\ndata: x\n\n")
    assert isinstance(event, DecodedEvent)
    assert (event.event, event.data, event.id) == ("chat", "x", "7")


def test_feed_returns_the_events_that_its_chunk_completes() -> None:
    """Each call returns the events that its chunk completes, not later and not twice."""
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\n") == []
    assert decoder.feed(b"\ndata: b\n\ndata: c\n") == [message("a"), message("b")]
    assert decoder.feed(b"\n") == [message("c")]


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_line_end_at_the_end_of_a_chunk_ends_its_line_at_once(end: bytes) -> None:
    """An event is returned without waiting for the byte after its last CR."""
    assert EventDecoder().feed(b"data: a" + 2 * end) == [message("a")]


def test_the_lf_after_a_cr_may_come_in_a_later_chunk() -> None:
    """A CR LF that is cut in two is one line end, not a blank line."""
    assert decode(b"data: a\r", b"", b"\ndata: b\r", b"\n\r", b"\n").events == [message("a\nb")]


def test_a_character_may_be_cut_between_chunks() -> None:
    """The bytes of one character, and of the byte order mark, may come one by one."""
    stream = "\ufeffdata: \U0001f600\n\n".encode()
    assert decode(*(bytes([byte]) for byte in stream)).events == [message("\U0001f600")]


@pytest.mark.parametrize("end", [b"data: b", b"data: b\n", b"id: 2\n", b"id: 2"])
def test_an_unfinished_event_at_the_end_is_not_dispatched(end: bytes) -> None:
    """A block without its blank line is neither an event nor a new last event id."""
    assert decode(b"id: 1\ndata: a\n\n" + end) == ([message("a", "1")], "1", None)


# The last event id


def test_an_id_takes_effect_when_its_block_ends() -> None:
    """Before the blank line a browser that loses its connection would send the previous id."""
    decoder = EventDecoder()
    decoder.feed(b"id: 1\ndata: a\n")
    assert decoder.last_event_id == ""
    decoder.feed(b"\n")
    assert decoder.last_event_id == "1"


def test_an_id_takes_effect_without_data() -> None:
    """An id-only block dispatches nothing and moves the last event id."""
    assert decode(b"id: 1\n\n") == ([], "1", None)


def test_an_id_stays_in_force() -> None:
    """Later events without an id carry the last one."""
    assert decode(b"id: 1\ndata: a\n\ndata: b\n\n").events == [message("a", "1"), message("b", "1")]


@pytest.mark.parametrize("line", [b"id", b"id:", b"id: "])
def test_an_empty_id_resets_it(line: bytes) -> None:
    """An id field without a value empties the last event id."""
    assert decode(b"id: 1\ndata: a\n\n" + line + b"\ndata: b\n\n").last_event_id == ""


def test_an_id_with_nul_is_ignored() -> None:
    """The last event id does not change."""
    assert decode(b"id: 1\n\nid: 2\0\ndata: a\n\n") == ([message("a", "1")], "1", None)


# The reconnection time


def test_a_new_decoder_has_neither_id_nor_retry() -> None:
    """Before the first byte, the last event id is empty and the reconnection time is None."""
    assert decode() == ([], "", None)


def test_a_retry_takes_effect_at_its_line() -> None:
    """The reconnection time needs no blank line after it."""
    assert decode(b"retry: 1500\n").retry == 1500


@pytest.mark.parametrize("value", ["", "-1", "+1", "1.5", "1 ", "1_000", "0x10", "\u0661", "\u00b2", "1a"])
def test_a_retry_of_anything_but_ascii_digits_is_ignored(value: str) -> None:
    """The reconnection time does not change."""
    assert decode(b"retry: 20\n", f"retry: {value}\n".encode()).retry == 20


def test_a_retry_of_thousands_of_digits_is_ignored() -> None:
    """A number that is too long for int() is ignored, and the event is read."""
    assert decode(b"retry: 20\nretry: " + 10_000 * b"9" + b"\ndata: a\n\n") == ([message("a")], "", 20)


def test_leading_zeros_of_a_retry_are_decimal() -> None:
    """The digits are read in base ten."""
    assert decode(b"retry: 0010\n").retry == 10


# Long lines


def test_a_long_line_in_many_chunks_is_joined_once() -> None:
    """300 kB of one line in chunks of three bytes are kept as chunks, and are joined when the line ends."""
    decoder = EventDecoder()
    for _ in range(100_000):
        decoder.feed(b"abc")
    assert len(decoder._partial_line) == 100_000
    assert decoder.feed(b": x\ndata: y\n\n") == [message("y")]
    assert decode(b"data: ", *(100_000 * [b"abc"]), b"\n\n").events == [message(100_000 * "abc")]
