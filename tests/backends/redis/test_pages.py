"""One reading of a page for all readers that want it at the same time."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from real_redis.helpers import calls, ids
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import PATIENCE, reading
from sse_asgi import BackendError, Hub
from sse_asgi._log.event import History
from sse_asgi._log.position import Position
from sse_asgi._loop.running import checkpoint
from sse_asgi.backends.redis._pages import KEPT_SECONDS, Pages

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


END = History([], None)


class Shelf:
    """Pages that are read when the test says so, or fail."""

    def __init__(self, page: History = END) -> None:
        self.pages = Pages()
        self.page = page
        self.readings: list[asyncio.Future[None]] = []

    async def get(self, wanted: str) -> History:
        return await self.pages.share(wanted, self._read)

    async def _read(self) -> History:
        self.readings.append(asyncio.get_running_loop().create_future())
        await self.readings[-1]
        return self.page._replace(reason=str(len(self.readings)))

    async def readers(self, *wanted: str) -> list[asyncio.Task[History]]:
        tasks = [asyncio.create_task(self.get(one)) for one in wanted]
        await checkpoint()
        await checkpoint()
        return tasks


@pytest.mark.anyio
async def test_a_page_is_read_once_for_all_who_want_it() -> None:
    """Readers that come just after them get it too; other pages are read at the same time."""
    shelf = Shelf()
    first, second, other = await shelf.readers("a", "a", "b")
    assert len(shelf.readings) == 2
    shelf.readings[0].set_result(None)
    assert await first is await second
    assert not other.done()
    shelf.readings[1].set_result(None)
    assert await other is not await first
    (later,) = await shelf.readers("a")
    assert await later is await first
    await asyncio.sleep(2 * KEPT_SECONDS)
    (last,) = await shelf.readers("a")
    assert len(shelf.readings) == 3
    shelf.readings[2].set_result(None)
    assert await last is not await first


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("count", "page"), [(1, END), (2, History([], Position("0badc0de", 1)))], ids=["alone", "nowhere"]
)
async def test_a_page_is_read_anew(count: int, page: History) -> None:
    """A page that one reader wanted is not kept, so that later losses are found; nor is a page without progress."""
    shelf = Shelf(page)
    for number in range(2):
        readers = await shelf.readers(*"a" * count)
        assert len(shelf.readings) == number + 1
        shelf.readings[number].set_result(None)
        await asyncio.gather(*readers)


@pytest.mark.anyio
async def test_who_asks_for_a_page_first_may_go() -> None:
    """The others get the page."""
    shelf = Shelf()
    first, second, third = await shelf.readers("a", "a", "a")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    shelf.readings[0].set_result(None)
    assert await second is await third
    assert len(shelf.readings) == 1


@pytest.mark.anyio
async def test_a_page_that_nobody_wants_any_more_is_given_up() -> None:
    """A later reader starts another reading, which the end of the first one does not disturb."""
    shelf = Shelf()
    gone = await shelf.readers("a", "a")
    for one in gone:
        one.cancel()
    await asyncio.wait(gone)
    (later,) = await shelf.readers("a")
    assert shelf.readings[0].cancelled()
    (beside,) = await shelf.readers("a")
    assert len(shelf.readings) == 2
    shelf.readings[1].set_result(None)
    assert await later is await beside


@pytest.mark.anyio
async def test_a_page_that_cannot_be_read_fails_for_all() -> None:
    """The next call reads it again."""
    shelf = Shelf()
    tasks = await shelf.readers("a", "a", "a")
    shelf.readings[0].set_exception(BackendError("refused"))
    for one in tasks:
        with pytest.raises(BackendError, match="refused"):
            await one
    (again,) = await shelf.readers("a")
    shelf.readings[1].set_result(None)
    await again


async def test_readers_that_come_back_together_share_what_is_read(
    server: RedisServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has everything that it missed, in its order, and one reading serves all of them."""
    monkeypatch.setattr("sse_asgi.backends.redis._pages.KEPT_SECONDS", 60)  # however slow this machine is
    async with proxied(server) as proxy, new_hub(url=proxy.url) as hub, AsyncExitStack() as stack:
        given = await ids(hub, "a", 50)
        await stack.enter_async_context(reading(hub, "a"))  # so that the others need not subscribe
        pages = hub.backend._keeper.pages  # type: ignore[attr-defined]
        before = calls(server, "evalsha") + calls(server, "eval")
        proxy.flows.clear()
        options: dict[str, Any] = {"last_event_id": given[9], "wait": False}
        readers = [await stack.enter_async_context(reading(hub, "a", **options)) for _ in range(100)]
        with anyio.fail_after(PATIENCE):
            while sum(one.waiting for one in pages._readings.values()) < 60:  # a hub reads 64 pages at once
                await anyio.sleep(0)
        proxy.flows.set()
        for reader in readers:
            await reader.has(*map(str, range(10, 50)))
        assert [reader.gaps for reader in readers] == [[]] * 100
        assert calls(server, "evalsha") + calls(server, "eval") - before <= 2  # the first call sends the script's text


async def test_history_has_what_was_published_just_before(new_hub: NewHub) -> None:
    """However many ask for it."""
    async with new_hub() as hub:
        for number in range(20):
            await hub.publish("a", str(number))
            for kept in await asyncio.gather(hub.history("a"), hub.history("a")):
                assert [event.data for event in kept] == [str(one) for one in range(number + 1)]
