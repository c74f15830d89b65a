"""The facts of MemoryBackend alone: its clock, its bounds, and its warning."""

import asyncio
import logging
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sse_asgi import BackendError, Hub, MemoryBackend, ServerSentEvent
from sse_asgi._log.event import RenderedEvent
from sse_asgi.backends import _shelf, memory
from sse_asgi.backends.base import Member, is_presence
from sse_asgi.testing.contract._recorder import connected, texts

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Put the backend's time in the test's hands."""
    clock = Clock()
    monkeypatch.setattr(memory, "SystemTime", lambda: SimpleNamespace(now=clock.monotonic))
    return clock


async def put(
    backend: MemoryBackend, *channels: str, data: str = "x", key: str | None = None, once: str | None = None
) -> Any:
    return await backend.publish(channels, ServerSentEvent(data), key=key, idempotency_key=once)


async def test_old_events_expire(clock: Clock) -> None:
    """Events older than history_ttl are gone; a reader that missed one gets the gap `expired`."""
    backend = MemoryBackend(history_ttl=60)
    first = await put(backend, "a")
    second = await put(backend, "a")
    clock.now += 50
    third = await put(backend, "a")
    clock.now += 20
    late = await backend.history(("a",), first, third, 10)
    assert ([entry.position for entry in late.entries], late.reason) == ([third], "expired")
    assert (await backend.history(("a",), second, third, 10)).reason is None


async def test_whoever_has_everything_is_complete_at_any_age(clock: Clock) -> None:
    """A reader whose id is the log's last sequence misses nothing, however long ago that was."""
    backend = MemoryBackend(history_ttl=60)
    first = await put(backend, "a")
    last = await put(backend, "a")
    clock.now += 10_000
    assert (await backend.history(("a",), last, last, 10)).reason is None
    assert (await backend.history(("a",), first, last, 10)).reason == "expired"
    await put(backend, "b")
    assert backend._events.logs.keys() == {"b"}


async def test_history_ttl_none_keeps_for_ever(clock: Clock) -> None:
    """Without a ttl only the size bounds a channel."""
    backend = MemoryBackend(history_ttl=None)
    first = await put(backend, "a")
    last = await put(backend, "a")
    clock.now += 1e9
    assert len((await backend.history(("a",), first, last, 10)).entries) == 1


async def test_idle_channels_are_bounded() -> None:
    """The channels that were published to least recently are emptied; their readers get the gap `evicted`."""
    backend = MemoryBackend(max_channels=3)
    start = await put(backend, "0")
    for number in range(1, 6):
        last = await put(backend, str(number))
    assert backend._events.logs.keys() == {"3", "4", "5"}
    assert (await backend.history(("1",), start, last, 10)).reason == "evicted"
    assert (await backend.history(("5",), start, last, 10)).reason is None
    assert (await backend.history(("never used",), start, last, 10)).reason is None


async def test_an_emptied_channel_remembers_when_it_is_used_again() -> None:
    """A channel that comes back still knows the events that it dropped."""
    backend = MemoryBackend(max_channels=1)
    start = await put(backend, "other")
    missed = await put(backend, "a")
    await put(backend, "other")
    last = await put(backend, "a")
    assert (await backend.history(("a",), start, last, 10)).reason == "evicted"
    assert (await backend.history(("a",), missed, last, 10)).reason is None


async def test_memory_of_emptied_channels_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """If even their names are too many, every reader with such an old id gets a gap."""
    monkeypatch.setattr(_shelf, "MAX_EMPTIED", 2)
    backend = MemoryBackend(max_channels=1)
    start = await put(backend, "0")
    for number in range(1, 6):
        last = await put(backend, str(number))
    assert len(backend._events._emptied) == 2
    assert (await backend.history(("1",), start, last, 10)).reason == "evicted"


async def test_idempotency_keys_are_forgotten_after_two_minutes(clock: Clock) -> None:
    """A key that is used again later publishes again."""
    backend = MemoryBackend()
    first = await put(backend, "a", once="key")
    clock.now += 119
    assert await put(backend, "a", once="key") == first
    clock.now += 2
    assert await put(backend, "a", once="key") != first
    assert len(backend._published.known) == 1


# Bytes


async def kept(backend: MemoryBackend, *channels: str) -> list[Any]:
    """Return all entries that a backend keeps of these channels."""
    position = await put(backend, "the last one")
    page = await backend.history(channels, None, position, 100_000)
    entries = list(page.entries)
    while page.next is not None:
        page = await backend.history(channels, page.next, position, 100_000)
        entries += page.entries
    return entries


async def test_all_channels_together_are_bounded_in_bytes() -> None:
    """The oldest events of the channels that were published to least recently are dropped; their readers get a gap."""
    backend = MemoryBackend(total_bytes=200_000)
    start = await put(backend, "start")
    names = [str(number) for number in range(100)]
    for name in names:
        for _ in range(2):
            last = await put(backend, name, data="x" * 5000)
    entries = await kept(backend, *names)
    assert 150_000 < sum(len(entry.frame) for entry in entries) <= 200_000
    assert entries[-1].position == last
    assert (await backend.history(("0",), start, last, 10)).reason == "trimmed"
    assert (await backend.history(("99",), start, last, 10)).reason is None


async def test_an_event_larger_than_its_channel_may_keep_pushes_nothing_out() -> None:
    """It is not kept; a reader that missed it gets the gap `trimmed`; earlier events stay."""
    backend = MemoryBackend(history_bytes=1000)
    start = await put(backend, "a")
    before = await put(backend, "a", data="before")
    large = await put(backend, "a", "b", data="x" * 2000)
    last = await put(backend, "a", data="after")
    page = await backend.history(("a",), start, last, 10)
    assert ([entry.position for entry in page.entries], page.reason) == ([before, last], "trimmed")
    assert (await backend.history(("b",), start, last, 10)).reason == "trimmed"
    assert (await backend.history(("a",), large, last, 10)).reason is None


async def test_keys_count_as_bytes_of_their_events() -> None:
    """A channel keeps no more frames and keys than history_bytes, and drops the same number that it counted."""
    backend = MemoryBackend(history_bytes=1000)
    for _ in range(20):
        await put(backend, "a", key="\u00e4" * 100)
    frame = len((await kept(backend, "a"))[0].frame)
    assert len(await kept(backend, "a")) == 1000 // (frame + 200) == backend._events.logs["a"].size // (frame + 200)
    await put(backend, "a", key="\u00e4" * 500)
    assert [entry.key for entry in await kept(backend, "a")] == ["\u00e4" * 100] * (1000 // (frame + 200))
    for _ in range(1000):
        await put(backend, "a")
    log = backend._events.logs["a"]
    assert log.size == sum(len(entry.frame) for entry in await kept(backend, "a"))


async def test_keys_of_all_channels_are_bounded_in_bytes() -> None:
    """They count in total_bytes, however many channels there are."""
    backend = MemoryBackend(total_bytes=100_000)
    for number in range(100):
        await put(backend, str(number), key="k" * 5000)
    assert 10 < len(await kept(backend, *map(str, range(100)))) <= 100_000 // 5000


async def test_idempotency_keys_take_room_of_the_events(clock: Clock) -> None:
    """While they are remembered they count in total_bytes, and a reader that missed a dropped event gets a gap."""
    backend = MemoryBackend(total_bytes=100_000)
    start = await put(backend, "a")
    before = await put(backend, "a", data="x" * 1000)
    assert (await backend.history(("a",), start, before, 10)).reason is None
    for number in range(17):
        last = await put(backend, "b", once=f"{number:05000}")
    assert (await backend.history(("a",), start, last, 10)).reason == "trimmed"
    assert await put(backend, "b", once=f"{0:05000}") < last
    clock.now += 121
    await put(backend, "c")
    assert (backend._published.size, len(backend._published.known)) == (0, 0)
    for _ in range(20):
        last = await put(backend, "b", data="x" * 4000)
    assert len(await kept(backend, "b")) > 17


@pytest.mark.parametrize("size", [1000, 0])
async def test_idempotency_keys_are_bounded_in_bytes(size: int) -> None:
    """Beyond total_bytes the oldest keys are forgotten early, but not the last one."""
    backend = MemoryBackend(history_size=size, total_bytes=10_000)
    first = await put(backend, "a", once="0" * 2000)
    for number in range(1, 6):
        last = await put(backend, "a", once=str(number) * 2000)
    assert sum(map(len, backend._published.known)) <= 10_000
    assert await put(backend, "a", once="5" * 2000) == last
    assert "0" * 2000 not in backend._published.known
    large = await put(backend, "a", once="x" * 20_000)
    assert await put(backend, "a", once="x" * 20_000) == large
    assert (first is None) is (size == 0)


async def test_an_event_for_each_reader_has_no_frame_that_counts() -> None:
    """A RenderedEvent is kept among the others and given back as it is."""
    backend = MemoryBackend()
    rendered = RenderedEvent(str, None, None)
    await backend.publish(("a",), rendered, key=None, idempotency_key=None)
    assert [entry.event for entry in await kept(backend, "a")] == [rendered]


@pytest.mark.parametrize("options", [{"history_bytes": 0}, {"total_bytes": 0}, {"total_bytes": -1}])
async def test_a_bound_of_no_bytes_is_refused(options: dict[str, int]) -> None:
    """The error says how to keep nothing."""
    with pytest.raises(ValueError, match="at least 1; history_size=0"):
        MemoryBackend(**options)


@pytest.mark.parametrize("name", ["history_bytes", "total_bytes"])
@pytest.mark.parametrize("value", [True, 1.5, math.inf, "4", None])
async def test_a_bound_of_bytes_is_a_whole_number(name: str, value: Any) -> None:
    """Anything else is refused by name, as on Redis; True kept one byte, and a text was compared with a number."""
    with pytest.raises(ValueError, match=f"{name}={re.escape(repr(value))}: must be a whole number of bytes"):
        MemoryBackend(**{name: value})


# Kinds of events


async def test_presence_in_many_rooms_leaves_all_histories() -> None:
    """Only an event empties the least recently used room. Joins have a bound of their own, and a loss is a gap."""
    backend = MemoryBackend(max_channels=100)
    rooms = [f"room {number}" for number in range(100)]
    start = await put(backend, rooms[0])
    for room in rooms:
        last = await put(backend, room)
    for number in range(101):
        await backend.attend("one", lease=9, entered=[Member(f"room {number}", "Ada")])
    last = await put(backend, "room 100")
    pages = [await backend.history((room,), start, last, 10) for room in rooms]
    assert [len([entry for entry in page.entries if not is_presence(entry)]) for page in pages] == [0] + [1] * 99
    assert [page.reason for page in pages] == ["evicted"] + [None] * 99


async def test_channels_of_users_do_not_empty_those_of_the_library() -> None:
    """Orders to disconnect stay however many channels are published to."""
    backend = MemoryBackend(max_channels=2)
    start = await put(backend, "sse.control")
    order = await put(backend, "sse.control")
    for number in range(10):
        last = await put(backend, str(number))
    page = await backend.history(("sse.control",), start, last, 10)
    assert ([entry.position for entry in page.entries], page.reason) == ([order], None)
    for number in range(10):
        await put(backend, f"sse.{number}")
    assert (await backend.history(("8", "9"), start, last, 10)).reason is None


# Events of several channels


async def test_a_shared_event_goes_when_its_last_channel_lets_it_go() -> None:
    """However it is dropped: by number, by age of the channel's use, or because there are too many channels."""
    backend = MemoryBackend(history_size=2, max_channels=2)
    start = await put(backend, "a")
    await put(backend, "a", "b")
    for _ in range(2):
        last = await put(backend, "a")
    assert (await backend.history(("a", "b"), start, last, 10)).reason is None
    await put(backend, "c")
    last = await put(backend, "a")
    assert (await backend.history(("a",), start, last, 10)).reason == "trimmed"
    assert (await backend.history(("b",), start, last, 10)).reason == "evicted"
    assert (await backend.history(("a", "b", "c"), last, last, 10)).reason is None


async def test_what_a_forgotten_channel_left_to_others_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the names of emptied channels are too many, no loss is silent."""
    monkeypatch.setattr(_shelf, "MAX_EMPTIED", 1)
    backend = MemoryBackend(max_channels=1)
    start = await put(backend, "a")
    last = await put(backend, "a", "b")
    for name in "cd":
        await put(backend, name)
    for name in "ab":
        assert (await backend.history((name,), start, last, 10)).reason == "evicted"


async def test_what_is_known_of_a_replay_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay whose progress was forgotten is judged again, with the same result."""
    monkeypatch.setattr(_shelf, "MAX_JUDGED", 1)
    backend = MemoryBackend(history_size=5)
    start = await put(backend, "a")
    for _ in range(10):
        last = await put(backend, "a", "b")
        last = await put(backend, "b")
    for channels in (("a", "b"), ("a",), ("a", "b")):
        first = await backend.history(channels, start, last, 1)
        second = await backend.history(channels, first.next, last, 100)
        again = await backend.history(channels, first.next, last, 100)
        assert first.reason == "trimmed"
        assert (second.reason, second.lost) == (again.reason, again.lost)
    assert len(backend._events._judged) <= 1


async def test_data_comes_back_as_it_was_published() -> None:
    """Also with carriage returns, which a frame turns into line feeds."""
    backend = MemoryBackend(history_bytes=1000)
    for _ in range(300):
        await put(backend, "a", data="1\r\n2\r3")
    events = [entry.event for entry in await kept(backend, "a")]
    assert {event.data for event in events} == {"1\r\n2\r3"}
    assert sum(len(event.encode()) for event in events) <= 1000


# Processes


async def test_the_log_begins_where_the_backend_is_opened_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its positions are not those of the process that made the backend."""
    backend = MemoryBackend()
    before = await put(backend, "a")
    monkeypatch.setattr(os, "getpid", lambda: -1)
    async with Hub(backend) as hub:
        assert await hub.history("a") == []
        assert not str(await hub.publish("a", "x")).startswith(before.epoch)


def test_a_forked_process_has_a_log_of_its_own() -> None:
    """Its ids are of another epoch and it holds none of the events, also where the backend was open before the fork."""
    command = [sys.executable, "-c", FORKING]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    (parent, before), (child, after) = (line.split() for line in sorted(told.splitlines(), reverse=True))
    assert (parent, child) == ("parent", "child")
    assert before != after


FORKING = """
import asyncio, os
from sse_asgi import Hub, MemoryBackend

backend = MemoryBackend()

async def publish():
    async with Hub(backend) as hub:
        kept = len(await hub.history("a"))
        return kept, (await hub.publish("a", "x")).partition("-")[0]

assert asyncio.run(publish())[0] == 0
kept, epoch = asyncio.run(publish())
assert kept == 1, "a hub that is opened again in the same process goes on"
if os.fork() == 0:
    kept, other = asyncio.run(publish())
    print("child", other if kept == 0 else "kept", flush=True)
    os._exit(0)
os.wait()
print("parent", epoch if epoch == asyncio.run(publish())[1] else "lost")
"""


# Workers


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_several_workers_are_warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A hub in the memory of one of several workers says so when it opens, and names the fix."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with caplog.at_level(logging.WARNING, "sse_asgi"):
        async with Hub():
            pass
    assert "4 workers" in caplog.text
    assert "SSE_BACKEND_URL=redis://" in caplog.text


async def test_one_worker_is_not_warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One process gets no warning."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    async with Hub():
        pass
    assert not caplog.records


# Options and positions


@pytest.mark.parametrize("options", [{"history_size": -1}, {"history_ttl": 0}, {"max_channels": 0}])
async def test_a_bound_that_cannot_be_is_refused(options: dict[str, int]) -> None:
    """The error has all three numbers, and their ranges."""
    with pytest.raises(ValueError, match=f"{next(iter(options))}={next(iter(options.values()))}.*must be at least 0"):
        MemoryBackend(**options)


async def test_without_history_there_are_no_positions() -> None:
    """Neither of an event nor of a subscription; an idempotency key is remembered all the same."""
    backend = MemoryBackend(history_size=0)
    async with Hub(backend) as hub, hub.subscribe("a") as reader:
        assert await put(backend, "a", data="1", once="key") is None
        assert await put(backend, "a", data="2", once="key") is None
        assert await backend.subscribe(("a",)) is None
        await put(backend, "a", data="3")
        assert [(await anext(reader)).data for _ in range(2)] == ["1", "3"]


async def test_a_position_of_another_log_is_told() -> None:
    """By its epoch, or because this log has not come that far; the page then begins with the oldest event."""
    backend = MemoryBackend()
    first, last = await put(backend, "a"), await put(backend, "a")
    for position, reason in ((first._replace(epoch="0badc0de"), "epoch"), (last._replace(sequence=99), "fork")):
        page = await backend.history(("a",), position, last, 10)
        assert ([entry.position for entry in page.entries], page.reason) == ([first, last], reason)


async def test_the_newest_events_are_found_backward() -> None:
    """Of several channels, each event once."""
    backend = MemoryBackend()
    given = [await put(backend, *channels) for channels in ("a", "ab", "b", "c", "a")]
    assert await backend.rewind(("a", "b"), 2, given[-1]) == given[1]
    assert await backend.rewind(("a", "b"), 4, given[-1]) is None


def test_an_open_backend_is_refused_in_another_event_loop() -> None:
    """The error names the fix."""
    backend = MemoryBackend()

    async def visit() -> None:
        async with Hub(backend):
            pass

    async def main() -> None:
        async with Hub(backend):
            with pytest.raises(RuntimeError, match="make one backend for each event loop"):
                await asyncio.to_thread(asyncio.run, visit())

    asyncio.run(main())


# Presence


async def test_members_are_there_while_a_process_lists_them(clock: Clock) -> None:
    """The first process publishes a join, the last one a leave; a process whose lease has run out is removed."""
    backend = MemoryBackend()
    ada, bob = Member("a", "ada"), Member("a", "bob")
    assert await backend.attend("one", lease=9, entered=[ada, bob]) == 2
    assert await backend.attend("two", lease=99, entered=[ada]) == 1
    assert await backend.attend("one", lease=9, left=[ada]) == 1
    assert sorted(await backend.present("a")) == ["ada", "bob"]
    clock.now += 10
    assert list(await backend.present("a")) == ["ada"]
    assert await backend.attend("two", lease=99, left=[ada]) == 0
    assert list(await backend.present("a")) == []
    events = [entry.event for entry in await kept(backend, "a")]
    assert {(event.event, event.data) for event in events[:2]} == {
        ("sse.join", '{"identity":"ada"}'),
        ("sse.join", '{"identity":"bob"}'),
    }
    assert [(event.event, event.data) for event in events[2:]] == [
        ("sse.leave", '{"identity":"bob"}'),
        ("sse.leave", '{"identity":"ada"}'),
    ]


async def test_the_events_of_a_run_take_room_of_the_others_and_outlive_them() -> None:
    """They do not expire, and are given back when the run is forgotten."""
    backend = MemoryBackend(history_ttl=0.02, total_bytes=100_000)
    async with connected(backend) as tape:
        record = await backend.start_run("a", "me", lease=9, ttl=0.05, fingerprint="print")
        await backend.append_run("a", "me", 0, [ServerSentEvent("x" * 1000)])
        assert backend._events.total > 1000
        await anyio.sleep(0.03)
        await put(backend, "b")
        page = await backend.history(("sse.run:a",), record.begin, tape.position, 10)  # type: ignore[arg-type]
        assert [len(text) for text in texts(page.entries)] == [1000]
        with pytest.raises(BackendError, match="half of total_bytes"):
            await backend.append_run("a", "me", 1, [ServerSentEvent("x" * 60_000)])
        assert await backend.end_run("a", "finished", owner="me")
        await anyio.sleep(0.06)
        assert list(await backend.renew_runs([], lease=9)) == []
        assert await backend.get_run("a") is None
        assert backend._runs.shelf.total == 0
