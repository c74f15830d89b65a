"""Readers that record their events, and publishers that record the stored ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from sse_asgi import BackendError, Hub, PublishUnknownError

PATIENCE = 20.0


class Reader:
    """One reader of a hub, from where it starts or resumes.

    Attributes:
        texts: The data of all events but gaps.
        ids: Their ids.
        gaps: The reasons of all gaps.
    """

    def __init__(self) -> None:
        self.texts: list[str | None] = []
        self.ids: list[str] = []
        self.gaps: list[str] = []
        self.error: BaseException | None = None

    async def read(self, hub: Hub, channels: tuple[str, ...], entered: asyncio.Event, **options: Any) -> None:
        async with hub.subscribe(*channels, **options) as subscription:
            entered.set()
            async for event in subscription:
                if event.event == "sse.gap":
                    self.gaps.append(json.loads(event.data or "")["reason"])
                else:
                    self.texts.append(event.data)
                    self.ids.append(event.id or "")

    async def until(self, condition: Callable[["Reader"], object]) -> None:
        """Wait for a fact."""
        with anyio.fail_after(PATIENCE):
            while not condition(self):
                await anyio.sleep(0.005)

    async def has(self, *texts: str) -> None:
        """Wait for the last of these, then compare all."""
        await self.until(lambda one: one.texts[-1:] == list(texts[-1:]) or len(one.texts) > len(texts))
        assert self.texts == list(texts)


@asynccontextmanager
async def reading(hub: Hub, *channels: str, wait: bool = True, **options: Any) -> AsyncIterator[Reader]:
    """Read channels while the block runs."""
    reader, entered = Reader(), asyncio.Event()
    task = asyncio.create_task(reader.read(hub, channels, entered, **options))
    if wait:
        await asyncio.wait([asyncio.create_task(entered.wait()), task], return_when="FIRST_COMPLETED")
    try:
        yield reader
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


class Publisher:
    """Publishes numbers to one channel.

    Attributes:
        stored: Those that were acknowledged.
        unknown: Those that may have been stored.
    """

    def __init__(self, hub: Hub, channel: str, pause: float = 0.002) -> None:
        self.stored: list[str] = []
        self.unknown: list[str] = []
        self.refused = 0
        self.stopping = False
        self._hub = hub
        self._channel = channel
        self._pause = pause

    async def run(self, *, keyed: bool = False) -> None:
        number = 0
        while not self.stopping:
            number += 1
            text = str(number)
            try:
                await self._hub.publish(self._channel, text, idempotency_key=f"{id(self)}-{text}" if keyed else None)
            except PublishUnknownError:
                self.unknown.append(text)
            except BackendError:
                self.refused += 1
            else:
                self.stored.append(text)
            await asyncio.sleep(self._pause)


@asynccontextmanager
async def publishing(hub: Hub, channel: str, *, keyed: bool = False) -> AsyncIterator[Publisher]:
    """Publish while the block runs; at its end wait for the last reply."""
    publisher = Publisher(hub, channel)
    task = asyncio.create_task(publisher.run(keyed=keyed))
    try:
        yield publisher
    finally:
        publisher.stopping = True
        await asyncio.wait([task])
