"""Presence in Redis: lists of members, and the joins and leaves that changes of them publish."""

from collections.abc import Callable

import anyio
import pytest

from real_redis.launcher import RedisServer
from sse_asgi import Hub
from sse_asgi.backends.base import Member, is_presence

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
ADA, BOB = Member("a", "ada \u00e4\n"), Member("a", "bob")


async def presence(hub: Hub) -> list[str]:
    """Return the joins and leaves that are kept of the channel, as `join ada`."""
    backend = hub.backend
    upto = await backend.subscribe(("a",))
    assert upto is not None
    page = await backend.history(("a",), None, upto, 100)
    events = [entry.event for entry in page.entries if is_presence(entry)]
    return [f"{event.event} {event.data}" for event in events]  # type: ignore[union-attr]


async def test_an_identity_is_there_while_a_process_lists_it(new_hub: NewHub) -> None:
    """A repeated call changes nothing; the first process publishes a join, the last one a leave."""
    async with new_hub() as hub:
        backend = hub.backend
        for _ in range(2):
            assert await backend.attend("one", lease=9, entered=[ADA, BOB]) == 2
        assert await backend.attend("two", lease=9, entered=[ADA]) == 1
        assert sorted(await backend.present("a")) == [ADA.identity, "bob"]
        for _ in range(2):
            assert await backend.attend("one", lease=9, left=[ADA, BOB]) == 0
        assert await backend.present("a") == [ADA.identity]
        assert await backend.attend("two", lease=9, left=[ADA]) == 0
        assert await backend.present("a") == []
        ada, bob = r'{"identity":"ada ä\n"}', '{"identity":"bob"}'
        assert await presence(hub) == [
            *(f"sse.join {ada}", f"sse.join {bob}"),
            *(f"sse.leave {bob}", f"sse.leave {ada}"),
        ]


async def test_the_members_of_a_dead_process_are_removed(new_hub: NewHub) -> None:
    """By the next call of another process, once the lease has run out and the session is older than that."""
    async with new_hub() as hub:
        await hub.backend.attend("dead", lease=0.01, entered=[ADA])
        with anyio.fail_after(10):
            while await hub.backend.present("a") != ["bob"]:
                await hub.backend.attend("one", lease=0.05, entered=[BOB])


async def test_without_history_joins_are_announced(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """And no stream is written."""
    async with new_hub(history_size=0) as hub, hub.subscribe("a") as reader:
        await hub.backend.attend("one", lease=9, entered=[BOB])
        with anyio.fail_after(10):
            assert (await anext(reader)).event == "sse.join"
        assert shared_redis.cli("EXISTS", f"sse:{{{name}}}:j:a") == "0"
