"""Gate: a table of (state, input, expected state and output), and its invariants under any order of inputs."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi._hub.gate import CLOSED, MISSED, OPEN, Gate, State, gap_event
from sse_asgi._hub.options import Options, Overflow
from sse_asgi._hub.stats import Tally
from sse_asgi._log.event import Entry, History, RenderedEvent
from sse_asgi._log.position import Position
from strategies import PATIENT

EPOCH = "0000000a"
SIZE = 3  # of the buffer


def at(sequence: int) -> Position:
    """Return a position in the log."""
    return Position(EPOCH, sequence)


def live(sequence: int, key: str | None = None) -> Entry:
    """Return an entry of the log; its data is its sequence."""
    return Entry(ServerSentEvent(str(sequence)), at(sequence), ("a",), key)


def page(*sequences: int, **more: object) -> History:
    """Return a page of history that holds these entries."""
    return History([live(one) for one in sequences], **more)  # type: ignore[arg-type]


def new_gate(overflow: Overflow = "replay", **more: object) -> Gate:
    """Return a gate with a buffer of three events."""
    return Gate(Options(buffer_size=SIZE, overflow=overflow)._replace(**more), Tally())  # type: ignore[arg-type]


def taken(gate: Gate) -> list[str]:
    """Take every entry: the data of an event, the reason of a gap, or the position that is shown."""
    found = []
    while (entry := gate.take()) is not None:
        event = entry.event
        if event is None:
            found.append(f"at {entry.position}")
        else:
            assert isinstance(event, ServerSentEvent)
            found.append(str(event.data) if event.event is None else f"{event.event} {event.data}")
    return found


def wants(gate: Gate) -> str:
    """Return the gate's output: `give` an entry, `read` history, `end`, or `wait`."""
    if gate.ready or (gate.state is OPEN and gate.buffer.entries):
        return "give"
    return "end" if gate.ended else "read" if gate.behind else "wait"


# The states from which the rows of the table begin, and how each is reached


def closed() -> Gate:
    """Behind, at 1, in a round up to 5."""
    gate = new_gate()
    gate.begin_after(str(at(1)))
    assert gate.begin_round(at(5))
    return gate


def closed_holding() -> Gate:
    """As closed, with the live events 5 and 6 held."""
    gate = closed()
    gate.hold(live(5))
    gate.hold(live(6))
    return gate


def missed() -> Gate:
    """Behind, at 1, with live events let go."""
    gate = closed()
    gate.lose(None)
    return gate


def opened(overflow: Overflow = "replay") -> Gate:
    """Up to date, at 1."""
    gate = new_gate(overflow)
    gate.begin_fresh(())
    gate.arrive(at(1))
    return gate


def full(overflow: Overflow = "replay") -> Gate:
    """Up to date, with 2, 3 and 4 in the full buffer."""
    gate = opened(overflow)
    for sequence in (2, 3, 4):
        gate.hold(live(sequence))
    return gate


def closed_full() -> Gate:
    """Behind, with 6, 7 and 8 in the full buffer."""
    gate = closed()
    for sequence in (6, 7, 8):
        gate.hold(live(sequence))
    return gate


def ended() -> Gate:
    """Up to date, with 2 in the buffer, and ended."""
    gate = opened()
    gate.hold(live(2))
    gate.end("revoked")
    return gate


class Row(NamedTuple):
    """One row: a gate, what is done with it, its state and output after that, and the entries that it gives."""

    gate: Callable[[], Gate]
    does: Callable[[Gate], object]
    state: State
    wants: str
    gives: list[str]


def gap_of(reason: str) -> str:
    """Return a gap as `taken` does."""
    return f'sse.gap {{"reason":"{reason}"}}'


def each(*inputs: Callable[[Gate], object]) -> Callable[[Gate], object]:
    """Return a function that gives a gate several inputs, one after another."""
    return lambda gate: [one(gate) for one in inputs]


TRIMMED = page(4, 5, reason="trimmed", lost=3)

ROWS = {
    # A live entry is offered
    "closed, live: held": Row(closed, lambda gate: gate.hold(live(6)), CLOSED, "read", []),
    "closed and full, live: let go": Row(closed_full, lambda gate: gate.hold(live(9)), MISSED, "read", []),
    "missed, live: held": Row(missed, lambda gate: gate.hold(live(6)), MISSED, "read", []),
    "open, live: given": Row(opened, lambda gate: gate.hold(live(2)), OPEN, "give", ["2"]),
    "ended, live: ignored": Row(ended, lambda gate: gate.hold(live(3)), OPEN, "give", ["2"]),
    # The buffer is full
    "full, replay": Row(full, lambda gate: gate.hold(live(5)), MISSED, "read", []),
    "full, close": Row(lambda: full("close"), lambda gate: gate.hold(live(5)), MISSED, "end", []),
    "full, drop oldest": Row(
        lambda: full("drop_oldest"), lambda gate: gate.hold(live(5)), OPEN, "give", [gap_of("overflow"), "3", "4", "5"]
    ),
    "full, latest without keys": Row(lambda: full("latest"), lambda gate: gate.hold(live(5)), MISSED, "read", []),
    "full, latest with a key": Row(
        lambda: full("latest"),
        each(Gate.take, lambda gate: gate.hold(live(5, "k")), lambda gate: gate.hold(live(6, "k"))),
        OPEN,
        "give",
        ["3", "4", "6"],
    ),
    "full, no history": Row(
        full,
        lambda gate: gate.hold(Entry(ServerSentEvent("x"))),
        OPEN,
        "give",
        [gap_of("overflow"), "3", "4", "x"],
    ),
    # Loss reported
    "open, a known loss": Row(full, lambda gate: gate.lose("epoch"), MISSED, "read", []),
    "closed, a possible loss": Row(closed_holding, lambda gate: gate.lose(None), MISSED, "read", []),
    # The beginning
    "fresh": Row(
        new_gate,
        each(lambda gate: gate.begin_fresh([ServerSentEvent("hi")]), lambda gate: gate.arrive(at(5))),
        OPEN,
        "give",
        ["hi"],
    ),
    "fresh, after losses": Row(
        new_gate, each(lambda gate: gate.lose("epoch"), lambda gate: gate.begin_fresh(())), MISSED, "read", []
    ),
    "an id": Row(new_gate, lambda gate: gate.begin_after(str(at(3))), CLOSED, "read", []),
    # A round begun
    "missed, a round": Row(missed, lambda gate: gate.begin_round(at(9)), CLOSED, "read", []),
    "missed, no history": Row(missed, lambda gate: gate.begin_round(None), OPEN, "wait", []),
    "a loss, no history": Row(
        opened,
        each(lambda gate: gate.lose("fork"), lambda gate: gate.begin_round(None)),
        OPEN,
        "give",
        [gap_of("fork")],
    ),
    # A page of history read
    "closed, the last page": Row(
        closed_holding, lambda gate: gate.give_page(page(2, 5), at(5)), OPEN, "give", ["2", "5", "6"]
    ),
    "closed, a page of several": Row(
        closed_holding, lambda gate: gate.give_page(page(2, 3, next=at(3)), at(5)), CLOSED, "give", ["2", "3"]
    ),
    "closed, an empty page": Row(closed, lambda gate: gate.give_page(page(), at(5)), OPEN, "wait", []),
    "missed meanwhile, the last page": Row(
        missed, lambda gate: gate.give_page(page(2, 5), at(5)), MISSED, "give", ["2", "5"]
    ),
    "a page behind a loss": Row(
        closed,
        each(lambda gate: gate.notice_losses(TRIMMED), lambda gate: gate.give_page(TRIMMED, at(5))),
        OPEN,
        "give",
        [gap_of("trimmed"), "4", "5"],
    ),
    "an unreadable id": Row(
        new_gate,
        each(lambda gate: gate.begin_after("x"), lambda gate: gate.give_page(page(5), at(5))),
        OPEN,
        "give",
        [gap_of("malformed"), "5"],
    ),
    # A snapshot taken
    "closed, a snapshot": Row(
        closed_holding,
        lambda gate: gate.give_snapshot([Entry(ServerSentEvent("sta")), Entry(ServerSentEvent("te"), at(5))], at(5)),
        OPEN,
        "give",
        ["sta", "te", "6"],
    ),
    "a loss, a snapshot": Row(
        missed,
        each(
            lambda gate: gate.lose("epoch"),
            lambda gate: gate.give_snapshot([Entry(ServerSentEvent("state"), at(5))], at(5)),
        ),
        MISSED,
        "give",
        [gap_of("epoch"), "state"],
    ),
    # Ended
    "open, ended": Row(opened, lambda gate: gate.end("revoked"), OPEN, "end", []),
    "closed, ended": Row(closed_holding, lambda gate: gate.end("shutdown"), CLOSED, "end", []),
    "full, ended": Row(full, lambda gate: gate.end("shutdown"), OPEN, "give", ["2", "3", "4"]),
    # A position shown
    "open, a position": Row(opened, lambda gate: gate.show(at(7)), OPEN, "wait", []),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_gate_does_as_the_table_says(row: Row) -> None:
    """An input leads from a state to a state; then the gate gives these entries, and no others."""
    gate = row.gate()
    row.does(gate)
    assert (gate.state, wants(gate)) == (row.state, row.wants)
    assert taken(gate) == row.gives


# What the rows do not show


def test_the_first_reason_of_an_end_stays() -> None:
    """A reader that is ended twice has the first reason."""
    gate = ended()
    gate.end("shutdown")
    assert gate.ended == "revoked"


def test_a_slow_reader_that_was_ended_before_is_not_slow() -> None:
    """The buffer takes nothing after the end, so it does not overflow."""
    gate = full("close")
    gate.end("revoked")
    gate.hold(live(5))
    assert gate.ended == "revoked"


@pytest.mark.parametrize("make", [closed, missed, full, ended])
def test_no_position_is_shown_ahead_of_an_event(make: Callable[[], Gate]) -> None:
    """A gate that is behind, holds an event or was ended shows none."""
    gate = make()
    before = gate.position
    assert not gate.show(at(9))
    assert (gate.position, gate.written) == (before, None)


def test_a_position_that_is_shown_is_the_readers() -> None:
    """A round that begins later reads on after it."""
    gate = opened()
    assert gate.show(at(7))
    assert gate.position == gate.written == at(7)


def test_the_id_of_a_gap_is_just_before_the_next_event() -> None:
    """So that resuming from the gap announces no gap again."""
    gate = full("drop_oldest")
    gate.hold(live(5))
    gap = gate.take()
    assert gap is not None
    assert gap.position == at(2)


@pytest.mark.parametrize(("next_page", "expected"), [(at(3), at(3)), (None, at(5))])
def test_the_id_of_a_gap_before_an_empty_page_is_where_the_page_ends(
    next_page: Position | None, expected: Position
) -> None:
    """Nothing follows it on this page."""
    gate = closed()
    gate.lose("epoch")
    assert gate.give_page(page(next=next_page), at(5)) == "epoch"
    gap = gate.take()
    assert gap is not None
    assert gap.position == expected


def test_a_loss_is_announced_once() -> None:
    """A later page that reports the same loss is not behind a gap."""
    gate = closed()
    first = page(4, reason="trimmed", lost=3, next=at(4))
    gate.notice_losses(first)
    assert gate.give_page(first, at(5)) == "trimmed"
    gate.notice_losses(again := page(5, reason="trimmed", lost=3))
    assert gate.give_page(again, at(5)) is None


def test_a_reader_that_begins_with_the_newest_events_misses_no_older_ones() -> None:
    """The events that were dropped before the first page are not announced; those dropped later are."""
    gate = new_gate()
    gate.begin_with_newest(at(0))
    gate.notice_losses(first := page(4, reason="trimmed", lost=3, next=at(4)))
    assert gate.give_page(first, at(9)) is None
    gate.notice_losses(second := page(8, reason="trimmed", lost=7))
    assert gate.give_page(second, at(9)) == "trimmed"


def test_a_foreign_position_is_forgotten() -> None:
    """After an id of another log the reader is where this log's page begins."""
    gate = new_gate()
    gate.begin_after("00000000-99")
    gate.notice_losses(foreign := page(reason="epoch"))
    assert gate.position is None
    assert gate.give_page(foreign, at(5)) == "epoch"
    assert gate.position == at(5)


def test_gaps_and_drops_are_counted() -> None:
    """Each announced gap, and each dropped event once."""
    tally = Tally()
    gate = Gate(Options(buffer_size=1, overflow="drop_oldest"), tally)
    gate.begin_fresh(())
    gate.arrive(at(1))
    for sequence in (2, 3, 4):
        gate.hold(live(sequence))
    assert (tally.drops, tally.gaps, tally.overflows) == (0, {}, 2)  # announced when the reader takes them
    assert taken(gate) == [gap_of("overflow"), "4"]
    assert (tally.drops, tally.gaps) == (2, {"overflow": 1})


def test_deliveries_are_counted() -> None:
    """Joined entries are counted as they are taken; single ones when the reader has been given them, if published."""
    tally = Tally()
    gate = Gate(Options(), tally)
    gate.begin_fresh(())
    gate.arrive(at(1))
    gate.hold(live(2))
    gate.hold(live(3))
    body = gate.take_joined()
    assert (tally.delivered, tally.size) == (2, len(body))
    gate.count(live(4), 10)
    gate.count(Entry(ServerSentEvent("an order"), at(5), ("sse.control",)), 10)
    gate.count(Entry(None, at(5)), 10)
    assert (tally.delivered, tally.size) == (3, len(body) + 10)


def test_an_entry_that_is_put_back_comes_next() -> None:
    """Before the entries that wait behind it."""
    gate = full()
    first = gate.take()
    assert first is not None
    gate.put_back(first)
    assert taken(gate) == ["2", "3", "4"]


def test_what_waits_is_counted() -> None:
    """The entries that are ready and those of the buffer, and their bytes."""
    gate = closed_holding()
    gate.give_page(page(2, next=at(3)), at(5))
    assert gate.waiting == (3, sum(len(live(one).frame) for one in (2, 5, 6)))


def test_without_history_every_held_event_is_later() -> None:
    """A reader that has no position is given all of them."""
    gate = new_gate()
    gate.hold(Entry(ServerSentEvent("x")))
    gate.arrive(None)
    assert taken(gate) == ["x"]


# Frames that are the same for all readers


def test_frames_are_joined() -> None:
    """The frames of the buffer are one body, and the reader is behind the last of them."""
    gate = full()
    assert gate.take_joined() == b"".join(live(one).frame for one in (2, 3, 4))
    assert gate.position == gate.written == at(4)
    assert gate.take_joined() == b""


@pytest.mark.parametrize("make", [opened, closed_holding, missed])
def test_a_gate_without_frames_for_all_gives_none(make: Callable[[], Gate]) -> None:
    """It is empty, or behind."""
    assert make().take_joined() == b""


def test_entries_that_are_ready_are_not_overtaken() -> None:
    """They come first in the body. A gap among them has no id of its own, and is counted as no event."""
    gate = full()
    gate.give([Entry(gap_event("trimmed")), live(1)])
    expected = [Entry(gap_event("trimmed")).frame, *(live(one).frame for one in (1, 2, 3, 4))]
    assert gate.take_joined() == b"".join(expected)
    assert gate.position == gate.written == at(4)
    assert gate.waiting == (0, 0)
    assert taken(gate) == []


def test_a_reader_that_is_behind_gets_no_live_event_with_those_that_are_ready() -> None:
    """They come when the gate opens."""
    gate = closed_holding()
    gate.give_page(page(2, next=at(3)), at(5))
    assert gate.take_joined() == live(2).frame
    assert (gate.position, gate.written, gate.waiting[0]) == (at(3), at(2), 2)


def test_what_is_ready_is_taken_one_by_one_if_it_cannot_be_joined() -> None:
    """It is too much for one body, or not the same for all; or dropped events must be announced behind it."""
    large = Entry(ServerSentEvent("x" * 70_000), at(1), ("a",))
    dropped = full("drop_oldest")
    dropped.hold(live(5))
    for gate, entry in ((full(), large), (new_gate(transform=lambda event, _: event), live(1)), (dropped, live(1))):
        gate.give([entry])
        assert gate.take_joined() == b""
        assert gate.take() is entry


def test_a_transform_gives_each_reader_frames_of_its_own() -> None:
    """So nothing is joined."""
    gate = new_gate(transform=lambda event, _: event)
    gate.arrive(at(1))
    gate.hold(live(2))
    assert gate.take_joined() == b""
    assert taken(gate) == ["2"]


def test_dropped_entries_are_announced_before_the_rest_is_joined() -> None:
    """The gap comes first."""
    gate = full("drop_oldest")
    gate.hold(live(5))
    assert gate.take_joined() == b""


def test_too_much_for_one_body_is_taken_one_by_one() -> None:
    """So is an event that is rendered for each reader; one large event goes alone."""
    large = Entry(ServerSentEvent("x" * 70_000), at(2), ("a",))
    rendered = Entry(RenderedEvent(str, None, None), at(3), ("a",))
    gate = opened()
    gate.hold(large)
    assert gate.take_joined() == large.frame
    gate.hold(large)
    gate.hold(live(4))
    assert gate.take_joined() == b""
    gate = opened()
    gate.hold(rendered)
    gate.hold(live(4))
    assert gate.take_joined() == b""


# Any order of inputs

STEPS = st.lists(st.sampled_from(["publish", "publish", "publish", "take", "round", "lose", "joined"]), max_size=60)


@PATIENT
@given(STEPS)
def test_a_reader_gets_everything_once_in_any_order_of_inputs(steps: list[str]) -> None:
    """Whatever is offered, lost, read and taken: each event is given once, in order, and none is missing."""
    gate, log, got = new_gate(), 1, []
    gate.begin_fresh(())
    gate.arrive(at(log))

    def read_page() -> None:
        if gate.behind and gate.begin_round(at(log)):
            assert gate.position is not None
            after = gate.position.sequence
            upto = min(log, after + 2)
            gate.give_page(page(*range(after + 1, upto + 1), next=None if upto == log else at(upto)), at(log))

    def take() -> None:
        if (entry := gate.take()) is not None:
            assert isinstance(entry.event, ServerSentEvent)
            got.append(int(entry.event.data or ""))

    for step in [*steps, *["round", "take"] * 100]:
        if step == "publish":
            log += 1
            gate.hold(live(log))
        elif step == "take":
            take()
        elif step == "round":
            read_page()
        elif step == "lose":
            gate.lose(None)
        else:
            got += [int(line[6:]) for line in gate.take_joined().splitlines() if line.startswith(b"data: ")]
    assert got == list(range(2, log + 1))
    assert gate.state is OPEN


# Finished


@pytest.mark.parametrize("make", [opened, closed_holding, missed, full, ended])
def test_a_gate_that_was_finished_gives_nothing_more(make: Callable[[], Gate]) -> None:
    """Neither what it holds nor a live event, and no position."""
    gate = make()
    gate.finish()
    gate.hold(live(6))
    assert (gate.ended, gate.waiting, wants(gate), taken(gate)) == ("finished", (0, 0), "end", [])
    assert not gate.show(at(9))


def test_nothing_is_joined_for_a_reader_whose_events_are_looked_at() -> None:
    """The event that ends its stream is found one by one."""
    gate = new_gate(until="done")
    gate.arrive(at(1))
    gate.hold(live(2))
    assert gate.take_joined() == b""
