"""Buffer: bounded in events and bytes, whatever comes."""

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi._hub.buffer import Buffer
from sse_asgi._log.event import Entry
from strategies import PATIENT

OVERHEAD = len(Entry(ServerSentEvent("")).frame)


def entry(size: int = 10, key: str | None = None) -> Entry:
    """Make an entry with a frame of so many bytes."""
    made = Entry(ServerSentEvent("x" * (size - OVERHEAD)), key=key)
    assert len(made.frame) == size
    return made


def filled(max_events: int, max_bytes: int, *entries: Entry) -> Buffer:
    """Make a buffer that holds these entries."""
    buffer = Buffer(max_events, max_bytes)
    assert all(buffer.append(one) for one in entries)
    return buffer


def test_a_new_buffer_is_empty() -> None:
    """It has no entries and has dropped none."""
    buffer = Buffer(1, 1)
    assert ([*buffer.entries], buffer.dropped) == ([], False)


def test_entries_are_held_in_order() -> None:
    """The oldest is first."""
    one, two, three = entry(), entry(), entry()
    assert filled(3, 100, one, two, three).entries == [one, two, three]


def test_the_number_of_events_is_bounded() -> None:
    """One more than the bound is refused, and the buffer stays as it was."""
    one, two = entry(), entry()
    buffer = filled(2, 1000, one, two)
    assert not buffer.append(entry())
    assert ([*buffer.entries], buffer.dropped) == ([one, two], False)


def test_the_number_of_bytes_is_bounded() -> None:
    """Bytes up to the bound are held, and one more is refused."""
    buffer = filled(100, 30, entry(10), entry(10))
    assert not buffer.append(entry(11))
    assert buffer.append(entry(10))


def test_an_entry_larger_than_the_buffer_is_held_alone() -> None:
    """An empty buffer admits an entry of any size, and then no other."""
    buffer = filled(100, 30, entry(500))
    assert not buffer.append(entry(10))


def test_what_is_popped_makes_room() -> None:
    """As many events and bytes as were removed fit again."""
    one, two, three = entry(10), entry(10), entry(20)
    buffer = filled(2, 30, one, two)
    assert buffer.pop() is one
    assert buffer.append(three)
    assert buffer.entries == [two, three]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_several_are_popped_at_once(count: int) -> None:
    """So many of the oldest are removed, and the last of them is returned."""
    entries = [entry(), entry(), entry()]
    buffer = filled(3, 30, *entries)
    assert buffer.pop(count) is entries[count - 1]
    assert [*buffer.entries] == entries[count:]
    assert [buffer.append(entry(10)) for _ in range(count + 1)] == [True] * count + [False]


def test_a_cleared_buffer_is_empty() -> None:
    """Every entry is removed, and its room is free."""
    buffer = filled(2, 20, entry(10), entry(10))
    buffer.clear()
    assert not buffer.entries
    assert buffer.append(entry(10))
    assert buffer.append(entry(10))


def test_dropping_the_oldest_makes_room_for_one() -> None:
    """The newest is held, no more than needed is dropped, and the number of dropped entries is counted."""
    one, two, three = entry(), entry(), entry()
    buffer = filled(2, 1000, one, two)
    buffer.append_dropping_oldest(three)
    assert ([*buffer.entries], buffer.dropped) == ([two, three], True)


def test_dropping_the_oldest_makes_room_for_bytes() -> None:
    """As many are dropped as the bytes of the newest need."""
    one, two, three, large = entry(10), entry(10), entry(10), entry(20)
    buffer = filled(100, 30, one, two, three)
    buffer.append_dropping_oldest(large)
    assert buffer.entries == [three, large]


def test_dropping_the_oldest_keeps_the_newest_of_any_size() -> None:
    """An entry larger than the buffer pushes everything else out."""
    huge = entry(500)
    buffer = filled(100, 30, entry(), entry())
    buffer.append_dropping_oldest(huge)
    assert buffer.entries == [huge]


def test_keeping_the_latest_replaces_the_same_key() -> None:
    """The newest entry of each key stays, at the newest place. Entries without a key stay as well."""
    old, plain, other, new = entry(key="a"), entry(), entry(key="b"), entry(key="a")
    buffer = filled(3, 1000, old, plain, other)
    assert buffer.append_keeping_latest(new)
    assert ([*buffer.entries], buffer.dropped) == ([plain, other, new], False)


def test_keeping_the_latest_frees_bytes() -> None:
    """Entries that were replaced no longer count."""
    buffer = filled(100, 30, entry(20, key="a"), entry(10))
    assert buffer.append_keeping_latest(entry(10, key="a"))
    assert buffer.append(entry(10))


def test_keeping_the_latest_says_when_that_is_too_much() -> None:
    """Without an entry to replace, the buffer is still over its bounds."""
    assert not filled(1, 1000, entry(key="a")).append_keeping_latest(entry(key="b"))
    assert not filled(100, 20, entry(10), entry(10)).append_keeping_latest(entry(10))


def test_the_bounds_are_told_with_the_ways_out() -> None:
    """The error says the numbers, and what to do."""
    told = "more than 3 events or 500 bytes were waiting: read faster, raise buffer_size or buffer_bytes"
    assert Buffer(3, 500).bounds.startswith(told)


class _Action(NamedTuple):
    name: str
    size: int
    key: str | None


ACTIONS = st.lists(
    st.builds(
        _Action,
        st.sampled_from(["append", "drop oldest", "keep latest", "pop", "clear"]),
        st.integers(OVERHEAD, 40),
        st.sampled_from([None, None, "a", "b"]),
    ),
    max_size=30,
)


class _Model:
    """The same rules, written without regard to speed: every sum is computed again."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.held: list[Entry] = []
        self.max_events = max_events
        self.max_bytes = max_bytes

    def fits(self, held: list[Entry]) -> bool:
        return len(held) <= self.max_events and sum(len(one.frame) for one in held) <= self.max_bytes

    def append(self, new: Entry) -> bool:
        if self.held and not self.fits([*self.held, new]):
            return False
        self.held.append(new)
        return True

    def append_dropping_oldest(self, new: Entry) -> None:
        self.held.append(new)
        while len(self.held) > 1 and not self.fits(self.held):
            del self.held[0]

    def append_keeping_latest(self, new: Entry) -> bool:
        self.held = [one for one in self.held if one.key is None or one.key != new.key] + [new]
        last_of_key = {one.key: one for one in self.held}
        self.held = [one for one in self.held if one.key is None or last_of_key[one.key] is one]
        return self.fits(self.held)


@PATIENT
@given(st.integers(1, 4), st.integers(1, 60), ACTIONS)
def test_a_buffer_behaves_as_its_rules_say(max_events: int, max_bytes: int, actions: list[_Action]) -> None:
    """After any sequence of calls it holds the same entries as a plain list under the same rules, within its bounds."""
    buffer, model = Buffer(max_events, max_bytes), _Model(max_events, max_bytes)
    for name, size, key in actions:
        new = entry(size, key)
        if name == "append":
            assert buffer.append(new) == model.append(new)
        elif name == "drop oldest":
            buffer.append_dropping_oldest(new)
            model.append_dropping_oldest(new)
        elif name == "keep latest":
            fits = buffer.append_keeping_latest(new)
            assert fits == model.append_keeping_latest(new)
            if not fits:  # the caller starts again
                buffer.clear()
                model.held.clear()
        elif name == "pop" and model.held:
            assert buffer.pop() is model.held.pop(0)
        elif name == "clear":
            buffer.clear()
            model.held.clear()
        assert [*buffer.entries] == model.held
        assert len(model.held) <= 1 or model.fits(model.held)
