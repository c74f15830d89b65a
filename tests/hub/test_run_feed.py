"""The frames of a run, and where they end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sse_asgi import Hub, Run
from sse_asgi._hub.delivery import Delivery
from sse_asgi._hub.run_feed import RunFeed
from sse_asgi._log.event import Entry
from sse_asgi._log.run import end_event
from sse_asgi._loop.wakeup import new_wakeup

pytestmark = pytest.mark.anyio

END = b'event: sse.end\ndata: {"state":"finished"}\n\n'


class Carrier:
    """Sends at once, if it may, and keeps what it was given to send later."""

    def __init__(self, *, rests: bool) -> None:
        self.rests = rests
        self.sent: list[bytes] = []
        self.later: list[Delivery] = []

    def send(self, delivery: Delivery) -> bool:
        if self.rests:
            self.sent.append(delivery.entry.frame)
        return self.rests

    def send_later(self, delivery: Delivery) -> None:
        self.later.append(delivery)

    def send_waiting(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def following(hub: Hub, key: str = "a", carrier: Any = None) -> AsyncIterator[RunFeed]:
    run = await hub.get_run(key)
    assert run is not None
    feed = RunFeed(run.follow())
    feed.attach(new_wakeup(), carrier)
    await feed.run()
    yield feed
    await feed.close()


async def paused(events: Any) -> AsyncIterator[str]:
    yield "1"
    await events.wait()
    yield "2"


async def begun(run: Run) -> None:
    """Wait for the first event of a run."""
    with anyio.fail_after(5):
        while (record := await run.look_up()) and not record.appended:
            await anyio.sleep(0)


def ids_removed(body: bytes) -> bytes:
    return b"".join(line + b"\n" for line in body.split(b"\n")[:-1] if not line.startswith(b"id: "))


async def test_a_run_that_has_ended_is_given_from_history() -> None:
    async with Hub() as hub:
        run = await hub.start_run("a", ["1", "event: sse.end"])
        await run.wait()
        async with following(hub) as feed:
            assert feed.ended is None
            body = ids_removed(feed.take())
            assert body == b"data: 1\n\ndata: event: sse.end\n\n" + END
            assert feed.ended == "finished"
            assert feed.take() == b""
            assert not feed.needs_run


@pytest.mark.parametrize("take", ["take", "take_plain"])
async def test_live_events_are_joined_up_to_the_end(take: str) -> None:
    go_on = anyio.Event()
    async with Hub() as hub:
        run = await hub.start_run("a", paused(go_on))
        await begun(run)
        async with following(hub) as feed:
            assert ids_removed(feed.take()) == b"data: 1\n\n"
            go_on.set()
            await run.wait()
            assert feed.ended is None
            assert ids_removed(getattr(feed, take)()) == b"data: 2\n\n" + END
            assert feed.ended == "finished"


@pytest.mark.parametrize("take", ["take", "take_plain"])
async def test_nothing_follows_the_end(take: str) -> None:
    """Another run with the same key may have written by the time at which a slow follower takes the end."""
    go_on = anyio.Event()
    async with Hub() as hub:
        run = await hub.start_run("a", paused(go_on), ttl=0.01)
        await begun(run)
        async with following(hub) as feed:
            feed.take()
            go_on.set()
            await run.wait()
            while await hub.get_run("a"):
                await anyio.sleep(0.001)
            another = await hub.start_run("a", ["x" * 1000])
            await another.wait()
            assert another.started
            assert ids_removed(getattr(feed, take)()) == b"data: 2\n\n" + END
            assert (feed.ended, feed.take()) == ("finished", b"")


async def test_nothing_follows_an_end_that_the_log_lacks() -> None:
    """A follower that caught up was told that its run is lost; it gets none of the next run with this key."""
    go_on = anyio.Event()
    async with Hub() as hub:
        run = await hub.start_run("a", paused(go_on))
        await begun(run)
        async with following(hub) as feed:
            feed.take()
            feed._gate.give([Entry(end_event("lost", "log"))])
            go_on.set()
            await run.wait()
            assert feed.take() == b'event: sse.end\ndata: {"state":"lost","reason":"log"}\n\n'
            assert (feed.ended, feed.take()) == ("finished", b"")


@pytest.mark.parametrize("rests", [True, False])
async def test_the_end_may_be_sent_by_the_producer(rests: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """In its own turn, or by a carrier that sends later; then the feed ends when the bytes have left it."""
    go_on = anyio.Event()
    carrier = Carrier(rests=rests)
    async with Hub() as hub:
        await begun(await hub.start_run("a", paused(go_on)))
        async with following(hub, carrier=carrier) as feed:
            feed.take()
            await anyio.sleep(0.01)
            assert await hub.cancel_run("a")
            assert feed.ended == ("finished" if rests else None)
            body = b"".join(carrier.sent) or feed.take_plain()
            assert ids_removed(body) == b'event: sse.end\ndata: {"state":"cancelled"}\n\n'
            assert feed.ended == "finished"


async def test_an_event_that_says_the_end_in_its_data_is_none() -> None:
    go_on = anyio.Event()
    async with Hub() as hub:

        async def source() -> AsyncIterator[str]:
            yield "\nevent: sse.end\n"
            await go_on.wait()

        await begun(await hub.start_run("a", source))
        async with following(hub) as feed:
            assert feed.take()
            assert feed.ended is None
        go_on.set()
