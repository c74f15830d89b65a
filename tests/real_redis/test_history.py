"""What a resuming reader gets from Redis, and when it is told that something is missing."""

import asyncio
import random
import re
import secrets
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from hub.readers import framed
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import BackendError, Hub, PublishUnknownError
from sse_asgi.backends.base import Member

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


@pytest.fixture
def keys(name: str) -> Callable[[str], str]:
    """Return a function that names a key of the test's hub by its end."""
    return lambda end: f"sse:{{{name}}}:{end}"


async def ids(hub: Hub, channel: str, count: int) -> list[str]:
    return [await hub.publish(channel, str(number)) or "" for number in range(count)]


async def resumed(hub: Hub, channel: str, last_event_id: str) -> tuple[list[str | None], list[str]]:
    """Resume, publish one more, and return what came before it: the texts and the gaps."""
    end = secrets.token_hex(4)
    async with reading(hub, channel, last_event_id=last_event_id) as reader:
        await hub.publish(channel, end)
        await reader.until(lambda one: one.texts[-1:] == [end])
    return ["end" if len(text or "") == len(end) else text for text in reader.texts[:-1]], reader.gaps


def calls(server: RedisServer, command: str) -> int:
    """Return how often a server was told this."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", server.cli("INFO", "commandstats"))
    return int(found[1]) if found else 0


async def test_readers_that_come_back_together_share_what_is_read(server: RedisServer, new_hub: NewHub) -> None:
    """Each has everything that it missed, in its order, and a few readings serve all of them."""
    async with new_hub(server) as hub, AsyncExitStack() as stack:
        given = await ids(hub, "a", 50)
        before = calls(server, "xrange")
        options: dict[str, Any] = {"last_event_id": given[9], "wait": False}
        readers = [await stack.enter_async_context(reading(hub, "a", **options)) for _ in range(100)]
        for reader in readers:
            await reader.has(*map(str, range(10, 50)))
        assert [reader.gaps for reader in readers] == [[]] * 100
        assert calls(server, "xrange") - before <= 20  # 3 on a machine at rest, 2 or 3 a reader if nothing were shared


async def test_history_has_what_was_published_just_before(new_hub: NewHub) -> None:
    """However many ask for it."""
    async with new_hub() as hub:
        for number in range(20):
            await hub.publish("a", str(number))
            for kept in await asyncio.gather(hub.history("a"), hub.history("a")):
                assert [event.data for event in kept] == [str(one) for one in range(number + 1)]


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
    """Whoever comes with it is told, and gets everything that is kept; the stream then goes on as any other."""
    async with new_hub() as hub, new_hub(name=f"{name} elsewhere") as other:
        given = await ids(hub, "a", 2)
        elsewhere = (await ids(other, "a", 1))[0]
        mine, _, sequence = given[0].partition("-")
        wrong = form.format(epoch=mine, sequence=sequence, elsewhere=elsewhere)
        assert await resumed(hub, "a", wrong) == (["0", "1"], [reason])


async def test_trimming_is_exact(new_hub: NewHub) -> None:
    """The reader of the last event that is gone is complete, and the one before it is told."""
    async with new_hub(history_size=3) as hub:
        given = await ids(hub, "a", 10)
        assert await resumed(hub, "a", given[6]) == (["7", "8", "9"], [])
        assert await resumed(hub, "a", given[5]) == (["8", "9", "end"], ["trimmed"])


async def test_a_silent_hub_is_no_gap(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """A reader who had everything is complete, however long ago it was; one who missed what expired is told."""
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
    """A stream that Redis let go is missed by those who had not read it, and by nobody else."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 2)
        shared_redis.cli("DEL", keys("s:a"))
        assert await resumed(hub, "a", given[0]) == ([], ["evicted"])
        shared_redis.cli("DEL", keys("s:a"))
        last = await hub.publish("a", "last")
        assert await resumed(hub, "a", last or "") == ([], [])


async def test_a_channel_that_fell_out_of_the_index(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """Of a channel that the index had no room for, only readers from before are told."""
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
    """The stream shows that a reader who had everything misses nothing, and what one who did not misses."""
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


async def test_a_channel_that_never_had_an_event(new_server: Callable[..., RedisServer], new_hub: NewHub) -> None:
    """Its readers missed nothing, also where the first event of the hub is published after a restart of Redis."""
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    async with new_hub(server) as hub:
        async with framed(hub.subscribe("quiet")) as feed:
            first = feed.take().decode().partition("\n")[0].removeprefix("id: ")
        server.restart()
        await hub.publish("other", "1", idempotency_key="key")
        assert await resumed(hub, "quiet", first) == ([], [])


async def test_the_index_is_bounded(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """Of 100,000 channels those that were published to longest ago fall out of the index."""
    fill = "for i = 1, 100001 do redis.call('ZADD', KEYS[1], i, 'old' .. i) end"
    async with new_hub() as hub:
        shared_redis.cli("EVAL", fill, "1", keys("i"))
        await ids(hub, "a", 2)
        assert shared_redis.cli("ZCARD", keys("i")) == "100000"
        assert shared_redis.cli("HGET", keys("m"), "x") == "2"


async def test_a_position_that_this_server_lost(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """A position between what a server had and what it gave out was given out by another: what is newer follows."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 3)
        f, lost, g = (int(one.partition("-")[2]) for one in given)
        shared_redis.cli("HSET", keys("m"), "h", f"{f}-{g}")
        assert await resumed(hub, "a", f"{given[0].partition('-')[0]}-{lost}") == (["2"], ["fork"])


async def test_two_power_failures(server: RedisServer, new_hub: NewHub) -> None:
    """Whoever was away over both is told of what it had and the server has lost, in the first as in the second."""
    kept, lost = [], []
    for life in ("1", "2"):
        async with new_hub(server) as hub:
            kept.append(await hub.publish("a", f"kept {life}") or "")
            server.cli("SAVE")
            lost.append(await hub.publish("a", f"lost {life}") or "")
        await anyio.to_thread.run_sync(server.restart)
    async with new_hub(server) as hub:
        assert await resumed(hub, "a", kept[0]) == (["kept 2"], [])
        assert await resumed(hub, "a", lost[0]) == (["kept 2", "end"], ["fork"])
        assert await resumed(hub, "a", kept[1]) == (["end", "end"], [])
        assert await resumed(hub, "a", lost[1]) == (["end", "end", "end"], ["fork"])


async def test_a_process_that_was_cut_off_over_two_power_failures(server: RedisServer, new_hub: NewHub) -> None:
    """It knows of what the first one lost: the log begins another life, and all are told once."""
    async with proxied(server) as proxy, new_hub(url=proxy.url) as away, reading(away, "a") as reader:
        await away.publish("a", "1")
        server.cli("SAVE")
        await away.publish("a", "2")
        await reader.has("1", "2")
        proxy.cut()
        await anyio.to_thread.run_sync(server.restart)
        async with new_hub(server) as hub:
            await hub.publish("a", "3")
        server.cli("SAVE")
        await anyio.to_thread.run_sync(server.restart)
        async with new_hub(server) as hub, reading(hub, "a") as other:
            await hub.publish("a", "4")
            await other.has("4")
            proxy.open = True
            await reader.until(lambda one: one.gaps)
            await away.publish("a", "5")
            await reader.has("1", "2", "3", "4", "5")
            await other.has("4", "5")
        assert reader.gaps == other.gaps == ["epoch"]


async def test_the_holes_are_bounded(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """After very many restarts the oldest holes are one, so that nobody who had something from a hole is not told."""
    holes = ["10-20", "30-40", *(f"{n}0-{n}5" for n in range(5, 35))]
    async with new_hub():
        shared_redis.cli("HSET", keys("m"), "r", "another", "h", " ".join(holes))
    async with new_hub() as hub:
        kept = shared_redis.cli("HGET", keys("m"), "h").split()
        assert kept[:-1] == ["10-40", *holes[2:]]
        first, _, following = kept[-1].partition("-")
        assert int(holes[-1].partition("-")[2]) < int(first) < int(following)
        mine = epoch(hub)
        assert (await resumed(hub, "a", f"{mine}-39"))[1] == ["fork"]
        assert (await resumed(hub, "a", f"{mine}-45"))[1] != ["fork"]
        assert (await resumed(hub, "a", f"{mine}-53"))[1] == ["fork"]


async def test_a_position_of_the_life_before(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """Where a log lost its last events and went on, a reader of before is told, and gets nothing twice."""
    async with new_hub() as hub:
        given = await ids(hub, "a", 3)
        shared_redis.cli("HSET", keys("m"), "o", "0badc0de")
        sequence = given[1].partition("-")[2]
        assert await resumed(hub, "a", f"0badc0de-{sequence}") == (["2"], ["epoch"])
        assert await resumed(hub, "a", f"00000000-{sequence}") == (["0", "1", "2", "end"], ["epoch"])


async def test_functions_are_not_asked_for_the_librarys_own_channels(new_hub: NewHub) -> None:
    """Orders are kept for an hour whatever is kept of the application's events."""
    sizes, ttls = {"a": 2}, {"a": 60}
    async with (
        new_hub(history_size=sizes.__getitem__, history_ttl=ttls.__getitem__) as hub,
        hub.subscribe("a", identity="ada") as reader,
    ):
        await hub.disconnect(identity="ada")
        with anyio.fail_after(10):
            assert [event async for event in reader] == []
        assert reader.ended == "revoked"


async def test_options_by_channel(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """Functions of the channel's name say how many events it keeps, and for how long."""
    sizes, ttls = {"some": 2, "none": 0, "ever": 5}, {"some": 60.0, "none": 1.0, "ever": None}
    async with new_hub(history_size=sizes.__getitem__, history_ttl=ttls.__getitem__) as hub:
        for name in sizes:
            last = [await hub.publish(name, str(number)) for number in range(4)][-1]
        assert [event.data for event in await hub.history(*sizes)] == ["2", "3", "0", "1", "2", "3"]
        async with reading(hub, *sizes, last_event_id=last) as reader:
            await hub.publish("none", "live")
            await reader.has("live")
        assert reader.gaps == []
    assert shared_redis.cli("PTTL", keys("s:ever")) == "-1"
    assert 50_000 < int(shared_redis.cli("PTTL", keys("s:some"))) <= 60_000


@pytest.mark.parametrize("size", [-5, 10.5, True, "7", 1 << 63])
async def test_a_size_that_cannot_be(new_hub: NewHub, size: object) -> None:
    """It is refused, by whom it is given, or, where a function returns it, by whom it is used; nothing is lost."""
    with pytest.raises(ValueError, match=f"history_size={size!r}: must be a whole number of events"):
        new_hub(history_size=size)
    async with new_hub() as hub, new_hub(history_size=lambda _: size) as wrong:
        await hub.publish("a", "1")
        with pytest.raises(BackendError, match=f"history_size of the channel 'a' is {size!r}: must be a whole"):
            await wrong.publish("a", "2")
        assert [event.data for event in await hub.history("a")] == ["1"]


@pytest.mark.parametrize("ttl", [0, -5, float("inf"), float("nan"), sys.maxsize, "7"])
async def test_a_time_to_live_that_cannot_be(new_hub: NewHub, ttl: object) -> None:
    """It is refused as a size is."""
    with pytest.raises(ValueError, match=f"history_ttl={ttl!r}: must be seconds above 0 and at most 10000000000"):
        new_hub(history_ttl=ttl)
    async with new_hub(history_ttl=lambda _: ttl) as wrong:
        with pytest.raises(BackendError, match=f"history_ttl of the channel 'a' is {ttl!r}: must be seconds"):
            await wrong.publish("a", "2")


async def test_the_largest_bounds(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """What is kept for as good as ever is kept."""
    async with new_hub(history_size=sys.maxsize, history_ttl=10**10) as hub:
        given = await ids(hub, "a", 3)
        assert await resumed(hub, "a", given[0]) == (["1", "2"], [])
    assert int(shared_redis.cli("PTTL", keys("s:a"))) > 10**13 - 60_000


# Bytes


FRAME = len("\ndata: \n\n")


async def kept(hub: Hub, channel: str = "a") -> list[str]:
    return [event.data or "" for event in await hub.history(channel, limit=1000)]


async def test_a_channel_is_bounded_in_bytes(new_hub: NewHub) -> None:
    """It keeps the newest events that fit, to the byte, and readers of what gave way are told."""
    async with new_hub(history_bytes=3 * (FRAME + 10)) as hub:
        given = [await hub.publish("a", f"{number:010}") or "" for number in range(10)]
        assert await kept(hub) == [f"{number:010}" for number in (7, 8, 9)]
        assert await resumed(hub, "a", given[6]) == ([f"{number:010}" for number in (7, 8, 9)], [])
        assert (await resumed(hub, "a", given[5]))[1] == ["trimmed"]
        await hub.publish("a", "x" * (3 * (FRAME + 10) - FRAME))
        assert [len(text) for text in await kept(hub)] == [3 * (FRAME + 10) - FRAME]


async def test_an_event_that_is_larger_than_all_that_is_kept(new_hub: NewHub) -> None:
    """It is delivered live and not kept; whoever missed it, or what was before it, is told."""
    async with new_hub(history_bytes=100) as hub, reading(hub, "a") as live:
        first = await hub.publish("a", "1") or ""
        large = await hub.publish("a", "x" * 200) or ""
        await live.has("1", "x" * 200)
        assert await kept(hub) == []
        assert await resumed(hub, "a", first) == ([], ["trimmed"])
        assert (await resumed(hub, "a", large))[1] == []
        assert live.gaps == []


async def test_bytes_by_channel(new_hub: NewHub) -> None:
    """A function of the channel's name says how many; few and small events are bounded by their number as before."""
    bounds = {"small": 2 * (FRAME + 1), "large": 1000}
    async with new_hub(history_bytes=bounds.__getitem__, history_size=5) as hub:
        for number in range(9):
            await hub.publish(["small", "large"], str(number))
            await hub.publish("small", str(number))
        assert await kept(hub, "small") == ["8"]  # what is published to two channels is larger by their names
        assert await kept(hub, "large") == ["4", "5", "6", "7", "8"]


@pytest.mark.parametrize("size", [0, -5, 10.5, True, "7", 1 << 63])
async def test_bytes_that_cannot_be(new_hub: NewHub, size: object) -> None:
    """They are refused as a size is."""
    with pytest.raises(ValueError, match=r"history_bytes=.*: must be a whole number of bytes, at least 1"):
        new_hub(history_bytes=size)
    async with new_hub(history_bytes=lambda _: size) as wrong:
        with pytest.raises(
            BackendError, match=r"history_bytes of the channel 'a' is .*: must be a whole number of bytes"
        ):
            await wrong.publish("a", "2")


@pytest.mark.parametrize(("size", "left"), [(50, 4), (98, 2), (1000, 0)])
async def test_what_an_earlier_version_kept_is_read_and_trimmed(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], size: int, left: int
) -> None:
    """Its entries do not count their bytes: they are counted once, and give way to newer ones as all do."""
    async with new_hub(history_bytes=4 * (FRAME + 50) + 10) as hub:
        start = await hub.publish("other", "0") or ""
        sequence, before = int(start.partition("-")[2]), "0"
        for number in range(1, 41):
            own = str(sequence + number)
            shared_redis.cli("XADD", keys("s:a"), f"{own}-0", "p", before, "d", f"\ndata: {number:0{size}}\n\n")
            before = own
        shared_redis.cli("ZADD", keys("i"), before, "a")
        async with new_hub(history_bytes=1 << 20) as other:
            assert len(await kept(other)) == 40
        assert len(await kept(hub)) == 40
        await hub.publish("a", "1")
        old = [f"{number:0{size}}" for number in range(41 - left, 41)]
        assert await kept(hub) == [*old, "1"]
        assert (await resumed(hub, "a", start))[1] == ["trimmed"]
        await hub.publish("a", "x" * (3 * (FRAME + 50)))
        assert sum(FRAME + len(text) for text in await kept(hub)) <= 4 * (FRAME + 50) + 10
        assert len(await kept(hub)) >= 1


async def test_entries_of_an_earlier_version_between_newer_ones(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """While both versions run, what they keep together is read by both, and the bound holds again afterwards."""
    bound = 5 * (FRAME + 10)
    async with new_hub(history_bytes=bound) as hub:
        for number in range(30):
            last = await hub.publish("a", f"{number:010}") or ""
            if number < 15:
                sequence = last.partition("-")[2]
                later = str(int(sequence) + 1)
                shared_redis.cli("XADD", keys("s:a"), f"{later}-0", "p", sequence, "d", "\ndata: old-------\n\n")
                shared_redis.cli("ZADD", keys("i"), later, "a")
                shared_redis.cli("HSET", keys("m"), "s", later)
        assert await kept(hub) == [f"{number:010}" for number in range(25, 30)]


async def test_what_was_counted_is_found_again(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """A stream whose count was forgotten says itself how much it holds; one that is gone holds nothing."""
    async with new_hub(history_bytes=3 * (FRAME + 10)) as hub:
        for number in range(5):
            await hub.publish("a", f"{number:010}")
        shared_redis.cli("HDEL", keys("m"), "b:a")
        await hub.publish("a", f"{5:010}")
        assert await kept(hub) == [f"{number:010}" for number in (3, 4, 5)]
        shared_redis.cli("DEL", keys("s:a"))
        for number in range(6, 8):
            await hub.publish("a", f"{number:010}")
        assert await kept(hub) == [f"{number:010}" for number in (6, 7)]


# Bytes of all channels together


SUM = """
local sum = 0
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
    for _, entry in ipairs(redis.call('XRANGE', key, '-', '+')) do sum = sum + #entry[2][4] end
end
return sum
"""


@pytest.fixture
def held(shared_redis: RedisServer, keys: Callable[[str], str]) -> Callable[[], int]:
    """Return a function that adds up the payloads of all events that the test's hub holds."""
    return lambda: int(shared_redis.cli("EVAL", SUM, "0", keys("s:*")))


@pytest.fixture
def counted(shared_redis: RedisServer, keys: Callable[[str], str]) -> Callable[[], int]:
    """Return a function that returns the sum that the scripts keep."""
    return lambda: int(shared_redis.cli("HGET", keys("m"), "a") or 0)


async def names_held(hub: Hub, *names: str) -> str:
    return " ".join([name for name in names if await kept(hub, name)])


async def test_all_channels_together_are_bounded_in_bytes(
    new_hub: NewHub, held: Callable[[], int], counted: Callable[[], int]
) -> None:
    """Whatever the sizes are, and however many are published at once by several processes."""
    chosen, sizes = random.Random(1), {"few": 3}
    options: dict[str, Any] = {"total_bytes": 20_000, "history_size": lambda name: sizes.get(name[:3], 50)}
    async with new_hub(**options) as hub, new_hub(**options) as other:
        for _ in range(60):
            names = [chosen.choice(["few", "many", ""]) + str(chosen.randrange(30)) for _ in range(10)]
            texts = ["x" * chosen.choice([1, 100, 1000, 5000]) for _ in names]
            publishers = [chosen.choice([hub, other]).publish(*one) for one in zip(names, texts, strict=True)]
            await asyncio.gather(*publishers, hub.publish(chosen.sample(names, 3), "y" * chosen.choice([1, 3000])))
            assert held() <= counted() <= 20_000
        assert held() > 10_000


async def test_what_redis_uses_for_all_channels_together(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]
) -> None:
    """The streams take little more memory than the bound."""
    usage = """
    local sum = 0
    for _, key in ipairs(redis.call('KEYS', ARGV[1])) do sum = sum + redis.call('MEMORY', 'USAGE', key) end
    return sum
    """
    async with new_hub(total_bytes=1_000_000) as hub:
        for number in range(300):
            await hub.publish(f"c{number}", "x" * 10_000)
        assert 900_000 < int(shared_redis.cli("EVAL", usage, "0", keys("*"))) < 1_400_000


async def test_the_channel_that_was_published_to_longest_ago_gives_way(new_hub: NewHub) -> None:
    """It loses all that it has; the others lose nothing."""
    async with new_hub(total_bytes=4 * (FRAME + 100)) as hub:
        for name in "abcdab":
            await hub.publish(name, "x" * (100 if name in "cd" else 50 - FRAME // 2 - 1))
        assert await names_held(hub, *"abcd") == "a b c d"
        await hub.publish("e", "x" * 100)
        assert await names_held(hub, *"abcde") == "a b d e"
        await hub.publish("f", "x" * 100)
        assert await names_held(hub, *"abcdef") == "a b e f"
        assert len(await kept(hub, "a")) == 2


async def test_a_channel_that_gave_way_is_a_gap_for_those_who_missed_something(new_hub: NewHub) -> None:
    """They are told while nothing else is published to it, and afterwards; a reader who missed nothing is not."""
    async with new_hub(total_bytes=3 * (FRAME + 100)) as hub:
        first, last = [await hub.publish("a", letter * 100) or "" for letter in "xy"]
        for name in "bcd":
            await hub.publish(name, "z" * 100)
        async with reading(hub, "a") as live:
            assert await resumed(hub, "a", last) == ([], [])
            last = await hub.publish("a", "x" * 100) or ""
            for name in "bcd":
                await hub.publish(name, "z" * 100)
            assert await resumed(hub, "a", first) == ([], ["evicted"])
            assert await resumed(hub, "a", first) == (["end"], ["trimmed"])
            assert await resumed(hub, "a", last) == (["end", "end"], [])
        assert live.gaps == []


async def test_a_channel_makes_room_for_itself_only_by_its_oldest_events(
    new_hub: NewHub, held: Callable[[], int], counted: Callable[[], int]
) -> None:
    """Where one channel, or the channels of one event, are all that is held, the newest events stay."""
    async with new_hub(total_bytes=4 * (FRAME + 10)) as hub:
        given = [await hub.publish("a", f"{number:010}") or "" for number in range(10)]
        assert await kept(hub) == [f"{number:010}" for number in (6, 7, 8, 9)]
        assert await resumed(hub, "a", given[5]) == ([f"{number:010}" for number in (6, 7, 8, 9)], [])
        await hub.publish(["b", "c"], "both")
        assert await kept(hub) == []
        assert (await kept(hub, "b"), await kept(hub, "c")) == (["both"], ["both"])
        assert held() == counted() <= 4 * (FRAME + 10)
        for _ in range(3):
            await hub.publish("b", "b")
        await hub.publish(["b", "c"], "last")
        assert (await kept(hub, "b"))[-1:] == (await kept(hub, "c"))[-1:] == ["last"]
        assert held() == counted() <= 4 * (FRAME + 10)
        large = await hub.publish(["b", "c"], "x" * 3 * FRAME) or ""
        assert (await kept(hub, "b"), await kept(hub, "c"), counted()) == ([], [], 0)
        assert (await resumed(hub, "b", given[0]))[1] == ["trimmed"]
        assert (await resumed(hub, "c", large))[1] == []


@pytest.mark.parametrize(("size", "share"), [(2, 1.0), (10, 1.0), (50, 0.8)])
async def test_what_history_size_drops_does_not_count(
    new_hub: NewHub, held: Callable[[], int], counted: Callable[[], int], size: int, share: float
) -> None:
    """A busy channel that holds little pushes nothing out; a large stream may count for a little more than it holds."""
    async with new_hub(total_bytes=120 * size, history_size=size) as hub:
        await hub.publish("quiet", "x")
        for number in range(300):
            await hub.publish("busy", "x" * (1 + number % 100))
            assert share * counted() <= held() <= counted() <= 120 * size
        assert await names_held(hub, "quiet", "busy") == "quiet busy"


async def test_what_expired_gives_way_first_and_does_not_count_twice(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    held: Callable[[], int],
    counted: Callable[[], int],
) -> None:
    """A channel that comes back counts for what it holds then, and one that does not is taken in its turn."""
    async with new_hub(total_bytes=3 * (FRAME + 100)) as hub:
        for _ in range(3):
            shared_redis.cli("DEL", keys("s:a"))
            await hub.publish("a", "x" * 100)
        assert held() == counted() == FRAME + 100
        shared_redis.cli("DEL", keys("s:a"))
        for name in "bc":
            await hub.publish(name, "x" * 100)
        assert (held(), counted()) == (2 * (FRAME + 100), 3 * (FRAME + 100))
        await hub.publish("d", "x" * 100)
        assert await names_held(hub, *"abcd") == "b c d"
        assert held() == counted() == 3 * (FRAME + 100)


async def test_the_librarys_own_channels_and_presence_do_not_give_way(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], counted: Callable[[], int]
) -> None:
    """Events of the application push them out as little as they push out events."""
    async with new_hub(total_bytes=200) as hub:
        await hub.backend.attend("process", lease=9, entered=[Member("a", "ada")])
        await hub.disconnect(identity="ada")
        assert counted() == 0
        for name in "abc":
            await hub.publish(name, "x" * 150)
        own = [key for key in shared_redis.cli("KEYS", keys("*")).split() if ":s:sse." in key]
        assert len(own) == 1
        assert shared_redis.cli("EXISTS", keys("j:a"), keys("s:b"), keys("s:c")) == "2"


async def test_the_sum_survives_another_life_of_the_log(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    held: Callable[[], int],
    counted: Callable[[], int],
) -> None:
    """Where only the meta key was lost, what was kept before gives way to what is kept from then on."""
    async with new_hub(total_bytes=10 * (FRAME + 100)) as hub:
        for number in range(10):
            await hub.publish(f"old {number}", "x" * 100)
        shared_redis.cli("HSET", keys("m"), "e", "0badc0de")
        for number in range(5):
            await hub.publish(f"new {number}", "x" * 100)
        assert held() == counted() == 10 * (FRAME + 100)
        shared_redis.cli("DEL", keys("m"))
        for number in range(11):
            await hub.publish(f"last {number}", "x" * 100)
        assert held() == counted() == 10 * (FRAME + 100)


async def test_a_sum_that_is_wrong_becomes_right(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    held: Callable[[], int],
    counted: Callable[[], int],
) -> None:
    """What a worker of an earlier version kept is counted at the next event; too large a sum is found out."""
    async with new_hub(total_bytes=1000) as hub:
        last = await hub.publish("a", "x" * 100) or ""
        sequence = last.partition("-")[2]
        later, total = str(int(sequence) + 1), str(2 * (FRAME + 100))
        fields = ("p", sequence, "d", f"\ndata: {'y' * 100}\n\n", "t", total)
        shared_redis.cli("XADD", keys("s:a"), f"{later}-0", *fields)
        shared_redis.cli("ZADD", keys("i"), later, "a")
        shared_redis.cli("HSET", keys("m"), "s", later, "b:a", f"{total} 0")
        await hub.publish("a", "z" * 100)
        assert held() == counted() == 3 * (FRAME + 100)
        shared_redis.cli("HSET", keys("m"), "a", "1000000")
        await hub.publish("b", "x" * 100)
        assert await names_held(hub, "a", "b") == "b"
        assert held() == counted() == FRAME + 100


async def test_a_channel_that_falls_out_of_the_index_is_counted_no_longer(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], counted: Callable[[], int]
) -> None:
    """The sum is of the channels that the index has."""
    fill = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], 9e15, 'new' .. i) end"
    async with new_hub() as hub:
        await hub.publish("a", "x" * 100)
        shared_redis.cli("EVAL", fill, "1", keys("i"))
        await hub.publish("b", "x" * 50)
        assert counted() == FRAME + 50
        assert shared_redis.cli("ZRANGE", keys("a"), "0", "-1") == "b"
        assert shared_redis.cli("HEXISTS", keys("m"), "c:a") == "0"


async def test_one_event_makes_few_channels_give_way(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], counted: Callable[[], int]
) -> None:
    """The next events go on, so that no publishing takes long."""
    async with new_hub(total_bytes=1 << 20) as hub, new_hub(total_bytes=100) as small:
        for number in range(40):
            await hub.publish(f"c{number}", "x")
        left = []
        for _ in range(3):
            await small.publish("a", "x")
            left.append(int(shared_redis.cli("ZCARD", keys("a"))))
        assert left == [24, 9, 8]
        assert counted() <= 100


@pytest.mark.parametrize("total", [0, -1, 1.5, True, "7", 1 << 63])
async def test_a_total_that_cannot_be(new_hub: NewHub, total: object) -> None:
    """It is refused when the backend is made."""
    with pytest.raises(
        ValueError, match=r"total_bytes=.*: must be a whole number of bytes, at least 1; history_size=0"
    ):
        new_hub(total_bytes=total)


async def restricted(server: RedisServer, name: str, *rules: str) -> str:
    """Make a user who may do all but these; return the URL."""
    server.cli("ACL", "SETUSER", name, "on", ">pw", "~*", "&*", "+@all", *rules)
    return server.url.replace("//", f"//{name}:pw@")


async def test_a_user_who_may_not_add_destroys_nothing(new_hub: NewHub, server: RedisServer) -> None:
    """What cannot be stored is an error, and what was stored before it stays."""
    url = await restricted(server, "me", "-xadd")
    async with new_hub(server) as hub, new_hub(url=url) as other:
        first = await hub.publish("a", "1")
        with pytest.raises(BackendError, match="not published: Redis refused: ") as caught:
            await other.publish("a", "2")
        assert not isinstance(caught.value, PublishUnknownError)
        assert await resumed(hub, "a", first or "") == ([], [])
        assert [event.data for event in await hub.history("a")][:1] == ["1"]


@pytest.mark.parametrize("rules", [("-pexpire",), ("-zadd",), ("resetchannels", "&*:c:b"), ("-set",)])
async def test_what_is_stored_is_not_said_to_be_refused(
    new_hub: NewHub, server: RedisServer, name: str, rules: tuple[str, ...]
) -> None:
    """What Redis refuses once an event is stored leaves it unknown whether it was published, and to other channels."""
    url = await restricted(server, "me", *rules)
    async with new_hub(server) as hub, new_hub(url=url, name=name) as other, reading(hub, "b") as reader:
        with pytest.raises(PublishUnknownError, match="published in part, because Redis refused: "):
            await other.publish(["a", "b"], "1", idempotency_key="key")
        await reader.has("1")
        assert [event.data for event in await hub.history("a")] == ["1"]


async def test_without_history_an_event_that_is_announced_in_part(new_hub: NewHub, server: RedisServer) -> None:
    """It reaches the channels that it may reach, and whoever publishes hears of the others."""
    url = await restricted(server, "me", "resetchannels", "&*:c:b")
    async with new_hub(server, history_size=0) as hub, new_hub(url=url, history_size=0) as other:
        async with reading(hub, "b") as reader:
            with pytest.raises(PublishUnknownError, match="published in part"):
                await other.publish(["a", "b"], "1")
            await reader.has("1")


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
    """Keys that were overwritten are an error for who asks, and end no connection."""
    async with new_hub() as hub:
        await hub.publish("a", "1")
        shared_redis.cli("SET", keys("i"), "nonsense")
        with pytest.raises(BackendError, match="refused to read history: WRONGTYPE"):
            await hub.history("a", "b")  # what became of the events of a channel without a stream, the index knows
        with pytest.raises(BackendError, match="not published: Redis refused: WRONGTYPE"):
            await hub.publish("a", "2")
        shared_redis.cli("DEL", keys("i"))
        shared_redis.cli("HSET", keys("m"), "h", "nonsense")
        with pytest.raises(BackendError, match="holds no numbers"):
            await hub.history("a")


@pytest.mark.parametrize("publish", [False, True])
async def test_a_meta_key_that_was_evicted(
    new_hub: NewHub,
    shared_redis: RedisServer,
    keys: Callable[[str], str],
    publish: bool,  # noqa: FBT001
) -> None:
    """Where only the meta key is gone, readers are told once, and are not sent again what they had."""
    async with new_hub() as hub, reading(hub, "a") as live:
        given = await ids(hub, "a", 2)
        await live.has("0", "1")
        shared_redis.cli("DEL", keys("m"))
        if publish:
            await hub.publish("b", "elsewhere")
        await live.until(lambda one: one.gaps)
        assert await resumed(hub, "a", given[1]) == ([], ["epoch"])
        await live.until(lambda one: len(one.texts) > 2)
    assert (live.texts[:2], live.gaps) == (["0", "1"], ["epoch"])


async def test_a_key_that_is_remembered_from_another_life(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """The position that it returns is an old one, and alarms nobody."""
    async with new_hub() as hub, new_hub() as other:
        first = await hub.publish("a", "1", idempotency_key="key")
        shared_redis.cli("DEL", keys("m"))
        await other.publish("a", "2")
        last = await hub.publish("a", "3") or ""
        with anyio.fail_after(5):
            while {epoch(hub), epoch(other)} != {last.partition("-")[0]}:
                await anyio.sleep(0.01)
        caplog.clear()
        assert await hub.publish("a", "1", idempotency_key="key") == first
        assert await other.publish("a", "1", idempotency_key="key") == first
        assert caplog.text == ""


def epoch(hub: Hub) -> str:
    assert hub._registry is not None
    position = hub._registry.position()
    assert position is not None
    return position.epoch
