"""Followers of runs that record what they see, and sources that a test drives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from servers.processes import clock
from sse_asgi import Hub

PATIENCE = 15.0
LOST_LOG = {"state": "lost", "reason": "log"}


class Follower:
    """One reader of a run.

    Attributes:
        texts: The data of its events, without gaps and the end.
        ids: Their ids.
        gaps: The reasons of all gaps.
        end: What the end says; None before.
        ended: When the end came, on `clock()`.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ids: list[str] = []
        self.gaps: list[str] = []
        self.end: dict[str, str] | None = None
        self.ended = 0.0

    @property
    def seen(self) -> list[tuple[str, str]]:
        """The ids with the texts."""
        return list(zip(self.ids, self.texts, strict=True))

    async def follow(self, run: Any, last_event_id: str | None = None) -> "Follower":
        """Read to the end."""
        async with run.follow(last_event_id) as subscription:
            async for event in subscription:
                data = event.data or ""
                if event.event == "sse.end":
                    self.end, self.ended = json.loads(data), clock()
                elif event.event == "sse.gap":
                    self.gaps.append(json.loads(data)["reason"])
                else:
                    self.texts.append(data)
                    self.ids.append(event.id or "")
        return self


async def read_all(hub: Hub, key: str, last_event_id: str | None = None, *, patience: float = PATIENCE) -> Follower:
    """Follow the run that has this key to its end, which must come."""
    run = await hub.get_run(key)
    assert run is not None
    with anyio.fail_after(patience):
        return await Follower().follow(run, last_event_id)


@asynccontextmanager
async def following(hub: Hub, key: str) -> AsyncIterator[Follower]:
    """Follow a run while the block runs, and then until its end, which must come."""
    run = await hub.get_run(key)
    assert run is not None
    follower = Follower()
    task = asyncio.create_task(follower.follow(run))
    try:
        await anyio.sleep(0)
        yield follower
        with anyio.fail_after(PATIENCE):
            await task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(fact: Callable[[], Any], patience: float = PATIENCE) -> None:
    """Wait for a fact."""
    with anyio.fail_after(patience):
        while not fact():
            await anyio.sleep(0.005)


class Source:
    """A source that yields what a test gives it.

    Attributes:
        begun: How often it was begun.
        given: How many items it has given to the run.
        cleaned: When its `finally`, which awaits, has ended, on `clock()`; None before.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.given = 0
        self.cleaned: float | None = None
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def give(self, *items: Any) -> None:
        """Have it yield these; raise those that are exceptions, and end at None."""
        for item in items:
            self._items.put_nowait(item)

    async def __call__(self) -> AsyncIterator[Any]:
        self.begun += 1
        try:
            while (item := await self._items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
                self.given += 1
        finally:
            await anyio.sleep(0.02)
            self.cleaned = clock()
