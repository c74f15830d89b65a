"""A page of history: the events of a resuming reader, and its gaps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from real_redis.helpers import ids, resumed
from real_redis.launcher import RedisServer
from real_redis.readers import reading
from sse_asgi import BackendError, Hub, ServerSentEvent
from sse_asgi._log.event import Entry
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis import _cursor
from sse_asgi.backends.redis._cursor import Row
from sse_asgi.backends.redis._history import HistoryReader, Page, _before, decode
from sse_asgi.testing.contract._naive import NaiveLog

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("hello", "malformed"),
        ("{epoch}-", "malformed"),
        ("{epoch}-{sequence}-1", "malformed"),
        ("{epoch}-1{sequence}0", "malformed"),
        ("{epoch}x-{sequence}", "malformed"),
        ("0badc0de-{sequence}", "epoch"),
        ("{elsewhere}", "epoch"),
        ("{epoch}-9000000000000000", "fork"),
    ],
    ids=["garbage", "half", "three parts", "too long", "no epoch", "foreign epoch", "another hub", "future"],
)
async def test_an_id_that_is_not_of_this_log(new_hub: NewHub, name: str, form: str, reason: str) -> None:
    """The reader gets a gap and everything that is kept; then the stream goes on as usual."""
    async with new_hub() as hub, new_hub(name=f"{name} elsewhere") as other:
        given = await ids(hub, "a", 2)
        elsewhere = (await ids(other, "a", 1))[0]
        mine, _, sequence = given[0].partition("-")
        wrong = form.format(epoch=mine, sequence=sequence, elsewhere=elsewhere)
        assert await resumed(hub, "a", wrong) == (["0", "1"], [reason])


async def test_trimming_is_exact(new_hub: NewHub) -> None:
    """A reader that has the newest dropped event gets no gap; a reader that lacks it does."""
    async with new_hub(history_size=3) as hub:
        given = await ids(hub, "a", 10)
        assert await resumed(hub, "a", given[6]) == (["7", "8", "9"], [])
        assert await resumed(hub, "a", given[5]) == (["8", "9", "end"], ["trimmed"])


async def test_a_silent_hub_is_no_gap(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """A reader that had everything gets no gap, however old its id is; a reader that missed expired events does."""
    async with new_hub(history_ttl=0.2) as hub:
        had, missed = await ids(hub, "a", 2), await ids(hub, "c", 2)
        await hub.publish("b", "later")
        with anyio.fail_after(5):
            while shared_redis.cli("EXISTS", keys("s:b")) == "1":
                await anyio.sleep(0.05)
        assert await resumed(hub, "a", had[1]) == ([], [])
        assert await resumed(hub, "c", missed[0]) == ([], ["expired"])
        assert [event.data for event in await hub.history("b")] == []


async def test_an_old_entry_of_a_busy_channel_is_expired(new_hub: NewHub) -> None:
    """An event that is older than its time is not replayed, although its channel goes on."""
    async with new_hub(history_ttl=0.3) as hub:
        start = await hub.publish("b", "start")
        await hub.publish("a", "old")
        await anyio.sleep(0.35)
        new = await hub.publish("a", "new")
        assert await resumed(hub, "a", start or "") == (["new"], ["expired"])
        assert await resumed(hub, "a", new or "") == (["end"], [])


async def test_an_evicted_stream_is_a_gap(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """Only readers that had not read all of an evicted stream get a gap."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 2)
        shared_redis.cli("DEL", keys("s:a"))
        assert await resumed(hub, "a", given[0]) == ([], ["evicted"])
        shared_redis.cli("DEL", keys("s:a"))
        last = await hub.publish("a", "last")
        assert await resumed(hub, "a", last or "") == ([], [])


@pytest.mark.parametrize(
    ("before", "gaps"),
    [
        ((), []),
        (("c",), []),
        (("ac", "b"), []),
        (("ac", "c", "ac"), []),
        (("ab",), ["evicted"]),
        (("a",), ["evicted"]),
        (("ac", "a", "ac"), ["evicted"]),
    ],
)
async def test_an_evicted_event_that_arrives_live_is_no_gap(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    *,
    before: tuple[str, ...],
    gaps: list[str],
) -> None:
    """Nor is one that another channel has: only a reader that lacks one from before it resumed gets a gap."""
    read = HistoryReader.page

    async def publish_first(*arguments: Any, **options: Any) -> Page:
        monkeypatch.undo()
        await other.publish("a", "live")
        shared_redis.cli("DEL", keys("s:a"))
        return await read(*arguments, **options)

    async with new_hub() as hub, new_hub() as other, reading(hub, "a", "b", "c") as live:
        await other.publish("a", "first")
        for channels in before:
            await other.publish([*channels], channels)
        await live.has("first", *before)
        monkeypatch.setattr(HistoryReader, "page", publish_first)
        async with reading(hub, "a", "c", last_event_id=live.ids[0]) as reader:
            await reader.has(*(channels for channels in before if "c" in channels), "live")
        assert (reader.gaps, live.gaps) == (gaps, [])


async def test_a_channel_that_fell_out_of_the_index(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """If a channel fell out of the index, only readers with older ids get a gap."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 2)
        shared_redis.cli("DEL", keys("s:a"), keys("i"))
        shared_redis.cli("HSET", keys("m"), "x", given[1].partition("-")[2])
        async with reading(hub, "a") as live:
            assert await resumed(hub, "a", given[1]) == ([], [])
            shared_redis.cli("DEL", keys("i"))
            assert (await resumed(hub, "a", given[0])) == (["end"], ["trimmed"])
        assert live.gaps == []


async def test_a_channel_that_the_index_lost_and_whose_stream_is_there(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """The stream proves that a complete reader misses no event, and gives the others their gap."""
    async with new_hub(history_size=2) as hub:
        given = await ids(hub, "a", 4)
        shared_redis.cli("SET", keys("s:c"), "nonsense")
        await hub.publish("b", "later")
        shared_redis.cli("DEL", keys("i"))
        await hub.publish("b", "last")
        async with (
            reading(hub, "a", "b", last_event_id=given[3]) as complete,
            reading(hub, "a", last_event_id=given[0]) as trimmed,
            reading(hub, "c", last_event_id=given[3]) as strange,
        ):
            await complete.has("later", "last")
            await trimmed.has("2", "3")
            await strange.until(lambda one: one.gaps)
        assert (complete.gaps, trimmed.gaps, strange.gaps) == ([], ["trimmed"], ["evicted"])


async def test_a_position_that_this_server_lost(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """A position in a hole was given out by a lost server: the reader gets a gap and every later event."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 3)
        f, lost, g = (int(one.partition("-")[2]) for one in given)
        shared_redis.cli("HSET", keys("m"), "h", f"{f}-{g}")
        assert await resumed(hub, "a", f"{given[0].partition('-')[0]}-{lost}") == (["2"], ["fork"])


async def test_a_position_of_the_life_before(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """A reader with an id of the epoch before gets a gap, and no event twice."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 3)
        shared_redis.cli("HSET", keys("m"), "o", "0badc0de")
        sequence = given[1].partition("-")[2]
        assert await resumed(hub, "a", f"0badc0de-{sequence}") == (["2"], ["epoch"])
        assert await resumed(hub, "a", f"00000000-{sequence}") == (["0", "1", "2", "end"], ["epoch"])


async def test_pages_of_very_many_channels(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more channels than one call merges, those come first that the merge arrives at, and the order is kept."""
    monkeypatch.setattr("sse_asgi.backends.redis._cursor.STREAMS", 1)
    async with new_hub() as hub:
        start = await hub.publish("a", "start")
        for number in range(12):
            await hub.publish("aab"[number % 3], str(number))
        async with reading(hub, "a", "b", last_event_id=start) as reader:
            await reader.has(*map(str, range(12)))
        assert reader.gaps == []


async def test_what_redis_refuses(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """An overwritten key is an error for the caller, and ends no connection."""
    async with new_hub() as hub:
        await hub.publish("a", "1")
        shared_redis.cli("SET", keys("i"), "nonsense")
        with pytest.raises(BackendError, match="refused to read history: WRONGTYPE"):
            await hub.history("a", "b")  # only the index knows the events of a channel without a stream
        with pytest.raises(BackendError, match="not published: Redis refused: WRONGTYPE"):
            await hub.publish("a", "2")
        shared_redis.cli("DEL", keys("i"))
        shared_redis.cli("HSET", keys("m"), "h", "nonsense")
        with pytest.raises(BackendError, match="holds no numbers"):
            await hub.history("a")


@pytest.mark.parametrize("seed", range(4))
async def test_losses_are_told_exactly(new_hub: NewHub, seed: int) -> None:
    """Compared with a log that keeps everything, for events of several channels of which each keeps few."""
    async with new_hub(history_size=2) as hub:
        await NaiveLog(hub.backend, seed).run(30)


async def test_the_newest_events_are_found_backward(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several channels, in as many calls as it takes; joins and leaves are not counted."""
    monkeypatch.setattr(_cursor, "STREAMS", 1)
    async with new_hub() as hub:
        given = [Position.parse(await hub.publish("aab"[number % 3], "x") or "") for number in range(12)]
        await hub.backend.attend("one", lease=9, entered=[Member("a", "ada")])
        last = given[-1]
        assert last is not None
        for count in (1, 5, 11):
            assert await hub.backend.rewind(("a", "b", "never"), count, last) == given[-1 - count]
        assert await hub.backend.rewind(("a", "b"), 12, last) is None


async def test_the_channels_that_changed_are_known(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """By the two indexes; where one was evicted, all may have changed."""
    async with new_hub() as hub:
        start = Position.parse(await hub.publish("a", "1") or "")
        assert start is not None
        server = hub.backend._keeper.session.server  # type: ignore[attr-defined]
        changed = partial(hub.backend._history_reader.changed, server, ("a", "b", "c"), start)  # type: ignore[attr-defined]
        assert await changed() == ()
        await hub.publish("b", "2")
        await hub.backend.attend("one", lease=9, entered=[Member("c", "ada")])
        assert await changed() == ("b", "c")
        shared_redis.cli("DEL", keys("j"))
        assert await changed() == ("a", "b", "c")


async def test_joins_are_read_with_the_events(new_hub: NewHub) -> None:
    """In their places, on the channels that have any."""
    async with new_hub() as hub:
        start = Position.parse(await hub.publish("a", "1") or "")
        await hub.backend.attend("one", lease=9, entered=[Member("a", "ada")])
        last = Position.parse(await hub.publish("b", "2") or "")
        assert last is not None
        page = await hub.backend.history(("a", "b"), start, last, 10)
        assert [event_type(entry) for entry in page.entries] == ["sse.join", None]
        assert (page.reason, page.next) == (None, None)


def event_type(entry: Entry) -> str | None:
    assert isinstance(entry.event, ServerSentEvent)
    return entry.event.event


@pytest.mark.parametrize("before", [b"", b"[", b"7", b'["b",1]', b'["a"]', b'["a",null]', b'["a",7]', b"[" * 100_000])
def test_an_event_that_does_not_name_its_channels_says_nothing(before: bytes) -> None:
    """Other programs may write anything."""
    assert _before(Row(7, "a", 0, b"", before), "a") is None


def test_a_row_that_is_not_ours_has_no_entry() -> None:
    """The caller counts it."""
    with pytest.raises(ValueError):  # noqa: PT011 - the caller adds the message
        decode(Row(7, "a", None, b""), Position("0badc0de", 7))


async def test_a_loss_is_traced_through_other_channels(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """An event that one channel has dropped and another one has is not missing; the first that none has is."""
    sizes = {"a": 1, "b": 1000}
    async with new_hub(history_size=sizes.__getitem__) as hub:
        start = Position.parse(await hub.publish("b", "start") or "")
        given = [Position.parse(await hub.publish(["a", "b"], str(number)) or "") for number in range(60)]
        last = given[-1]
        assert start is not None
        assert last is not None
        page = await hub.backend.history(("a", "b"), start, last, 3)
        assert ([entry.position for entry in page.entries], page.reason) == (given[:3], None)
        shared_redis.cli("XDEL", keys("s:b"), f"{given[50].sequence}-0")  # type: ignore[union-attr]
        page = await hub.backend.history(("a", "b"), start, last, 3)
        assert (page.reason, page.lost) == ("trimmed", given[50].sequence)  # type: ignore[union-attr]
