"""How far streams were read, so that the next page goes on from there."""

import pytest

from sse_asgi._log.position import Position
from sse_asgi.backends.redis import _cursor
from sse_asgi.backends.redis._cursor import AHEAD, Cursor, PagePosition, Row, Stream


def stream(name: str, *, presence: bool = False) -> Stream:
    return Stream(name.encode(), name, presence)


def row(sequence: int, channel: str = "a", size: int = 10) -> Row:
    return Row(sequence, channel, 0, b"x" * size)


def new_cursor(*names: str) -> Cursor:
    return Cursor.begin([stream(name) for name in names], 5)


def test_a_page_is_taken_of_the_rows() -> None:
    """In their order, each event once, up to a sequence, and bounded in number and bytes."""
    cursor = new_cursor("a", "b")
    assert cursor.take(100, 10, 1000) == ([], True)
    cursor.put([row(7), row(9), row(12)])
    cursor.put([row(7, "b"), row(8, "b")])
    cursor.put([])
    assert cursor.size == 10
    assert [one.sequence for one in cursor.rows] == [7, 7, 8, 9, 12]

    def page(upto: int, limit: int, room: int) -> tuple[list[int], bool]:
        taken, are_all = cursor.take(upto, limit, room)
        return [one.sequence for one in taken], are_all

    assert page(10, 10, 1000) == ([7, 8, 9], True)
    assert page(100, 2, 1000) == ([7, 8], False)
    assert page(100, 10, 25) == ([7, 8], False)
    assert page(100, 10, 1) == ([7], False)


def test_the_next_page_begins_where_one_ended() -> None:
    """The copy has the rows that the first one has read beyond the page, and does not change the first one."""
    cursor = new_cursor("a", "b")
    cursor.put([row(7), row(9)])
    cursor.safe, cursor.since[0] = 9, 9
    after = cursor.after(7)
    assert ([one.sequence for one in after.rows], after.since, after.found, after.safe) == ([9], [9, 7], 7, 9)
    assert after.size == 10
    assert [one.sequence for one in cursor.rows] == [7, 9]


def test_a_cursor_knows_what_a_page_lacks() -> None:
    """Rows beyond the safe sequence are not ready, but take memory."""
    cursor = new_cursor("a")
    cursor.put([row(7), row(9, size=30)])
    cursor.safe = 8
    assert cursor.wants(100, 5, 1000) == (4, 990, AHEAD + 960)
    assert cursor.wants(100, 0, 5) == (0, 0, AHEAD + 5 - 40)


def test_presence_streams_are_added_for_channels_that_lack_them() -> None:
    """From the sequence on up to which none of them had joins or leaves."""
    cursor = new_cursor("a", "b", "c")
    cursor.found = 6
    cursor.add({1: stream("b", presence=True)})
    assert cursor.lacking == ["a", "c"]
    assert (cursor.streams[-1].presence, cursor.since) == (True, [5, 5, 5, 6])


def test_a_batch_has_the_streams_that_were_read_least_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward those that were read furthest; the next of the others is where their turn comes."""
    cursor = new_cursor("a", "b", "c")
    cursor.since = [9, 5, 7]
    assert cursor.batch(1) == ([1, 2, 0], [5, 7, 9], None)
    monkeypatch.setattr(_cursor, "STREAMS", 2)
    assert cursor.batch(1) == ([1, 2], [5, 7], 9)
    assert cursor.batch(-1) == ([0, 2], [9, 7], 5)


def test_a_position_after_a_page_is_a_position() -> None:
    """It equals the bare one, which knows nothing of the streams."""
    place = PagePosition("0badc0de", 7)
    assert place == Position("0badc0de", 7)
    assert (place.channels, place.cursor) == ((), None)
