"""The wire form of an event: a payload is written and read again, and anything else is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi._log.position import Position
from sse_asgi.backends.redis._message import entry, payload
from strategies import texts

PLACE = Position("0badc0de", 7)


@given(texts(), st.none() | st.integers(0, 10**6), st.none() | st.just("note"), st.none() | texts())
def test_an_event_is_read_as_it_was_written(data: str, retry: int | None, kind: str | None, key: str | None) -> None:
    """Its frame, with the id before it, its channels and its key."""
    event = ServerSentEvent(data, retry=retry, event=kind, comment="c")
    for channels in (("a",), ("a", "b")):
        read = entry(("a",), PLACE, b"id: 0badc0de-7", payload(event, channels, key))
        assert (read.channels, read.key, read.position) == (channels, key, PLACE)
        assert read.frame == b"id: 0badc0de-7\n" + event.encode()
        assert entry(("a",), None, b"", payload(event, channels, key)).frame == event.encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\ndata: x\n",
        b"\ndata: a\rb\n\n",
        b"\ndata: a\n\ndata: b\n\n",
        b"\nid: 1\ndata: x\n\n",
        b"\nretry: soon\ndata: x\n\n",
        b"\ndata: \xff\n\n",
        b"{\ndata: x\n\n",
        b"[1]\ndata: x\n\n",
        b'{"c":7}\ndata: x\n\n',
        b'{"c":["b"]}\ndata: x\n\n',
        b'{"c":["a",7]}\ndata: x\n\n',
        b'{"k":7}\ndata: x\n\n',
        b"[" * 100_000 + b"\ndata: x\n\n",
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_payload_that_is_not_ours_is_refused(data: bytes) -> None:
    """Other clients may write anything."""
    with pytest.raises(ValueError):  # noqa: PT011 - the caller adds the message
        entry(("a",), PLACE, b"id: 0badc0de-7", data)
