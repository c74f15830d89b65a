"""Messages in their order, to the sinks of a process."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.redis.tape import Tape
from sse_asgi import ServerSentEvent
from sse_asgi._log.event import Entry
from sse_asgi._log.position import Position
from sse_asgi.backends.redis._inbox import Inbox
from sse_asgi.backends.redis._keys import Keys
from sse_asgi.backends.redis._message import payload


class Log:
    """An inbox at position 10 of a log, and the messages that arrive for it."""

    def __init__(self, *channels: str) -> None:
        self.keys = Keys("sse", "x")
        self.inbox = Inbox(self.keys, keeps=True)
        self.tape = Tape()
        self.failed: list[str] = []
        self.inbox.fail = self.failed.append
        self.probes: list[None] = []
        self.inbox.probe = lambda: self.probes.append(None)
        self.inbox.sinks.append(self.tape)
        self.inbox.begin(Position("0badc0de", 10))
        self.inbox.mark_subscribed(
            [self.inbox.add_user(self.keys.topic(name), name) for name in channels], None, hold=False
        )

    def arrives(self, channel: str, sequence: int, previous: int = 0, *channels: str, epoch: str = "0badc0de") -> None:
        body = payload(ServerSentEvent("x"), channels or (channel,), None)
        message = b"%b %d %d %b" % (epoch.encode(), sequence, previous, body)
        self.inbox.receive([b"message", self.keys.topic(channel), message])


def test_each_event_is_delivered_once() -> None:
    """An event that arrives again, on its own channel or on another, is dropped."""
    log = Log("a", "b")
    log.arrives("a", 11)
    log.arrives("a", 11)
    log.arrives("a", 12, 11, "a", "b")
    log.arrives("b", 12, 0, "a", "b")
    assert log.tape.told == ["at 10", 11, 12]


def test_the_last_event_that_was_heard_on_a_channel() -> None:
    """It is known where nothing later was heard, also while the message on another topic of the event is to come."""
    log = Log("a", "b", "c")

    def heard(upto: int) -> list[int]:
        return [log.inbox.heard(log.keys.topic(name), upto) for name in "abcd"]

    log.inbox.mark_subscribed(log.inbox.channels.values(), Position("0badc0de", 10), hold=False)
    assert heard(10) == [10, 10, 10, 10]
    log.arrives("a", 11)
    assert heard(11) == [11, 10, 10, 11]
    log.arrives("a", 12, 11, "a", "b")
    assert heard(12) == [12, 12, 10, 12]
    log.arrives("b", 12, 0, "a", "b")
    log.arrives("c", 13)
    assert heard(13) == [12, 12, 13, 13]
    assert heard(12) == [12, 12, 10, 12]
    assert heard(11) == [11, 10, 10, 11]
    log.arrives("c", 14, 13)
    assert heard(12) == [12, 12, 10, 12]
    log.arrives("c", 16, 15)
    assert heard(14) == [12, 12, 14, 14]
    assert heard(15) == [12, 12, 15, 15]
    log.inbox.reset()
    assert heard(15) == [15, 15, 15, 15]
    log.inbox.mark_subscribed(log.inbox.channels.values(), Position("0badc0de", 20), hold=False)
    assert heard(19) == [19, 19, 19, 19]


def test_without_history_an_event_of_several_channels_is_delivered_once() -> None:
    """A channel that is only being joined, or has no reader, leaves it to the others."""
    keys, tape = Keys("sse", "x"), Tape()
    inbox = Inbox(keys, keeps=False)
    inbox.sinks.append(tape)
    joining = inbox.add_user(keys.topic("a"), "a")
    inbox.mark_subscribed([inbox.add_user(keys.topic(name), name) for name in "bc"], None, hold=False)
    message = b"- 0 0 " + payload(ServerSentEvent("x"), ("a", "b", "c", "d"), None)
    for name in "abc":
        inbox.receive([b"message", keys.topic(name), message])
    assert tape.told == [("a", "b", "c", "d")]
    inbox.mark_subscribed([joining], None, hold=False)
    for name in "abc":
        inbox.receive([b"message", keys.topic(name), message])
    assert tape.told == [("a", "b", "c", "d")] * 2


def test_without_history_what_was_held_for_a_reader_who_left_is_dropped() -> None:
    """The others get theirs."""
    keys, tape = Keys("sse", "x"), Tape()
    inbox = Inbox(keys, keeps=False)
    inbox.sinks.append(tape)
    inbox.mark_subscribed([inbox.add_user(keys.topic(name), name) for name in "ab"], None, hold=True)
    for name in "ab":
        inbox.receive([b"message", keys.topic(name), b"- 0 0 " + payload(ServerSentEvent("x"), (name,), None)])
    inbox.remove_user(keys.topic("a"))
    assert inbox.release_held()
    assert tape.told == [("b",)]


def test_what_nobody_reads_is_dropped() -> None:
    """Messages that were on their way when the last reader left, and other pushes, are nothing."""
    log = Log("a")
    log.arrives("gone", 11)
    log.inbox.receive([b"subscribe", b"x", 1])
    log.inbox.receive([b"sunsubscribe", b"x", 0])
    assert log.tape.told == ["at 10"]
    assert log.failed == []


def test_a_channel_begins_at_its_mark() -> None:
    """Before it is subscribed its messages are dropped, also those of another epoch."""
    log = Log("a")
    new = log.inbox.add_user(log.keys.topic("b"), "b")
    log.arrives("b", 11)
    log.arrives("b", 12, epoch="00000000")
    log.inbox.mark_subscribed([new], Position("0badc0de", 12), hold=False)
    log.arrives("b", 13, 12)
    assert log.tape.told == ["at 10", "at 12", 13]
    assert log.probes == []


def test_a_message_of_another_life_is_looked_into() -> None:
    """The server knows whether the log began another life. A message without an epoch is ignored."""
    log = Log("a")
    log.arrives("a", 11, epoch="00000000")
    assert (log.probes, log.inbox.ignored) == ([None], 0)
    log.arrives("a", 12, epoch="good day")
    assert (log.probes, log.inbox.ignored) == ([None], 1)
    log.arrives("a", 13)
    assert log.tape.told == ["at 10", 13]


def test_a_sequence_from_the_far_future_is_ignored() -> None:
    """It may be at most a day ahead of the server's clock, or of the last sequence if the clock was set back."""
    day, log = 86_400_000_000, Log("a")
    now = round(time.monotonic() * 1_000_000)
    log.arrives("a", now + 2 * day)
    assert (log.tape.told, log.inbox.ignored) == (["at 10"], 1)
    log.inbox.clock = 2 * day / 1_000_000
    log.arrives("a", now + 2 * day)
    log.inbox.clock = 0.0
    log.arrives("a", now + 3 * day - 1, now + 2 * day)
    log.arrives("a", now + 5 * day, now + 3 * day)
    assert log.tape.told == ["at 10", now + 2 * day, now + 3 * day - 1]


def test_a_slot_that_moves_ends_the_session() -> None:
    """A cluster says so by unsubscribing us."""
    log = Log("a")
    log.inbox.receive([b"sunsubscribe", log.keys.topic("a"), 0])
    assert log.failed == ["the cluster moved the hub's slot"]


def test_a_channel_that_is_left_and_entered_at_once_has_not_moved() -> None:
    """Each confirmation is expected once; one more comes from the cluster. A new connection expects none."""
    log = Log("a")
    topic = log.keys.topic("a")
    log.inbox.expect_unsubscribed([topic])
    log.inbox.expect_unsubscribed([topic])
    for _ in range(2):
        log.inbox.receive([b"sunsubscribe", topic, 0])
    assert log.failed == []
    log.inbox.expect_unsubscribed([topic])
    log.inbox.reset()
    log.inbox.receive([b"sunsubscribe", topic, 0])
    assert log.failed == ["the cluster moved the hub's slot"]


@given(st.lists(st.sampled_from("ab"), max_size=12), st.integers(0, 12))
def test_held_messages_keep_their_order(channels: list[str], at: int) -> None:
    """Events that are held during catching up are delivered after it, once."""
    log = Log("a", "b")
    last = {"a": 0, "b": 0}
    joined = list(log.inbox.channels.values())
    for sequence, name in enumerate(channels, 11):
        if sequence - 11 == at:
            log.inbox.mark_subscribed(joined, Position("0badc0de", sequence - 1), hold=True)
        log.arrives(name, sequence, last[name])
        last[name] = sequence
    assert log.inbox.release_held()
    assert [one for one in log.tape.told if isinstance(one, int)] == [*range(11, 11 + len(channels))]


def test_what_cannot_be_held_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more messages than are held, releasing them fails, and the next mark begins anew."""
    monkeypatch.setattr("sse_asgi.backends.redis._inbox.HELD", 1)
    log = Log("a")
    joined = list(log.inbox.channels.values())
    log.inbox.mark_subscribed(joined, Position("0badc0de", 10), hold=True)
    log.arrives("a", 11)
    log.arrives("a", 12, 11)
    assert not log.inbox.release_held()
    log.arrives("a", 13, 12)
    log.inbox.mark_subscribed(joined, Position("0badc0de", 13), hold=True)
    assert log.inbox.release_held()
    log.arrives("a", 14, 13)
    assert log.tape.told == ["at 10", 14]


def test_a_channel_lives_while_it_has_users() -> None:
    """A topic without users is not known."""
    log = Log("a")
    topic = log.keys.topic("a")
    assert log.inbox.add_user(topic, "a") is log.inbox.channels[topic]
    assert [log.inbox.remove_user(topic) for _ in range(3)] == [False, True, False]
    assert log.inbox.channels == {}


def test_a_hole_is_a_gap() -> None:
    """An event whose previous one did not arrive is delivered after the gap."""
    log = Log("a")
    log.arrives("a", 11)
    log.arrives("a", 13, 12)
    log.arrives("a", 14, 13)
    assert log.tape.told == ["at 10", 11, ("lost", ("a",)), 13, 14]


def test_a_message_that_cannot_be_read_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and counted."""
    log = Log("a")
    for message in (b"hello", b"0badc0de -5 0 \ndata: x\n\n", b"0badc0de 11 0 \ndata: x\n"):
        log.inbox.receive([b"message", log.keys.topic("a"), message])
    log.inbox.ignore("an entry of the channel 'a'")
    assert (log.tape.told, log.inbox.ignored) == (["at 10"], 4)
    assert [one.message for one in caplog.records] == [
        "Redis: a message on the channel 'a' is not of this library, or broken; it and its like are ignored"
    ]


def test_a_message_without_history_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    """And the other way round: the log names the option that differs."""
    log = Log("a")
    log.inbox.receive([b"message", log.keys.topic("a"), b"- 0 0 \ndata: x\n\n"])
    plain = Inbox(log.keys, keeps=False)
    plain.mark_subscribed([plain.add_user(log.keys.topic("a"), "a")], None, hold=False)
    plain.receive([b"message", log.keys.topic("a"), b"0badc0de 1 0 \ndata: x\n\n"])
    assert (log.inbox.ignored, plain.ignored) == (1, 1)
    assert [one.message.count("history_size=0") for one in caplog.records] == [1, 1]


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("epoch", [b"", b" "])
def test_a_message_with_an_empty_epoch_is_ignored(epoch: bytes, *, keeps: bool) -> None:
    """Also before the first mark, and without history, where this process knows no epoch."""
    keys, tape = Keys("sse", "x"), Tape()
    inbox = Inbox(keys, keeps=keeps)
    inbox.sinks.append(tape)
    inbox.mark_subscribed([inbox.add_user(keys.topic("a"), "a")], None, hold=False)
    inbox.receive([b"message", keys.topic("a"), epoch + b" 5 0 \ndata: x\n\n"])
    assert (tape.told, inbox.position, inbox.ignored) == ([], None, 1)


def test_what_was_held_is_forgotten_with_its_session() -> None:
    """The next session reads it again."""
    log = Log("a")
    joined = list(log.inbox.channels.values())
    log.inbox.mark_subscribed(joined, Position("0badc0de", 10), hold=True)
    log.arrives("a", 11)
    log.inbox.reset()
    assert log.inbox.release_held()
    assert log.tape.told == ["at 10"]


def test_a_mark_moves_the_position_forward() -> None:
    """Never back; another life of the log is a gap for all, but not the first life."""
    log = Log("a")
    log.inbox.advance(Position("0badc0de", 9))
    log.inbox.advance(None)
    log.inbox.advance(Position("0badc0de", 12))
    log.inbox.begin(Position("deadbeef", 13))
    assert log.tape.told == ["at 10", "at 12", "at 13", (None, None)]
    assert log.inbox.position == Position("deadbeef", 13)


def test_what_was_caught_up_is_delivered() -> None:
    """An entry of history moves the position as a message does."""
    log = Log("a")
    event = ServerSentEvent("x")
    log.inbox.deliver(Entry(event, Position("0badc0de", 12), ("a",), None), Position("0badc0de", 12))
    log.arrives("a", 12)
    assert log.tape.told == ["at 10", 12]
    assert log.inbox.position == Position("0badc0de", 12)


def test_an_inbox_outside_of_a_session_needs_nothing() -> None:
    """Its session's functions do nothing before there is one."""
    inbox = Inbox(Keys("sse", "x"), keeps=True)
    inbox.fail("for a test")
    inbox.probe()
    assert inbox.position is None
