"""The Lua scripts: the bounds in bytes that they keep, of a channel and of all channels together."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from real_redis.helpers import calls, resumed
from real_redis.launcher import RedisServer
from real_redis.readers import reading
from sse_asgi import Hub
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis._address import read_address
from sse_asgi.backends.redis._dial import dial
from sse_asgi.backends.redis._keys import Keys
from sse_asgi.backends.redis._link import Link
from sse_asgi.backends.redis._resp import ReplyError
from sse_asgi.backends.redis._scripts import Scripts

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


FRAME = len("\ndata: \n\n")


async def kept(hub: Hub, channel: str = "a") -> list[str]:
    return [event.data or "" for event in await hub.history(channel, limit=1000)]


async def test_a_channel_is_bounded_in_bytes(new_hub: NewHub) -> None:
    """It keeps the newest events that fit, to the byte; readers of the dropped events get a gap."""
    async with new_hub(history_bytes=3 * (FRAME + 10)) as hub:
        given = [await hub.publish("a", f"{number:010}") or "" for number in range(10)]
        assert await kept(hub) == [f"{number:010}" for number in (7, 8, 9)]
        assert await resumed(hub, "a", given[6]) == ([f"{number:010}" for number in (7, 8, 9)], [])
        assert (await resumed(hub, "a", given[5]))[1] == ["trimmed"]
        await hub.publish("a", "x" * (3 * (FRAME + 10) - FRAME))
        assert [len(text) for text in await kept(hub)] == [3 * (FRAME + 10) - FRAME]


async def test_an_event_that_is_larger_than_all_that_is_kept(new_hub: NewHub) -> None:
    """It is delivered live and not kept; readers that missed it, or an event before it, get a gap."""
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
        assert await kept(hub, "small") == ["8"]  # an event of two channels is larger by their names
        assert await kept(hub, "large") == ["4", "5", "6", "7", "8"]


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
    """While both versions run, both read all events, and the bound holds again afterwards."""
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
    """For any sizes, and for many concurrent publishes of several processes."""
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
    """They get a gap before and after the channel's next event; a reader that missed no event gets none."""
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
    """A channel that comes back counts for its new events only; another one loses its stream in its turn."""
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
    """If only the meta key was lost, the older events are dropped for the newer ones."""
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
    """Events of an earlier version's process are counted at the next event; a sum that is too large is corrected."""
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
    fill = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], ARGV[1], 'new' .. i) end"
    async with new_hub() as hub:
        last = await hub.publish("a", "x" * 100) or ""
        shared_redis.cli("EVAL", fill, "1", keys("i"), str(int(last.partition("-")[2]) + 1))
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


async def test_a_server_that_does_not_know_a_script_gets_its_text(server: RedisServer, name: str) -> None:
    """Once; other errors are the caller's."""
    link = (await dial(read_address(server.url), b"a", partial(Link, 5))).link
    scripts, keys = Scripts(), Keys("sse", name)
    for _ in range(2):
        assert await scripts.announce.run(link, [keys.idempotency(None), keys.topic("a")], ["PUBLISH", 0, "x"]) is None
    assert calls(server, "eval") == 1
    with pytest.raises(ReplyError):
        await scripts.announce.run(link, [], [])
    link.close("for a test")
