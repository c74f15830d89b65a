"""A sink that records events, and short ways to publish to a backend and to wait for its events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from ..._log.event import Entry, ServerSentEvent
from ..._log.position import Position
from ...backends.base import Backend


class Tape:
    """A sink that records its calls."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.position: Position | None = None

    def deliver(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.position = entry.position

    def advance(self, position: Position) -> None:
        self.position = position

    def gap(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        raise AssertionError(reason, channels)

    def state(self, *, up: bool) -> None:
        assert up


@asynccontextmanager
async def connected(backend: Backend, *channels: str) -> AsyncIterator[Tape]:
    tape = Tape()
    async with backend.connect(tape):
        await backend.subscribe(channels)
        yield tape


async def put(
    backend: Backend, *channels: str, data: str = "x", key: str | None = None, once: str | None = None
) -> Any:
    return await backend.publish(channels, ServerSentEvent(data), key=key, idempotency_key=once)


def texts(entries: Any) -> list[str]:
    return [entry.event.data for entry in entries]


def types(entries: Any) -> list[str | None]:
    return [entry.event.event for entry in entries]


async def settled(tape: Tape, count: int) -> None:
    with anyio.fail_after(5):
        while len(tape.entries) < count:
            await anyio.sleep(0.001)
