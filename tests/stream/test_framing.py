"""Framing: items become frames, and a stream that was framed before is cut only where a frame ends."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi._stream import framing
from sse_asgi._stream.framing import ChunkFraming, DialectFraming, EventFraming, Frames
from sse_asgi.decoder import EventDecoder
from sse_asgi.dialects import OPENAI
from strategies import PATIENT

pytestmark = pytest.mark.anyio

# Events


def test_items_are_written_as_data() -> None:
    """As an event takes them."""
    framing = EventFraming(())
    assert [framing.write(item) for item in ("x", "a\nb", {"a": 1}, ServerSentEvent("x", id="1"))] == [
        b"data: x\n\n",
        b"data: a\ndata: b\n\n",
        b'data: {"a":1}\n\n',
        b"id: 1\ndata: x\n\n",
    ]
    assert framing.rest() == b""


async def asynchronously() -> AsyncIterator[Any]:
    for _ in range(3):
        yield "data: x\n\n"
        yield {"event": "e", "data": "x"}


def synchronously() -> Iterator[Any]:
    yield "data: x\n\n"


async def test_a_frame_in_data_is_warned_of_once_a_place(caplog: pytest.LogCaptureFixture) -> None:
    """With the file and the line of each `yield`, and the fix; the data are sent as they are."""
    for _ in range(2):
        generator = asynchronously()
        framing = EventFraming(generator)
        frames = [framing.write(item) async for item in generator]
        assert frames[:2] == [b"data: data: x\ndata: \ndata: \n\n", b'data: {"event":"e","data":"x"}\n\n']
    line = asynchronously.__code__.co_firstlineno + 2
    told = [record.getMessage().partition(": ") for record in caplog.records]
    assert [(place, advice.split(" ", 2)[:2]) for place, _, advice in told] == [
        (f"{__file__}:{line} in asynchronously", ["text", "that"]),
        (f"{__file__}:{line + 1} in asynchronously", ["a", "mapping"]),
    ]


async def test_a_finished_generator_is_named_by_its_first_line(caplog: pytest.LogCaptureFixture) -> None:
    """A sync one runs in another thread, and may be over when its item is written."""
    generator = synchronously()
    framing = EventFraming(generator)
    for item in list(generator):
        framing.write(item)
    assert f"{__file__}:{synchronously.__code__.co_firstlineno} in synchronously: text that" in caplog.text


async def test_another_iterable_is_named_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """It has no line."""
    EventFraming([]).write("data: x\n\n")
    assert "a builtins.list that is streamed: text that looks like a frame" in caplog.text


async def test_the_places_are_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Code that is made at run time has ever new places."""
    monkeypatch.setattr(framing, "MAX_PLACES", 1)
    EventFraming([]).write("data: x\n\n")
    EventFraming(()).write("data: x\n\n")
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_a_dialect_writes_its_items() -> None:
    """Its end is said elsewhere."""
    framing = DialectFraming(OPENAI)
    assert framing.write({"a": 1}) == b'data: {"a":1}\n\n'
    assert framing.rest() == b""


# Chunks

LINES = st.sampled_from(["data: x", "data: é€😀", "id: 4", "event: e", ": c", ":"])
LINE_ENDS = st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Return a stream that ends in a blank line, cut anywhere."""
    ends = st.sampled_from(draw(LINE_ENDS))
    blocks = draw(st.lists(st.lists(LINES, max_size=3), max_size=5))
    text = "".join("".join(line + draw(ends) for line in [*block, ""]) for block in blocks)
    body = text.encode() + b"\n\n"
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=8)))
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]


@PATIENT
@given(streams())
@example([b"data: x\n\r", b"\n\n\n"])
@example([b"data: x\n\r", b"data: y\n\n"])
@example([b"data: x\r\r", b"\n\n"])
@example([b": a\rdata: x\n\n"])
@example([b": a", b"b\n\n"])
def test_a_stream_is_passed_on_byte_for_byte(chunks: list[bytes]) -> None:
    """However it is cut; a ping after whatever was written changes nothing for a browser."""
    framing = ChunkFraming()
    written = [framing.write(chunk) for chunk in chunks]
    body = b"".join(chunks)
    assert b"".join(written) + framing.rest() == body
    with_pings = b"".join(frames + b":\n" for frames in written if frames)
    assert EventDecoder().feed(with_pings + framing.rest()) == EventDecoder().feed(body)


def test_a_chunk_that_ends_a_frame_is_passed_on_as_it_is() -> None:
    """Without a copy."""
    chunk = b"data: x\n\ndata: y\n\n"
    assert ChunkFraming().write(chunk) is chunk


def test_text_is_passed_on_as_utf_8() -> None:
    """Frames as some libraries write them; a str of a class of its own is one too."""
    assert ChunkFraming().write(type("Frame", (str,), {})("data: é\n\n")) == "data: é\n\n".encode()


def test_a_frame_is_held_until_it_is_complete() -> None:
    """Frames before it are not."""
    framing = ChunkFraming()
    assert framing.write(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert framing.write(b"c\n") == b""
    assert framing.write(b"\nda") == b"data: bc\n\n"
    assert framing.write(b"ta: d\n\n") == b"data: d\n\n"


def test_comments_between_frames_are_passed_on_at_once() -> None:
    """As the pings of a stream that is passed on, with and without a blank line."""
    framing = ChunkFraming()
    assert framing.write(b":\n") == b":\n"
    assert framing.write(b": ping\r\n") == b": ping\r\n"
    assert framing.write(b"data: x\n\n: a\n\n:b\n:c") == b"data: x\n\n: a\n\n:b\n"
    assert framing.write(b"\n\n") == b":c\n\n"


@pytest.mark.parametrize("rest", [b"", b"retry: 5\n", b":\nretry: 5\n: c\n", b"data: x\n\r", b"\r"])
def test_a_stream_may_end_with_lines_that_are_no_event(rest: bytes) -> None:
    """The time to come back and comments have no blank line after them; a last CR is a line end."""
    framing = ChunkFraming()
    assert framing.write(b"data: x\n\n" + rest) + framing.rest() == b"data: x\n\n" + rest


@pytest.mark.parametrize("rest", [b"data: x", b"data: x\n", b"id: 1\n", b": c", b"retry: 5", b"event: e\n: c\n"])
def test_an_unfinished_frame_is_an_error(rest: bytes) -> None:
    """It is not sent, and nothing is added to finish it."""
    framing = ChunkFraming()
    assert framing.write(b"data: x\n\n" + rest) == b"data: x\n\n"
    with pytest.raises(ValueError, match=r"the stream must end after a blank line \(got .*the last frame was not sent"):
        framing.rest()


@pytest.mark.parametrize("item", [5, {"data": "x"}, ServerSentEvent("x"), bytearray(b"x")])
def test_another_chunk_is_refused(item: Any) -> None:
    """With what to do."""
    with pytest.raises(TypeError, match=r"a chunk must be bytes or str with encoded=True .*yield bytes"):
        ChunkFraming().write(item)


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without blank lines is none."""
    monkeypatch.setattr(framing, "MAX_FRAME_BYTES", 10)
    chunks = ChunkFraming()
    assert chunks.write(b"data: x\n\ndata: y") == b"data: x\n\n"
    with pytest.raises(ValueError, match="a frame must be at most 10 bytes"):
        chunks.write(b"zzzz")


@pytest.mark.parametrize(
    ("bodies", "complete"),
    [
        ([b"data: x\n\n"], True),
        ([b"data: x\n"], False),
        ([b"data: x\r\n\r", b"\n"], True),
        ([b"data: x\r", b"\r"], True),
    ],
)
def test_complete_frames_are_seen(bodies: list[bytes], complete: bool) -> None:  # noqa: FBT001
    """Between frames other bytes may be sent: never while a body is sent, and never in an encoded stream."""
    plain, encoded = Frames(encoded=False), Frames(encoded=True)
    assert (plain.complete, encoded.complete) == (True, False)
    for body in bodies:
        for frames in (plain, encoded):
            frames.begin(body)
            assert not frames.complete
            frames.end()
    assert (plain.complete, encoded.complete) == (complete, False)
