"""Pages of several channels: their events, their cost, and exact gaps."""

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from real_redis.launcher import RedisServer
from sse_asgi import Hub, ServerSentEvent
from sse_asgi._log.position import MAX_SEQUENCE, Position
from sse_asgi.backends.base import PAGE_BYTES, Backend, Member
from sse_asgi.backends.redis import RedisBackend

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


async def put(backend: Backend, *channels: str, data: str = "x") -> Position:
    position = await backend.publish(channels, ServerSentEvent(data), key=None, idempotency_key=None)
    assert position is not None
    return position


async def fill(backend: Backend, channels: tuple[str, ...], count: int, size: int) -> Position:
    """Publish so many events of one size to each of the channels, in turn."""
    for _ in range(count):
        await asyncio.gather(*(put(backend, name, data="x" * size) for name in channels))
    return await put(backend, "last")


def redis(hub: Hub) -> RedisBackend:
    assert isinstance(hub.backend, RedisBackend)
    return hub.backend


class Replay:
    """The pages of a reader, one by one.

    Attributes:
        sequences: Of the events, in their order.
        gaps: For each page that announces a loss, its reason and the last sequence that is lost.
        pages: The sizes of the pages, in bytes.
    """

    def __init__(self) -> None:
        self.sequences: list[int] = []
        self.gaps: list[tuple[str, int]] = []
        self.pages: list[int] = []

    async def read(
        self,
        backend: Backend,
        channels: tuple[str, ...],
        after: Position | None,
        upto: Position,
        *,
        limit: int = 256,
        between: Callable[[], Any] | None = None,
    ) -> None:
        while True:
            page = await backend.history(channels, after, upto, limit)
            assert len(page.entries) <= limit
            self.sequences += [entry.position.sequence for entry in page.entries if entry.position]
            self.pages.append(sum(len(entry.frame) for entry in page.entries))
            if page.reason is not None:
                self.gaps.append((page.reason, page.lost))
            if page.next is None:
                return
            assert after is None or page.next > after
            after = page.next
            if between is not None:
                await between()


async def replayed(backend: Backend, channels: tuple[str, ...], after: Position | None, upto: Position) -> Replay:
    replay = Replay()
    await replay.read(backend, channels, after, upto)
    return replay


def sent(server: RedisServer) -> int:
    """Return how many bytes a server has sent."""
    return int(server.info("total_net_output_bytes"))


def reads(server: RedisServer) -> int:
    """Return how often a server has looked into a stream."""
    found = re.findall(r"cmdstat_x(?:rev)?range:calls=(\d+)", server.cli("INFO", "commandstats"))
    return sum(map(int, found))


# Costs


@pytest.mark.parametrize(("count", "size"), [(100, 100), (20, 10_000), (2, 500_000)])
async def test_a_replay_of_many_channels_costs_what_its_channels_cost(
    server: RedisServer, new_hub: NewHub, count: int, size: int
) -> None:
    """Redis sends each event once, of any size, and reads its streams little more often than it must."""
    async with new_hub(server) as hub:
        names = tuple(f"c{number}" for number in range(100))
        upto = await fill(hub.backend, names, count, size)
        before = sent(server)
        each = [await replayed(hub.backend, (name,), None, upto) for name in names]
        single, before, looks = sent(server) - before, sent(server), reads(server)
        together = await replayed(hub.backend, names, None, upto)
        assert together.sequences == sorted(number for replay in each for number in replay.sequences)
        assert len(together.sequences) == 100 * count
        assert sent(server) - before <= 1.2 * single
        assert reads(server) - looks <= 2 * (len(together.sequences) + len(names))


async def test_a_page_is_bounded_in_bytes_over_all_its_channels(new_hub: NewHub) -> None:
    """It ends before the event that would take it beyond the bound, and holds one event at least."""
    async with new_hub() as hub:
        names = ("a", "b", "c")
        upto = await fill(hub.backend, names, 5, PAGE_BYTES // 4)
        await put(hub.backend, "a", data="x" * 2 * PAGE_BYTES)
        upto = await put(hub.backend, "b")
        replay = await replayed(hub.backend, names, None, upto)
        assert len(replay.sequences) == 17
        assert max(replay.pages) > PAGE_BYTES
        assert all(size <= PAGE_BYTES for size in sorted(replay.pages)[:-1])
        assert len(replay.pages) <= 8


async def test_one_call_looks_at_little(server: RedisServer, new_hub: NewHub) -> None:
    """However much there is to look at, others are served between the calls that look at it."""
    async with new_hub(server) as hub:
        names = tuple(f"c{number}" for number in range(40))
        upto = await fill(hub.backend, names, 1, 500_000)
        server.cli("CONFIG", "RESETSTAT")
        page = await hub.backend.history(names, None, upto, 256)
        assert len(page.entries) == 1
        assert int(re.findall(r"cmdstat_evalsha:calls=(\d+)", server.cli("INFO", "commandstats"))[0]) >= 10


async def test_the_newest_events_are_found_without_being_sent(server: RedisServer, new_hub: NewHub) -> None:
    """Redis sends a position, and reads little more than the events that were asked for."""
    async with new_hub(server) as hub:
        names = ("a", "b", "c")
        await fill(hub.backend, names, 200, 10_000)
        upto = (await put(hub.backend, "a"))._replace(sequence=MAX_SEQUENCE)
        before, looks = sent(server), reads(server)
        after = await redis(hub).rewind(names, 10, upto)
        assert sent(server) - before < 20_000
        assert reads(server) - looks <= 20
        assert len((await replayed(hub.backend, names, after, upto)).sequences) == 10


@pytest.mark.parametrize("streams", [2, 1000])
async def test_a_position_before_the_newest_events(
    new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    """It is that of the event before them, or None if there are no more; an event of several channels counts once."""
    monkeypatch.setattr("sse_asgi.backends.redis._cursor.STREAMS", streams)
    monkeypatch.setattr("sse_asgi.backends.redis._history.WORK", 600)
    async with new_hub() as hub:
        chosen, names = random.Random(1), ("a", "b", "c", "d")
        positions = [await put(hub.backend, *chosen.sample(names, chosen.randint(1, 3))) for _ in range(30)]
        await hub.backend.attend("process", lease=9, entered=[Member("a", "ada")])
        for count in (1, 2, 7, 29):
            assert await redis(hub).rewind(names, count, positions[-1]) == positions[-1 - count]
            assert await redis(hub).rewind(names, 2, positions[count]) == (positions[count - 2] if count > 1 else None)
        assert await redis(hub).rewind(names, 30, positions[-1]) is None
        assert await redis(hub).rewind(("never",), 1, positions[-1]) is None


# Losses


class Model:
    """A model of the log: the events that each channel holds, in memory.

    Attributes:
        events: The channels of each event, by its sequence.
        held: The sequences and sizes that each channel holds.
    """

    def __init__(self, sizes: dict[str, int], weights: dict[str, int], total: int) -> None:
        self.events: dict[int, tuple[str, ...]] = {}
        self.held: dict[str, list[tuple[int, int]]] = {name: [] for name in sizes}
        self._sizes = sizes
        self._weights = weights
        self._total = total

    def keep(self, sequence: int, channels: tuple[str, ...], size: int) -> None:
        self.events[sequence] = channels
        for name in channels:
            held = self.held[name]
            held.append((sequence, size))
            most = 0 if size * len(channels) > self._total else min(self._weights[name], self._total)
            while len(held) > self._sizes[name] or sum(size for _, size in held) > most:
                del held[0]

    def after(self, start: int, channels: tuple[str, ...]) -> tuple[list[int], list[int]]:
        """Return the events after a sequence that the channels hold, and those that they do not."""
        published = [one for one, names in self.events.items() if one > start and {*names} & {*channels}]
        held = {sequence for name in channels for sequence, _ in self.held[name]}
        return [one for one in published if one in held], [one for one in published if one not in held]


class Runs:
    """Random events of a few channels, and random readers of them, on a real server and in the model."""

    def __init__(self, backend: Backend, seed: int, total: int = 1 << 20) -> None:
        self.random = random.Random(seed)
        self.names = ("a", "b", "c", "d")
        self.model = Model(SIZES, WEIGHTS, total)
        self.backend = backend
        self.positions: list[Position] = []

    async def publish(self) -> None:
        count = self.random.choice([1, 1, 2, 3])
        channels = tuple(self.random.sample(self.names, count))
        data = "x" * self.random.choice([1, 1, 1, 50, 150])
        self.positions.append(await put(self.backend, *channels, data=data))
        size = len(f"\ndata: {data}\n\n") + (len(str([*channels]).replace(" ", "")) + 6 if count > 1 else 0)
        self.model.keep(self.positions[-1].sequence, channels, size)

    def reader(self) -> tuple[tuple[str, ...], Position | None, int]:
        channels = tuple(self.random.sample(self.names, self.random.randint(1, 4)))
        return channels, self.random.choice([None, *self.positions]), self.random.choice([1, 2, 3, 100])


SIZES = {"a": 2, "b": 5, "c": 20, "d": 3}
WEIGHTS = {"a": 10_000, "b": 300, "c": 400, "d": 120}


def runs(new_hub: NewHub, **options: Any) -> Hub:
    return new_hub(history_size=SIZES.__getitem__, history_bytes=WEIGHTS.__getitem__, **options)


@pytest.mark.parametrize("streams", [2, 1000])
@pytest.mark.parametrize("seed", range(20))
async def test_what_none_of_a_readers_channels_holds_is_announced_and_nothing_else(
    new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, seed: int, streams: int
) -> None:
    """Each random reader gets the events that are held, in order, and a gap for the last one that is lost."""
    monkeypatch.setattr("sse_asgi.backends.redis._cursor.STREAMS", streams)
    async with runs(new_hub) as hub:
        run = Runs(hub.backend, seed)
        for _ in range(40):
            for _ in range(run.random.randint(1, 6)):
                await run.publish()
            channels, after, limit = run.reader()
            replay = Replay()
            await replay.read(hub.backend, channels, after, run.positions[-1], limit=limit)
            held, lost = run.model.after(after.sequence if after else 0, channels)
            assert replay.sequences == held
            if after is None:
                lost = []
            assert max((last for _, last in replay.gaps), default=None) == max(lost, default=None)
            assert {reason for reason, _ in replay.gaps} == ({"trimmed"} if lost else set())


@pytest.fixture
def streams(shared_redis: RedisServer, name: str) -> Callable[[], dict[str, list[int]]]:
    """Return a function that returns the sequences that each of the four channels holds in Redis."""
    script = """
    local held = {}
    for at, key in ipairs(KEYS) do
        held[at] = {}
        for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do
            table.insert(held[at], string.match(entry[1], '^%d+'))
        end
        held[at] = table.concat(held[at], ' ')
    end
    return table.concat(held, ';')
    """

    def read() -> dict[str, list[int]]:
        found = shared_redis.cli("EVAL", script, "4", *(f"sse:{{{name}}}:s:{channel}" for channel in "abcd"))
        return {channel: [*map(int, held.split())] for channel, held in zip("abcd", found.split(";"), strict=True)}

    return read


@pytest.mark.parametrize("total", [200, 400, 600])
@pytest.mark.parametrize("seed", range(5))
async def test_what_gave_way_to_other_channels_is_announced_and_nothing_else(
    new_hub: NewHub, streams: Callable[[], dict[str, list[int]]], seed: int, total: int
) -> None:
    """Channels give way in the order of their last events, only if needed, and each reader's gaps are right."""
    gave_way = 0
    async with runs(new_hub, total_bytes=total) as hub:
        run = Runs(hub.backend, 2000 + seed, total)
        model = run.model
        for _ in range(40):
            for _ in range(run.random.randint(1, 6)):
                await run.publish()
                gave_way += follow(model, streams(), run.positions[-1].sequence, total)
            channels, after, limit = run.reader()
            replay = Replay()
            await replay.read(hub.backend, channels, after, run.positions[-1], limit=limit)
            held, lost = model.after(after.sequence if after else 0, channels)
            assert replay.sequences == held
            if after is None:
                lost = []
            assert max((last for _, last in replay.gaps), default=None) == max(lost, default=None)
            assert bool(replay.gaps) == bool(lost)
            assert {reason for reason, _ in replay.gaps} <= {"trimmed", "evicted"}
    assert gave_way > 5


def follow(model: Model, found: dict[str, list[int]], newest: int, total: int) -> int:
    """Let the model drop what Redis has dropped, if it should have; return how many channels gave way."""
    own = model.events[newest]
    last = {
        name: max(one for one, names in model.events.items() if name in names or one == min(model.events))
        for name in found
    }
    gone = [name for name, held in model.held.items() if held and not found[name] and name not in own]
    bytes_before = sum(size for held in model.held.values() for _, size in held)
    for name, held in model.held.items():
        kept = [one for one in held if one[0] in found[name]]
        assert [one for one, _ in kept] == found[name]
        assert kept == held[len(held) - len(kept) :]
        if len(kept) < len(held):
            assert bytes_before > total  # streams of so few events are counted exactly
            assert name in gone or name in own
            others = [other for other in found if found[other] and other not in own]
            assert not others if name in own else all(last[name] <= last[other] for other in others)
        model.held[name] = kept
    assert sum(size for held in model.held.values() for _, size in held) <= total
    return len(gone)


@pytest.mark.parametrize("total", [250, 450, 1 << 20])
@pytest.mark.parametrize("seed", range(20))
async def test_what_is_trimmed_between_the_pages_of_a_reader_is_announced(
    new_hub: NewHub, seed: int, total: int
) -> None:
    """Events that are published between two pages of a reader cause no silent loss, and no false gap."""
    async with runs(new_hub, total_bytes=total) as hub:
        run = Runs(hub.backend, 1000 + seed)
        for _ in range(15):
            for _ in range(20):
                await run.publish()
            channels, after, limit = run.reader()
            start, upto, replay = (after or run.positions[0]), run.positions[-1], Replay()
            if run.random.random() < 0.5:
                await replay.read(hub.backend, channels, start, upto, limit=limit, between=run.publish)
            else:  # another process, which has not read ahead, goes on with each page
                position: Position | None = start
                while position is not None:
                    page = await hub.backend.history(channels, Position(*position), upto, limit)
                    replay.sequences += [one.position.sequence for one in page.entries if one.position]
                    replay.gaps += [(page.reason, page.lost)] if page.reason else []
                    position = page.next
                    await run.publish()
            published = [
                one
                for one, names in run.model.events.items()
                if start.sequence < one <= upto.sequence and {*names} & {*channels}
            ]
            missing = [one for one in published if one not in replay.sequences]
            told = max((last for _, last in replay.gaps), default=0)
            assert replay.sequences == sorted({*replay.sequences} & {*published})
            assert max(missing, default=0) <= told
            assert told not in replay.sequences
            assert bool(replay.gaps) == bool(missing) or told > upto.sequence


async def test_an_event_that_another_channel_still_has_is_not_missing(new_hub: NewHub) -> None:
    """Neither where it is on the same page, nor where many pages are before it; one that is nowhere is."""
    async with new_hub(history_size=lambda name: 1 if name == "small" else 1000) as hub:
        backend = hub.backend
        start = await put(backend, "small", "large")
        for _ in range(10):
            await put(backend, "large")
        shared = await put(backend, "small", "large")
        last = await put(backend, "small")
        both = ("small", "large")
        for limit in (1, 3, 100):
            page = await backend.history(both, start, last, limit)
            assert (page.reason, page.lost) == (None, 0)
            assert (await backend.history(("small",), start, last, limit)).lost == shared.sequence
        alone = await put(backend, "small")
        await put(backend, "small", "large")
        last = await put(backend, "small")
        assert (await backend.history(both, start, last, 1)).lost == alone.sequence


async def test_an_event_of_several_channels_that_an_earlier_version_kept(
    new_hub: NewHub, shared_redis: RedisServer, name: str
) -> None:
    """It does not name its channels' previous events, so that its loss on one of them is a gap, as before."""
    async with new_hub() as hub:
        backend = hub.backend
        start = await put(backend, "a", "b")
        for channel in "ab":
            last = str(start.sequence + 10)
            data = f'{{"c":["a","b"]}}\ndata: old {channel}\n\n'
            shared_redis.cli("XADD", f"sse:{{{name}}}:s:{channel}", f"{last}-0", "p", str(start.sequence), "d", data)
            shared_redis.cli("ZADD", f"sse:{{{name}}}:i", last, channel)
        later = await put(backend, "a")
        page = await backend.history(("a", "b"), start, later, 10)
        assert [entry.event.data for entry in page.entries if isinstance(entry.event, ServerSentEvent)] == [
            "old a",
            "x",
        ]
        assert page.reason is None
        shared_redis.cli("XDEL", f"sse:{{{name}}}:s:a", f"{last}-0")
        assert (await backend.history(("a", "b"), start, later, 10)).reason == "trimmed"
