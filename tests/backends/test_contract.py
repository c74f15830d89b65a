"""The contract of every backend: one suite over all of them, through the backend's own interface and through a hub."""

import json
import math
import secrets
from typing import Any

import anyio
import pytest

from backends.naive import NaiveLog
from backends.recorder import Tape, connected, put, settled, texts
from sse_asgi import Backend, Hub, MemoryBackend
from sse_asgi._hub.subscription import PAGE
from sse_asgi._log.position import Position
from sse_asgi.backends.base import PAGE_BYTES, Member
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

# RedisBackend runs on asyncio only.
CASES = [("memory", "asyncio"), ("memory", "trio"), ("redis", "asyncio")]


@pytest.fixture(params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def anyio_backend(case: tuple[str, str]) -> str:
    return case[1]


@pytest.fixture
def make_backend(case: tuple[str, str], request: pytest.FixtureRequest) -> Any:
    """Return a function that makes a backend with these history options."""
    if case[0] == "memory":
        return MemoryBackend
    url = request.getfixturevalue("shared_redis").url
    return lambda **options: RedisBackend(url, name=secrets.token_hex(8), **options)


async def test_positions_grow_in_one_sequence(make_backend: Any) -> None:
    """All events of a log are numbered in one increasing sequence, on any channel."""
    backend = make_backend()
    async with connected(backend, "a", "b"):
        positions = [await put(backend, name) for name in "abab"]
    assert len({position.epoch for position in positions}) == 1
    assert [p.sequence for p in positions] == sorted({p.sequence for p in positions})


async def test_delivery_is_in_the_order_of_the_log(make_backend: Any) -> None:
    """A sink gets each event once, in the order of positions, with its channels, key and frame."""
    backend = make_backend()
    async with connected(backend, "a", "b") as tape:
        for number in range(20):
            await put(backend, "ab"[number % 2], data=str(number), key="k")
        await settled(tape, 20)
    assert texts(tape.entries) == [str(number) for number in range(20)]
    assert [entry.channels for entry in tape.entries[:2]] == [("a",), ("b",)]
    assert {entry.key for entry in tape.entries} == {"k"}
    assert tape.entries[0].frame == f"id: {tape.entries[0].position}\ndata: 0\n\n".encode()


async def test_what_was_published_can_be_reached(make_backend: Any) -> None:
    """Everything that was published before is delivered when `reach` returns."""
    backend = make_backend()
    async with connected(backend, "a") as tape:
        for number in range(50):
            await put(backend, "a", data=str(number))
            await backend.reach()
            assert texts(tape.entries)[-1] == str(number)


async def test_several_channels_are_one_event(make_backend: Any) -> None:
    """An event that is published to several channels has one position, one delivery and one place in history."""
    backend = make_backend()
    async with connected(backend, "a", "b") as tape:
        position = await put(backend, "a", "b")
        await settled(tape, 1)
        history = await backend.history(("a", "b"), None, position, 10)
    assert [entry.position for entry in tape.entries] == [position]
    assert [entry.position for entry in history.entries] == [position]


async def test_idempotency_key_stores_once(make_backend: Any) -> None:
    """Publishing again with the same key stores and delivers nothing, and returns the first position."""
    backend = make_backend()
    async with connected(backend, "a") as tape:
        first = await put(backend, "a", data="1", once="key")
        again = await put(backend, "a", data="2", once="key")
        other = await put(backend, "a", data="3", once="other")
        await settled(tape, 2)
    assert first == again != other
    assert texts(tape.entries) == ["1", "3"]


async def test_history_pages_in_order(make_backend: Any) -> None:
    """Pages follow each other by their next position, and the last one has none."""
    backend = make_backend()
    async with connected(backend, "a", "b", "c"):
        for number in range(10):
            last = await put(backend, "abc"[number % 3], data=str(number))
        seen, after, pages = [], None, 0
        while True:
            page = await backend.history(("a", "b"), after, last, 3)
            seen += texts(page.entries)
            pages += 1
            assert page.reason is None
            if page.next is None:
                break
            after = page.next
    assert seen == ["0", "1", "3", "4", "6", "7", "9"]
    assert pages == 3


async def test_history_is_bounded_by_both_ends(make_backend: Any) -> None:
    """Only entries after the one position and up to the other are returned."""
    backend = make_backend()
    async with connected(backend, "a"):
        positions = [await put(backend, "a", data=str(number)) for number in range(6)]
        page = await backend.history(("a",), positions[1], positions[3], 10)
    assert texts(page.entries) == ["2", "3"]
    assert page.next is None


async def test_history_outlives_readers(make_backend: Any) -> None:
    """Events of a channel without readers are kept."""
    backend = make_backend()
    async with connected(backend):
        start = await put(backend, "other")
        await backend.subscribe(("a",))
        await backend.unsubscribe(("a",))
        last = await put(backend, "a", data="kept")
        assert texts((await backend.history(("a",), start, last, 10)).entries) == ["kept"]


async def test_unknown_channel_has_no_history(make_backend: Any) -> None:
    """A channel that nothing was published to has an empty history, and misses nothing."""
    backend = make_backend()
    async with connected(backend):
        position = await put(backend, "a")
        page = await backend.history(("b",), position, position, 10)
    assert (list(page.entries), page.next, page.reason) == ([], None, None)


async def test_trimmed_is_exact_at_the_boundary(make_backend: Any) -> None:
    """A reader gets a gap only if the first event after its position is not kept."""
    backend = make_backend(history_size=3)
    async with connected(backend):
        positions = [await put(backend, "a", data=str(number)) for number in range(10)]
        reasons = [(await backend.history(("a",), p, positions[-1], 10)).reason for p in positions]
        rest = await backend.history(("a",), positions[0], positions[-1], 10)
    kept = 10 - len(rest.entries)
    assert reasons == ["trimmed"] * (kept - 1) + [None] * (11 - kept)
    assert texts(rest.entries) == [str(number) for number in range(kept, 10)]


async def test_trimming_concerns_only_its_channel(make_backend: Any) -> None:
    """The trimming of a busy channel is not a gap for readers of a quiet one."""
    backend = make_backend(history_size=2)
    async with connected(backend):
        start = await put(backend, "quiet")
        for _ in range(50):
            last = await put(backend, "busy")
        assert (await backend.history(("quiet",), start, last, 10)).reason is None
        assert (await backend.history(("quiet", "busy"), start, last, 10)).reason == "trimmed"


async def test_position_of_another_life_is_an_epoch_gap(make_backend: Any) -> None:
    """A position of another epoch is answered with all that is kept, and the reason."""
    backend = make_backend()
    async with connected(backend):
        last = await put(backend, "a", data="1")
        foreign = last._replace(epoch="0" * 8 if last.epoch != "0" * 8 else "1" * 8)
        page = await backend.history(("a",), foreign, last, 10)
    assert (texts(page.entries), page.reason) == (["1"], "epoch")


async def test_position_from_the_future_is_a_fork(make_backend: Any) -> None:
    """A position that this log never gave out is answered with all that is kept, and the reason."""
    backend = make_backend()
    async with connected(backend):
        last = await put(backend, "a", data="1")
        page = await backend.history(("a",), last._replace(sequence=last.sequence + 1000), last, 10)
    assert (texts(page.entries), page.reason) == (["1"], "fork")


async def test_position_reaches_a_sink_before_subscribing_returns(make_backend: Any) -> None:
    """A hub that has had no event yet knows the position of the log."""
    backend = make_backend()
    async with connected(backend):
        last = await put(backend, "a")
    async with connected(backend, "a") as tape:
        assert tape.position == last


async def test_two_hubs_on_one_backend_see_the_same(make_backend: Any) -> None:
    """An event published on one hub reaches the readers of another one, under the same id."""
    backend = make_backend()
    async with Hub(backend) as one, Hub(backend) as two, two.subscribe("a") as subscription:
        published = await one.publish("a", "hello")
        event = await anext(subscription)
    assert (event.data, event.id) == ("hello", published)


async def test_no_history_means_no_positions(make_backend: Any) -> None:
    """With history_size=0 events are delivered without a position."""
    backend = make_backend(history_size=0)
    async with connected(backend, "a") as tape:
        assert await backend.subscribe(("a",)) is None
        assert await put(backend, "a", data="plain") is None
        await settled(tape, 1)
    assert tape.entries[0].position is None
    assert tape.entries[0].frame == b"data: plain\n\n"


@pytest.mark.parametrize(
    "options", [{"history_size": -1}, {"history_ttl": 0}, {"history_ttl": -1}, {"history_ttl": float("nan")}]
)
async def test_bad_options_are_refused(make_backend: Any, options: dict[str, int]) -> None:
    """A history that cannot be is refused where it is asked for."""
    with pytest.raises(ValueError, match="at least 0"):
        make_backend(**options)


# Pages and losses


async def pages(backend: Backend, channels: tuple[str, ...], after: Any, upto: Position, limit: int = 256) -> Any:
    found = [await backend.history(channels, after, upto, limit)]
    while found[-1].next is not None:
        found.append(await backend.history(channels, found[-1].next, upto, limit))
    return found


async def test_a_page_is_bounded_in_bytes_over_all_its_channels(make_backend: Any) -> None:
    """A page ends before the event that would take it beyond PAGE_BYTES, over all of its channels."""
    backend = make_backend()
    async with connected(backend, "a", "b"):
        for number in range(20):
            last = await put(backend, "ab"[number % 2], data=chr(97 + number) * 40_000)
        found = await pages(backend, ("a", "b"), None, last)
    sizes = [sum(len(entry.frame) for entry in page.entries) for page in found]
    assert all(size <= PAGE_BYTES for size in sizes)
    assert [text[0] for page in found for text in texts(page.entries)] == list("abcdefghijklmnopqrst")


async def test_an_event_larger_than_a_page_is_a_page_of_its_own(make_backend: Any) -> None:
    """A page has at least one entry, so that reading goes on."""
    backend = make_backend()
    async with connected(backend, "a"):
        for _ in range(3):
            last = await put(backend, "a", data="x" * (PAGE_BYTES + 1))
        assert [len(page.entries) for page in await pages(backend, ("a",), None, last)] == [1, 1, 1]


async def test_history_is_bounded_in_bytes(make_backend: Any) -> None:
    """A channel keeps at most `history_bytes` of its newest events; a reader that missed one gets the gap `trimmed`."""
    backend = make_backend(history_bytes=100_000)
    async with connected(backend, "a", "b"):
        first = await put(backend, "b")
        for number in range(100):
            last = await put(backend, "a", data=f"{number:04}" * 2500)
        found = await pages(backend, ("a",), first, last)
        quiet = await backend.history(("b",), first, last, 10)
    entries = [entry for page in found for entry in page.entries]
    assert 0 < sum(len(entry.frame) for entry in entries) <= 100_000
    assert texts(entries)[-1] == "0099" * 2500
    assert (found[0].reason, quiet.reason) == ("trimmed", None)


async def test_an_event_of_two_channels_is_missing_only_where_neither_holds_it(make_backend: Any) -> None:
    """While one channel holds it, a reader of both gets no gap, and a reader of the other channel alone gets one."""
    backend = make_backend(history_size=2)
    async with connected(backend, "busy", "quiet"):
        first = await put(backend, "quiet")
        shared = await put(backend, "busy", "quiet", data="shared")
        await put(backend, "busy", data="2")
        last = await put(backend, "busy", data="3")
        both = await backend.history(("busy", "quiet"), first, last, 10)
        one = await backend.history(("busy",), first, last, 10)
        assert (await backend.history(("busy",), shared, last, 10)).reason is None
        await put(backend, "quiet", data="4")
        last = await put(backend, "quiet", data="5")
        neither = await backend.history(("busy", "quiet"), first, last, 10)
    assert (texts(both.entries), both.reason) == (["shared", "2", "3"], None)
    assert (texts(one.entries), one.reason) == (["2", "3"], "trimmed")
    assert (texts(neither.entries), neither.reason) == (["2", "3", "4", "5"], "trimmed")


async def test_random_runs_agree_with_a_log_that_keeps_everything(make_backend: Any, case: tuple[str, str]) -> None:
    """History is in order and has each event once; it has a reason exactly if an event is missing."""
    for seed in range(300 if case[0] == "memory" else 30):
        backend = make_backend(history_size=1 + seed % 4, history_bytes=(80, 300, 1 << 20)[seed % 3])
        async with connected(backend, *"abcd"):
            await NaiveLog(backend, seed).run()


# Rewinding


async def test_the_newest_events_begin_where_rewind_says(make_backend: Any) -> None:
    """As many events follow the position as were asked for, over all the channels; None where no more are kept."""
    backend = make_backend()
    async with connected(backend, "a", "b", "c"):
        for number in range(30):
            last = await put(backend, "abc"[number % 3], data=str(number))
        for count in (1, 2, 7, 19):
            after = await backend.rewind(("a", "b"), count, last)
            found = await pages(backend, ("a", "b"), after, last)
            assert (
                texts(entry for page in found for entry in page.entries)
                == [str(number) for number in range(30) if number % 3 < 2][-count:]
            )
        assert await backend.rewind(("a", "b"), 20, last) is None
        assert await backend.rewind(("a", "b"), 10**6, last) is None
        assert await backend.rewind(("never used",), 1, last) is None


async def test_rewind_counts_events_up_to_a_position(make_backend: Any) -> None:
    """An event for several of the channels counts once, and one after the position not at all."""
    backend = make_backend()
    async with connected(backend, "a", "b"):
        await put(backend, "a", data="0")
        await put(backend, "a", "b", data="1")
        upto = await put(backend, "b", data="2")
        await put(backend, "a", data="3")
        after = await backend.rewind(("a", "b"), 2, upto)
        assert texts((await backend.history(("a", "b"), after, upto, 10)).entries) == ["1", "2"]


async def test_a_backend_need_not_rewind_itself(make_backend: Any) -> None:
    """The default, which reads all of the history, finds the same position."""
    backend = make_backend()
    async with connected(backend, "a", "b"):
        for number in range(600):
            last = await put(backend, "ab"[number % 2], data=str(number))
        await backend.attend("one", lease=9, entered=[ADA])
        for count in (1, 100, 599, 600):
            ours = await backend.rewind(("a", "b"), count, last)
            theirs = await Backend.rewind(backend, ("a", "b"), count, last)
            reads = [await pages(backend, ("a", "b"), one, last) for one in (ours, theirs)]
            assert texts(e for page in reads[0] for e in page.entries) == texts(e for p in reads[1] for e in p.entries)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"last_event_id": "x"}, ["malformed"]), ({"last_event_id": "00000000-5"}, ["epoch"]), ({"rewind": math.inf}, [])],
)
async def test_what_was_trimmed_before_is_no_gap_of_its_own(make_backend: Any, options: Any, told: list[str]) -> None:
    """A stream that begins with all that is kept has no second gap, and a fresh one has none, over several pages."""
    size = PAGE + PAGE // 2
    async with Hub(make_backend(history_size=size)) as hub:
        for number in range(PAGE + 1):
            await hub.publish("quiet", f"quiet {number}")
        for number in range(2 * size):
            await hub.publish("busy", f"busy {number}")
        async with hub.subscribe("quiet", "busy", **options) as subscription:
            with anyio.fail_after(20):
                events = [await anext(subscription) for _ in range(len(told) + PAGE + 1 + size)]
    assert [json.loads(event.data or "")["reason"] for event in events if event.event == "sse.gap"] == told
    assert [event.data for event in events if event.event is None] == [
        *(f"quiet {number}" for number in range(PAGE + 1)),
        *(f"busy {number}" for number in range(size, 2 * size)),
    ]


# Presence

ADA, BOB = Member("a", "Ada"), Member("a", 'Bob "é"\n')


def comings(tape: Tape) -> list[tuple[Any, str]]:
    return [(entry.event.event, json.loads(entry.event.data)["identity"]) for entry in tape.entries]  # type: ignore[union-attr,arg-type]


async def test_who_comes_and_goes_is_published_once(make_backend: Any) -> None:
    """An identity joins with the first process that lists it and leaves with the last; repeating changes nothing."""
    backend = make_backend()
    async with connected(backend, "a") as tape:
        assert await backend.attend("one", lease=9, entered=[ADA, BOB]) == 2
        assert await backend.attend("one", lease=9, entered=[ADA, BOB]) == 2
        assert await backend.attend("two", lease=9, entered=[ADA]) == 1
        assert await backend.attend("one", lease=9, left=[ADA, BOB]) == 0
        assert await backend.attend("one", lease=9, left=[ADA]) == 0
        assert set(await backend.present("a")) == {"Ada"}
        await backend.attend("two", lease=9, left=[ADA])
        assert set(await backend.present("a")) == set()
        await settled(tape, 4)
    told = comings(tape)
    assert sorted(told[:2]) == [("sse.join", "Ada"), ("sse.join", BOB.identity)]
    assert told[2:] == [("sse.leave", BOB.identity), ("sse.leave", "Ada")]


async def test_who_is_here_is_told_in_the_history(make_backend: Any) -> None:
    """A resuming reader gets the joins that it missed, at their positions."""
    backend = make_backend()
    async with connected(backend, "a"):
        first = await put(backend, "a")
        await backend.attend("one", lease=9, entered=[ADA])
        last = await put(backend, "a")
        history = await backend.history(("a",), first, last, 10)
    assert [entry.event.event for entry in history.entries] == ["sse.join", None]
    assert first < history.entries[0].position < last


async def test_who_comes_and_goes_pushes_no_event_out_of_the_history(make_backend: Any) -> None:
    """Joins and leaves are kept beside a channel's events, and rewinding does not count them."""
    backend = make_backend(history_size=3)
    async with connected(backend, "a") as tape:
        for number in range(3):
            await put(backend, "a", data=str(number))
        for _ in range(10):
            await backend.attend("one", lease=9, entered=[ADA])
            await backend.attend("one", lease=9, left=[ADA])
        await settled(tape, 23)
        last = tape.entries[-1].position
        assert last is not None
        for after in (None, await backend.rewind(("a",), 3, last)):
            kept = (await backend.history(("a",), after, last, 100)).entries
            assert [entry.event.data for entry in kept if entry.event.event is None] == ["0", "1", "2"]


async def test_a_join_that_is_not_kept_is_missed_only_by_readers_before_it(make_backend: Any) -> None:
    """Joins have a bound of their own: a reader that missed one gets a gap, a reader that missed none does not."""
    backend = make_backend(history_size=2)
    async with connected(backend, "a", "b") as tape:
        await put(backend, "a")
        for _ in range(30):
            await backend.attend("one", lease=9, entered=[ADA])
            await backend.attend("one", lease=9, left=[ADA])
        await put(backend, "b")
        await settled(tape, 62)
        positions: Any = [entry.position for entry in tape.entries]
        read = [(await backend.history(("a",), after, positions[-1], 100)) for after in positions]
    missed = [60 - number for number in range(61)] + [0]
    assert read[0].reason == "trimmed"
    for page, count in zip(read, missed, strict=True):
        assert (page.reason is None) == (len(page.entries) == count)


async def test_without_history_who_comes_is_only_announced(make_backend: Any) -> None:
    """With history_size=0 joins and leaves have no position either."""
    backend = make_backend(history_size=0)
    async with connected(backend, "a") as tape:
        await backend.attend("one", lease=9, entered=[ADA])
        await settled(tape, 1)
    assert [entry.position for entry in tape.entries] == [None]
    assert comings(tape) == [("sse.join", "Ada")]


async def test_a_process_that_is_not_heard_of_is_gone(make_backend: Any) -> None:
    """When its lease has run out another one, that was heard of all the time, lets its members go."""
    backend = make_backend()
    async with connected(backend, "a") as tape:
        await backend.attend("lives", lease=0.1, entered=[BOB])
        await backend.attend("dies", lease=0.1, entered=[ADA, BOB])
        assert set(await backend.present("a")) == {"Ada", BOB.identity}
        await anyio.sleep(0.2)
        await backend.attend("lives", lease=0.1)
        assert set(await backend.present("a")) == {BOB.identity}
        assert await backend.attend("dies", lease=0.1) == 0
        await settled(tape, 3)
    assert comings(tape)[2:] == [("sse.leave", "Ada")]
