"""The parts of RedisBackend that need no server: bytes to replies, replies to askers, messages to sinks."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse_asgi import ServerSentEvent
from sse_asgi._log.event import Entry, History
from sse_asgi._log.position import Position
from sse_asgi._loop.running import checkpoint
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._inbox import Inbox
from sse_asgi.backends.redis._keys import Keys
from sse_asgi.backends.redis._link import Link, LinkLostError
from sse_asgi.backends.redis._message import payload
from sse_asgi.backends.redis._pages import KEPT_SECONDS, Pages
from sse_asgi.backends.redis._resp import (
    NOT_ENOUGH,
    Parser,
    ProtocolError,
    Push,
    ReplyError,
    new_reader,
    pack,
    pack_slowly,
)
from sse_asgi.backends.redis._session import is_elsewhere, is_moving
from sse_asgi.exceptions import BackendError, HubClosedError

# RESP

REPLIES = [
    (b"+OK\r\n", b"OK"),
    (b":-7\r\n", -7),
    (b"$5\r\nhe\r\no\r\n", b"he\r\no"),
    (b"$-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"*-1\r\n", None),
    (b"*2\r\n:1\r\n*1\r\n+a\r\n", [1, [b"a"]]),
    (b"_\r\n", None),
    (b",1.5\r\n", 1.5),
    (b"#t\r\n", True),
    (b"=7\r\ntxt:abc\r\n", b"abc"),
    (b"%1\r\n+a\r\n:1\r\n", {b"a": 1}),
    (b">2\r\n+message\r\n+x\r\n", [b"message", b"x"]),
]


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
@pytest.mark.parametrize(("data", "reply"), REPLIES)
def test_a_reply_is_read_however_it_is_cut(make: Callable[[], Any], data: bytes, reply: object) -> None:
    """Both readers read each kind of reply, at whatever byte it is cut in two."""
    for at in range(len(data)):
        reader = make()
        reader.feed(data[:at])
        assert reader.gets() is NOT_ENOUGH
        reader.feed(data[at:])
        assert reader.gets() == reply
        assert reader.gets() is NOT_ENOUGH


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
def test_errors_and_pushes_are_told_from_replies(make: Callable[[], Any]) -> None:
    """An error is returned, not raised; a push has a type of its own."""
    reader = make()
    reader.feed(b"-ERR no\r\n>1\r\n+a\r\n*1\r\n+a\r\n")
    error = reader.gets()
    assert isinstance(error, ReplyError)
    assert str(error) == "ERR no"
    assert isinstance(reader.gets(), Push | hiredis.PushNotification)
    assert type(reader.gets()) is list


@pytest.mark.parametrize("make", [Parser, new_reader], ids=["python", "hiredis"])
@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b":seven\r\n"])
def test_what_is_no_resp_is_an_error(make: Callable[[], Any], data: bytes) -> None:
    """Another protocol is recognised."""
    reader = make()
    reader.feed(data)
    with pytest.raises(ProtocolError):
        reader.gets()


def test_both_ways_to_write_a_command_agree() -> None:
    """Text, bytes and numbers are written alike with and without hiredis."""
    command = ("SET", b"k\r\n", 7, "ä")
    assert pack_slowly(command) == pack(command)


# A link


class Wire(asyncio.Transport):
    """A transport that writes down what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def linked(timeout: float = 5) -> tuple[Link, Wire, list[str]]:
    lost: list[str] = []
    link, wire = Link(timeout), Wire()
    link.on_lost = lost.append
    link.connection_made(wire)
    return link, wire, lost


@pytest.mark.anyio
async def test_commands_share_a_write_and_answers_keep_their_order() -> None:
    """What is asked in one turn goes out in one write; who was cancelled does not shift the answers of others."""
    link, wire, _ = linked()
    one, two, three = link.call("A"), link.call("B"), link.call("C")
    await asyncio.sleep(0)
    assert len(wire.written) == 1
    two.cancel()
    link.data_received(b"+1\r\n+2\r\n-ERR 3\r\n")
    assert await one == b"1"
    with pytest.raises(ReplyError, match="ERR 3"):
        await three


@pytest.mark.anyio
async def test_an_answer_that_does_not_come_ends_the_link() -> None:
    """The oldest question decides; whoever waits is told, and whoever asks afterwards as well."""
    link, wire, lost = linked(0.02)
    await asyncio.sleep(0.01)
    first = link.call("A")
    link.data_received(b"+1\r\n")
    assert await first == b"1"
    late = link.call("B")
    with pytest.raises(LinkLostError, match=r"no answer within 0\.02 s"):
        await late
    with pytest.raises(LinkLostError):
        await link.call("C")
    assert wire.aborted
    assert len(lost) == 1
    assert b"C" not in b"".join(wire.written)


@pytest.mark.anyio
async def test_much_that_arrives_at_once_is_read_to_its_end() -> None:
    """Answers are handed out in their order, wherever the pieces end that they are read in."""
    link, _, lost = linked()
    asked = [link.call("A") for _ in range(10)]
    link.data_received(b"".join(b"$4000\r\n%04000d\r\n" % number for number in range(10)))
    assert [int(await one) for one in asked] == list(range(10))
    assert lost == []


@pytest.mark.anyio
async def test_an_answer_that_takes_long_to_arrive_is_waited_for() -> None:
    """As long as some of it comes, the server is there."""
    link, _, lost = linked(0.2)
    asked = link.call("A")
    for part in (b"$", b"3\r\n", b"ab", b"c\r\n"):
        await asyncio.sleep(0.1)
        link.data_received(part)
    assert await asked == b"abc"
    assert lost == []


@pytest.mark.anyio
async def test_an_idle_link_is_left_alone() -> None:
    """Nobody waits, so nothing is late."""
    link, _, lost = linked(0.01)
    link.call("A")
    link.data_received(b"+1\r\n")
    await asyncio.sleep(0.03)
    assert lost == []


@pytest.mark.anyio
async def test_an_answer_to_no_question_ends_the_link() -> None:
    """Nobody knows any more which answer is whose."""
    link, wire, lost = linked()
    link.data_received(b"+1\r\n+2\r\n")
    assert lost == ["an answer to no question: b'1'"]
    assert wire.aborted
    link.connection_lost(None)
    assert link.closed.done()


@pytest.mark.anyio
async def test_what_is_sent_last_is_not_written_to_a_lost_link() -> None:
    """A link that ends in the same turn writes nothing more."""
    link, wire, lost = linked()
    asked = link.call("A")
    link.connection_lost(OSError("gone"))
    with pytest.raises(LinkLostError, match="gone"):
        await asked
    assert wire.written == []
    assert lost == ["the connection was lost: gone"]


@pytest.mark.anyio
async def test_a_link_knows_what_was_sent() -> None:
    """Nothing is unknown of a command that was not written, nor of one that comes too late."""
    link, _, _ = linked()
    written = link.call("A")
    await asyncio.sleep(0)
    waiting = link.call("B")
    link.close("for a test")
    for asked, sent in ((written, True), (waiting, False), (link.call("C"), False)):
        with pytest.raises(LinkLostError, match="for a test") as caught:
            await asked
        assert caught.value.sent is sent


@pytest.mark.anyio
async def test_a_retired_link_ends_with_its_last_answer() -> None:
    """What is on its way is still answered."""
    link, wire, lost = linked()
    one = link.call("A")
    link.retire()
    assert not wire.aborted
    link.data_received(b"+1\r\n")
    assert await one == b"1"
    assert lost == ["it is not needed any more"]


# Errors


WRAPPED = "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write."


@pytest.mark.parametrize(
    ("text", "elsewhere", "moving"),
    [
        ("READONLY You can't write against a read only replica.", True, False),
        (WRAPPED, True, False),
        ("MOVED 1 host:1", True, False),
        ("ASK 1 host:1", False, True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False, True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", False, True),
        ("BUSYGROUP Consumer Group name already exists", False, False),
        ("ERR unknown command 'READONLY '", False, False),
    ],
)
def test_what_an_error_asks_for(text: str, elsewhere: bool, moving: bool) -> None:  # noqa: FBT001
    """Some are about the server, some about the moment, also where Redis 6.2 has wrapped them."""
    assert (is_elsewhere(ReplyError(text)), is_moving(ReplyError(text))) == (elsewhere, moving)


# A inbox


class Tape:
    """A sink that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def deliver(self, entry: Entry) -> None:
        self.told.append(entry.channels if entry.position is None else entry.position.sequence)

    def advance(self, position: Position) -> None:
        self.told.append(f"at {position.sequence}")

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        self.told.append((reason, channels))

    def state(self, *, up: bool) -> None:
        raise AssertionError(up)


class Log:
    """A inbox at position 10 of a log, and what arrives for it."""

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
    """What comes again is dropped, on its own channel and on another."""
    log = Log("a", "b")
    log.arrives("a", 11)
    log.arrives("a", 11)
    log.arrives("a", 12, 11, "a", "b")
    log.arrives("b", 12, 0, "a", "b")
    assert log.tape.told == ["at 10", 11, 12]


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
    """Before it is joined its messages are dropped, whatever life of the log they are from."""
    log = Log("a")
    new = log.inbox.add_user(log.keys.topic("b"), "b")
    log.arrives("b", 11)
    log.arrives("b", 12, epoch="00000000")
    log.inbox.mark_subscribed([new], Position("0badc0de", 12), hold=False)
    log.arrives("b", 13, 12)
    assert log.tape.told == ["at 10", "at 12", 13]
    assert log.probes == []


def test_a_message_of_another_life_is_looked_into() -> None:
    """Whether it is one, or only probes like one, the server knows; what does not look like one is ignored."""
    log = Log("a")
    log.arrives("a", 11, epoch="00000000")
    assert (log.probes, log.inbox.ignored) == ([None], 0)
    log.arrives("a", 12, epoch="good day")
    assert (log.probes, log.inbox.ignored) == ([None], 1)
    log.arrives("a", 13)
    assert log.tape.told == ["at 10", 13]


def test_a_sequence_from_the_far_future_is_ignored() -> None:
    """It is at most a day ahead of the server's clock, or of what the server gave out, if its clock was set back."""
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
    """What was asked for is answered; one answer more is the cluster's, and a new connection owes none."""
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
    """Whatever is held during catching up comes after it, once."""
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


# What is read once


END = History([], None)


class Shelf:
    """Pages that are read when the test says so, or fail."""

    def __init__(self, page: History = END) -> None:
        self.pages = Pages()
        self.page = page
        self.readings: list[asyncio.Future[None]] = []

    async def get(self, wanted: str) -> History:
        return await self.pages.share(wanted, self._read)

    async def _read(self) -> History:
        self.readings.append(asyncio.get_running_loop().create_future())
        await self.readings[-1]
        return self.page._replace(reason=str(len(self.readings)))

    async def readers(self, *wanted: str) -> list[asyncio.Task[History]]:
        tasks = [asyncio.create_task(self.get(one)) for one in wanted]
        await checkpoint()
        await checkpoint()
        return tasks


@pytest.mark.anyio
async def test_a_page_is_read_once_for_all_who_want_it() -> None:
    """And for those who come just behind them; others are read beside it."""
    shelf = Shelf()
    first, second, other = await shelf.readers("a", "a", "b")
    assert len(shelf.readings) == 2
    shelf.readings[0].set_result(None)
    assert await first is await second
    assert not other.done()
    shelf.readings[1].set_result(None)
    assert await other is not await first
    (later,) = await shelf.readers("a")
    assert await later is await first
    await asyncio.sleep(2 * KEPT_SECONDS)
    (last,) = await shelf.readers("a")
    assert len(shelf.readings) == 3
    shelf.readings[2].set_result(None)
    assert await last is not await first


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("count", "page"), [(1, END), (2, History([], Position("0badc0de", 1)))], ids=["alone", "nowhere"]
)
async def test_a_page_is_read_anew(count: int, page: History) -> None:
    """If it was for one reader, so that what is lost meanwhile is found, or got nowhere, so that somewhere is got."""
    shelf = Shelf(page)
    for number in range(2):
        readers = await shelf.readers(*"a" * count)
        assert len(shelf.readings) == number + 1
        shelf.readings[number].set_result(None)
        await asyncio.gather(*readers)


@pytest.mark.anyio
async def test_who_asks_for_a_page_first_may_go() -> None:
    """It is read for the others all the same."""
    shelf = Shelf()
    first, second, third = await shelf.readers("a", "a", "a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    shelf.readings[0].set_result(None)
    assert await second is await third
    assert len(shelf.readings) == 1


@pytest.mark.anyio
async def test_a_page_that_nobody_wants_any_more_is_given_up() -> None:
    """Whoever comes then has another reading, which the end of the first leaves alone."""
    shelf = Shelf()
    gone = await shelf.readers("a", "a")
    for one in gone:
        one.cancel()
    await asyncio.wait(gone)
    (later,) = await shelf.readers("a")
    assert shelf.readings[0].cancelled()
    (beside,) = await shelf.readers("a")
    assert len(shelf.readings) == 2
    shelf.readings[1].set_result(None)
    assert await later is await beside


@pytest.mark.anyio
async def test_a_page_that_cannot_be_read_fails_for_all() -> None:
    """Who asks again has it read again."""
    shelf = Shelf()
    tasks = await shelf.readers("a", "a", "a")
    shelf.readings[0].set_exception(BackendError("refused"))
    for one in tasks:
        with pytest.raises(BackendError, match="refused"):
            await one
    (again,) = await shelf.readers("a")
    shelf.readings[1].set_result(None)
    await again


# The backend


@pytest.mark.anyio
async def test_reaching_goes_on_in_the_next_session() -> None:
    """A connection that is lost meanwhile says nothing of what was published."""
    answers: list[Exception | None] = [LinkLostError("lost"), None]

    class Worker:
        async def reach(self) -> None:
            if (answer := answers.pop(0)) is not None:
                raise answer

    backend = RedisBackend()
    backend._keeper = Worker()  # type: ignore[assignment]
    await backend.reach()
    assert answers == []


@pytest.mark.anyio
async def test_a_hub_that_is_closed_says_so_to_all_who_wait_for_a_page() -> None:
    """Also to those who want the same."""

    class Deaf(Tape):
        def state(self, *, up: bool) -> None:
            """Hear that nothing is there."""

    backend = RedisBackend("unix:///nowhere/redis.sock")
    place = Position("0badc0de", 1)
    async with backend.connect(Deaf()):
        assert backend._keeper is not None
        backend._keeper.inbox.begin(place)
        tasks = [asyncio.create_task(backend.history(("a",), place, place, 10)) for _ in range(3)]
        await checkpoint()
    for task in tasks:
        with pytest.raises(HubClosedError):
            await task
