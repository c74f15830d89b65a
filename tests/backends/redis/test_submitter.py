"""Publishing: one round trip, and its errors."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from real_redis.helpers import busy, restricted, resumed, state_is
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import BackendError, Hub, PublishUnknownError
from sse_asgi._servers.shutdown import current_notice

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


async def test_a_second_loss_is_unknown_even_with_a_key(server: RedisServer, new_hub: NewHub) -> None:
    """A publish with a key is sent at most twice; after the second loss the result is unknown."""
    async with new_hub(server, timeout=0.3) as hub:
        server.stop()
        with pytest.raises(PublishUnknownError, match="may have been stored"):
            await hub.publish("a", "1", idempotency_key="key")
        server.cont()


async def test_a_demoted_master_refuses(new_server: NewServer, server: RedisServer, new_hub: NewHub) -> None:
    """An event that a demoted master refuses is published when there is a master again."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        server.cli("REPLICAOF", "127.0.0.1", str(server.port))
        publishing = asyncio.create_task(hub.publish("a", "2"))
        await state_is(hub, "down")
        server.cli("REPLICAOF", "NO", "ONE")
        await publishing
        await reader.has("1", "2")
        assert reader.gaps == []


async def test_an_unsent_event_is_sent_to_the_next_session(new_hub: NewHub) -> None:
    """A connection that ends before an event is written leaves nothing unknown."""
    async with new_hub() as hub:
        await hub.publish("a", "0")
        link = hub.backend._keeper.session.server.link  # type: ignore[attr-defined]
        link._flush = lambda: None
        publishing = asyncio.create_task(hub.publish("a", "1"))
        with anyio.fail_after(20):
            while not any(b"EVALSHA" in command for command in link._unsent):
                await asyncio.sleep(0)
        link.close("for a test")
        assert await publishing
        assert [event.data for event in await hub.history("a")] == ["0", "1"]


@pytest.mark.parametrize("key", [None, "key"])
@pytest.mark.parametrize("size", [10, 0])
async def test_a_busy_server_is_waited_for(new_hub: NewHub, server: RedisServer, key: str | None, size: int) -> None:
    """While a script of another client runs, publishing waits, and the session lives on."""
    async with new_hub(server, history_size=size) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "0")
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        async with busy(server, 2):
            session.probe()
            await hub.publish("a", "1", idempotency_key=key)
        await reader.has("0", "1")
        assert reader.gaps == []
        assert hub.backend._keeper.session is session  # type: ignore[attr-defined]


async def test_a_server_that_is_busy_for_too_long(new_hub: NewHub, server: RedisServer) -> None:
    """Nothing was stored, and the error says so, and why."""
    async with new_hub(server, timeout=1.5) as hub:
        await hub.publish("a", "0")
        async with busy(server, 4):
            with pytest.raises(BackendError, match="not published: Redis refused: BUSY") as caught:
                await hub.publish("a", "1")
        assert type(caught.value) is BackendError
        assert [event.data for event in await hub.history("a")] == ["0"]


async def test_a_user_who_may_not_add_destroys_nothing(new_hub: NewHub, server: RedisServer) -> None:
    """An event that cannot be stored is an error, and earlier events stay."""
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
    """An error after an event was stored makes the result unknown, and the event still reaches the other channels."""
    url = await restricted(server, "me", *rules)
    async with new_hub(server) as hub, new_hub(url=url, name=name) as other, reading(hub, "b") as reader:
        with pytest.raises(PublishUnknownError, match="published in part, because Redis refused: "):
            await other.publish(["a", "b"], "1", idempotency_key="key")
        await reader.has("1")
        assert [event.data for event in await hub.history("a")] == ["1"]


async def test_without_history_an_event_that_is_announced_in_part(new_hub: NewHub, server: RedisServer) -> None:
    """It reaches the permitted channels, and the publisher gets an error for the others."""
    url = await restricted(server, "me", "resetchannels", "&*:c:b")
    async with new_hub(server, history_size=0) as hub, new_hub(url=url, history_size=0) as other:
        async with reading(hub, "b") as reader:
            with pytest.raises(PublishUnknownError, match="published in part"):
                await other.publish(["a", "b"], "1")
            await reader.has("1")


async def test_a_cancelled_publish_disturbs_nobody(new_hub: NewHub) -> None:
    """A cancelled publish does not shift the replies of others."""
    async with new_hub() as hub:
        for _ in range(20):
            task = asyncio.create_task(hub.publish("a", "cancelled"))
            other = asyncio.create_task(hub.history("a"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            assert isinstance(await other, list)
        first = await hub.publish("a", "1")
        assert (await hub.history("a"))[-1].id == first


async def test_a_loss_without_a_key_is_unknown(server: RedisServer, new_hub: NewHub) -> None:
    """The event may have been stored, and is not sent again."""
    async with proxied(server) as proxy, new_hub(url=proxy.url) as hub:
        await hub.publish("a", "0")
        proxy.flows.clear()
        publish = asyncio.create_task(hub.publish("a", "1"))
        await anyio.sleep(0.1)  # it is on its way
        proxy.cut()
        with pytest.raises(PublishUnknownError, match="was lost while publishing"):
            await publish


async def test_a_key_of_another_program(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """Its value is not a position, and the event is not published."""
    async with new_hub() as hub:
        shared_redis.cli("SET", f"sse:{{{name}}}:k:mine", "nonsense")
        with pytest.raises(BackendError, match="not published: what Redis remembers"):
            await hub.publish("a", "1", idempotency_key="mine")


async def test_a_publish_does_not_hold_up_a_server_that_stops(new_server: NewServer, new_hub: NewHub) -> None:
    """One that waits fails when the server stops, however often that is said, and a later one at once."""
    async with new_hub(new_server(), timeout=60) as hub:
        publish = asyncio.create_task(hub.publish("a", "1"))
        await anyio.sleep(0.05)
        notice = current_notice()
        notice.hear()
        notice.forget(notice)
        await asyncio.sleep(0)  # the wait is ending when it hears the same again
        notice.hear()
        try:
            for late in (publish, hub.publish("a", "2")):
                with pytest.raises(BackendError, match="Redis is away, and this server stops"):
                    await late
        finally:
            notice.forget(notice)


async def test_a_doubtful_session_is_proved_first(new_hub: NewHub) -> None:
    """So that no event is sent to a dead connection."""
    async with new_hub() as hub:
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        session._due = 0.0
        assert await hub.publish("a", "1")
        assert session._due > 0
        assert hub.backend._keeper.session is session  # type: ignore[attr-defined]
