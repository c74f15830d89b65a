"""Position: a place in a log, written as an event id and read back."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi._log.position import Position, furthest, new_epoch
from strategies import PATIENT, texts

EPOCHS = st.text("0123456789abcdef", min_size=8, max_size=8)
SEQUENCES = st.integers(0, 10**16 - 1)


@PATIENT
@given(EPOCHS, SEQUENCES)
def test_a_position_is_read_back_from_its_id(epoch: str, sequence: int) -> None:
    """Parsing the result of str() gives an equal position."""
    position = Position(epoch, sequence)
    assert Position.parse(str(position)) == position


@PATIENT
@given(texts())
def test_whatever_parses_is_written_the_same(text: str) -> None:
    """No two texts are the same position."""
    position = Position.parse(text)
    assert position is None or str(position) == text


def test_a_position_is_written_as_epoch_and_sequence() -> None:
    """An event id is eight hex digits, a hyphen and a decimal number."""
    assert str(Position("0123abcd", 42)) == "0123abcd-42"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "42",
        "0123abcd",
        "0123abcd-",
        "0123abcd42",
        "0123abcd-042",
        "0123abcd-00",
        "0123abcd--1",
        "0123abcd-+1",
        "0123abcd-1_0",
        "0123abcd-4 2",
        " 0123abcd-42",
        "0123abcd-42 ",
        "0123abcd-42\n",
        "0123abcd-42-1",
        "0123ABCD-42",
        "0123abcg-42",
        "0123abc-42",
        "0123abcde-42",
        "0123abcd-\u0664\u0662",
        "0123abcd-12345678901234567",
        "sse.end",
    ],
)
def test_malformed_text_is_no_position(text: str) -> None:
    """Text that is not an id of this library is None, never an error."""
    assert Position.parse(text) is None


def test_the_longest_sequence_has_sixteen_digits() -> None:
    """Sixteen nines are still read."""
    assert Position.parse("0123abcd-9999999999999999") == ("0123abcd", 9_999_999_999_999_999)


def test_an_epoch_is_eight_hex_digits() -> None:
    """A new epoch is one that an id can carry, and another one each time."""
    epochs = {new_epoch() for _ in range(3)}
    assert len(epochs) == 3
    assert all(re.fullmatch("[0-9a-f]{8}", epoch) for epoch in epochs)


HERE = Position("0123abcd", 42)


@pytest.mark.parametrize(
    ("mine", "other", "expected"),
    [
        (None, HERE, HERE),
        (HERE, None, None),
        (HERE, Position("0123abcd", 41), HERE),
        (HERE, Position("0123abcd", 43), Position("0123abcd", 43)),
        (HERE, Position("fedcba98", 1), Position("fedcba98", 1)),
    ],
)
def test_the_furthest_position_is_the_later_one_of_an_epoch(
    mine: Position | None, other: Position | None, expected: Position | None
) -> None:
    """A position of another epoch, or of none, gives way to the other position."""
    assert furthest(mine, other) == expected
