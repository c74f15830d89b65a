"""Messages and keys of other programs: logged once, counted, ignored."""

from collections.abc import Callable

import pytest

from real_redis.launcher import RedisServer
from real_redis.readers import reading
from sse_asgi import BackendError, Hub, MemoryBackend

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
HOUR = 3_600_000_000


def ignored(hub: Hub) -> int:
    assert not isinstance(hub.backend, MemoryBackend)
    return int(hub.backend.ignored)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "",
        "{epoch} 9007199254740992 0 \ndata: x\n\n",
        "{epoch} {next} 0",
        "{epoch} {next} 0 ",
        "{epoch} -5 0 \ndata: x\n\n",
        "{epoch} 99999999999999999 0 \ndata: x\n\n",
        "{epoch} 9900000000000000 0 \ndata: x\n\n",
        "{epoch} {next} x \ndata: x\n\n",
        "{epoch} {next} 0 \ndata: x\n",
        "{epoch} {next} 0 \ndata: x\n\ndata: y\n\n",
        "{epoch} {next} 0 \nid: 1\ndata: x\n\n",
        "{epoch} {next} 0 \nretry: soon\ndata: x\n\n",
        "{epoch} {next} 0 \nretry: " + "1" * 4301 + "\ndata: x\n\n",
        "{epoch} {next} 0 \ndata: a\rb\n\n",
        "{epoch} {next} 0 [1]\ndata: x\n\n",
        '{epoch} {next} 0 {"c":["other"]}\ndata: x\n\n',
        '{epoch} {next} 0 {"c":["a",7]}\ndata: x\n\n',
        '{epoch} {next} 0 {"k":1}\ndata: x\n\n',
        '{epoch} {next} 0 {"c":7}\ndata: x\n\n',
        "{epoch} {next} 0 {\ndata: x\n\n",
        pytest.param("{epoch} {next} 0 " + "[" * 2000 + "\ndata: x\n\n", id="deeply nested"),
        "{epoch} {next} 0 \nevent: a\rb\ndata: x\n\n",
        '{epoch} {next} 0 {"k":"a"}\ndata: x\n',
        "too-long-an-epoch 1 0 \ndata: x\n\n",
        "hello to all of you",
        '{\n    "a": 1\n}',
        "good day to you",
        "deadbeef day to you",
    ],
)
async def test_a_message_that_is_not_ours(
    new_hub: NewHub, shared_redis: RedisServer, name: str, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    """No reader gets it, and later events arrive."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        first = await hub.publish("a", "1") or ""
        epoch, _, sequence = first.partition("-")
        message = message.replace("{epoch}", epoch).replace("{next}", str(int(sequence) + 1))
        for _ in range(2):
            shared_redis.cli("PUBLISH", f"sse:{{{name}}}:c:a", message)
        await hub.publish("a", "2")
        await reader.has("1", "2")
        assert reader.gaps == []
        assert ignored(hub) == 2
    assert [one.message for one in caplog.records if one.levelname != "DEBUG"] == [
        "Redis: a message on the channel 'a' is not of this library, or broken; it and its like are ignored"
    ]


async def test_a_message_that_looks_like_one_of_another_life(
    new_hub: NewHub, shared_redis: RedisServer, name: str
) -> None:
    """The log and the session go on."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        session = keeper.session
        shared_redis.cli("PUBLISH", f"sse:{{{name}}}:c:a", "00000000 1 0 \ndata: x\n\n")
        await hub.publish("a", "1")
        await reader.has("1")
        await keeper.reach()  # the check that the message caused is answered
        assert keeper.session is session


async def test_bytes_that_are_no_text(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """Data that is not UTF-8 is not delivered."""
    script = "return redis.call('PUBLISH', KEYS[1], ARGV[1] .. ' ' .. ARGV[2] .. ' 0 \\ndata: \\255\\n\\n')"
    async with new_hub() as hub, reading(hub, "a") as reader:
        epoch, _, sequence = (await hub.publish("a", "1") or "").partition("-")
        shared_redis.cli("EVAL", script, "1", f"sse:{{{name}}}:c:a", epoch, str(int(sequence) + 1))
        await hub.publish("a", "2")
        await reader.has("1", "2")
        assert ignored(hub) == 1


async def test_entries_that_are_not_ours(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """Foreign entries of a stream are left out of history, when it is read and when a process catches up."""
    stream = f"sse:{{{name}}}:s:a"
    async with new_hub() as hub:
        first = await hub.publish("a", "1")
        shared_redis.cli("XADD", stream, "*", "no", "thing")
        shared_redis.cli("XADD", stream, "*", "p", "x", "d", "y")
        shared_redis.cli("XADD", stream, "*", "p", "0", "d", "y")
        await hub.publish("a", "2")
        async with reading(hub, "a", last_event_id=first) as reader:
            await reader.has("2")
        assert reader.gaps == []
        assert ignored(hub) == 1  # Redis gave all three the sequence of the event before


async def test_a_header_without_a_bottom(server: RedisServer, new_hub: NewHub, name: str) -> None:
    """JSON that is too deep is left out of messages, of history, and of catching up."""
    deep = f"{'[' * 100_000}\ndata: x\n\n"
    async with new_hub(server) as hub, reading(hub, "a") as live:
        first = await hub.publish("a", "1") or ""
        epoch, _, sequence = first.partition("-")
        server.cli("PUBLISH", f"sse:{{{name}}}:c:a", f"{epoch} {int(sequence) + 1} 0 {deep}")
        server.cli("XADD", f"sse:{{{name}}}:s:a", f"{int(sequence) + 1}", "p", "0", "d", deep)
        await hub.publish("a", "2")
        await live.has("1", "2")
        async with reading(hub, "a", last_event_id=first) as reader:
            await reader.has("2")
        server.cli("CLIENT", "PAUSE", "100", "WRITE")
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        server.cli("XADD", f"sse:{{{name}}}:s:a", "*", "p", "0", "d", deep)
        await hub.publish("a", "3")
        await live.has("1", "2", "3")
        assert live.gaps == reader.gaps == []
        assert ignored(hub) >= 2


async def test_an_index_with_infinite_scores(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A score that is not a sequence is ignored, and that channel's last event is not known."""
    async with new_hub() as hub:
        first = await hub.publish("a", "1")
        shared_redis.cli("ZADD", f"sse:{{{name}}}:i", "inf", "a")
        async with reading(hub, "a", last_event_id=first) as reader:
            await hub.publish("a", "2")
            await reader.has("2")
        assert reader.gaps == []
        assert [event.data for event in await hub.history("a")] == ["1", "2"]


@pytest.mark.parametrize("command", [("SET", "nonsense"), ("XADD", "9000000000000000-0", "p", "0")])
async def test_a_stream_that_is_not_ours_is_replaced(
    new_hub: NewHub, shared_redis: RedisServer, name: str, command: tuple[str, ...]
) -> None:
    """Publishing replaces a key that cannot be added to; a reader that missed events gets a gap."""
    stream = f"sse:{{{name}}}:s:a"
    async with new_hub() as hub, reading(hub, "a") as live:
        first = await hub.publish("a", "1")
        await hub.publish("a", "2")
        shared_redis.cli("DEL", stream)
        shared_redis.cli(command[0], stream, *command[1:])
        assert await hub.history("a") == []
        await hub.publish("a", "3")
        async with reading(hub, "a", last_event_id=first) as reader:
            await reader.has("3")
        assert reader.gaps == ["trimmed"]
        await live.has("1", "2", "3")
        assert live.gaps == []


@pytest.mark.parametrize("value", ["", "nonsense", "0badc0de-x y"])
async def test_a_key_that_others_use(new_hub: NewHub, shared_redis: RedisServer, name: str, value: str) -> None:
    """The remembered value is not a position, and the publisher gets an error."""
    async with new_hub() as hub:
        shared_redis.cli("SET", f"sse:{{{name}}}:k:mine", value)
        with pytest.raises(BackendError, match="not published: what Redis remembers"):
            await hub.publish("a", "1", idempotency_key="mine")


async def test_a_poisoned_sequence_is_healed(server: RedisServer, new_hub: NewHub, name: str) -> None:
    """An event with a sequence from the near future begins another life: readers get a gap, and all goes on."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        epoch, _, sequence = (await hub.publish("a", "1") or "").partition("-")
        message = f"{epoch} {int(sequence) + HOUR} 0 \ndata: false\n\n"
        server.cli("PUBLISH", f"sse:{{{name}}}:c:a", message)
        await reader.until(lambda one: one.gaps)
        await hub.publish("a", "2")
        await reader.has("1", "false", "2")
        assert reader.gaps == ["epoch"]


async def test_a_hole_is_told(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """An event whose previous one never arrived shows that something was lost on its way."""
    async with new_hub() as hub, reading(hub, "a") as reader, reading(hub, "b") as other:
        await hub.publish("a", "1")
        shared_redis.cli("ZADD", f"sse:{{{name}}}:i", "8000000000000000", "a")
        await hub.publish(["a", "b"], "2")
        await reader.has("1", "2")
        await other.has("2")
        assert (reader.gaps, other.gaps) == (["lost"], [])


async def test_two_versions_side_by_side(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process with other texts of the scripts shares the hub."""
    async with new_hub() as hub, new_hub() as other:
        scripts = other.backend._scripts  # type: ignore[attr-defined]
        monkeypatch.setattr(scripts.publish, "_text", scripts.publish._text + b"\n-- later")
        monkeypatch.setattr(scripts.publish, "_hash", "0" * 40)
        async with reading(hub, "a") as one, reading(other, "a") as two:
            await hub.publish("a", "1")
            await other.publish("a", "2")
            await one.has("1", "2")
            await two.has("1", "2")
