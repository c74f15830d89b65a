"""The defaults of a backend: `rewind` page by page, no presence, no trouble."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sse_asgi import Backend, ServerSentEvent
from sse_asgi._log.event import Entry, History, RenderedEvent
from sse_asgi._log.position import Position
from sse_asgi.backends import base
from sse_asgi.backends.base import Sink, is_presence, presence_event

pytestmark = pytest.mark.anyio


class Smallest(Backend):
    """A log with only the methods that every backend must have."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        yield

    def connect(self, sink: Sink) -> Any:
        return self._connected()

    async def publish(self, channels: tuple[str, ...], event: Any, *, key: Any, idempotency_key: Any) -> Position:
        position = Position("0badc0de", len(self.entries) + 1)
        self.entries.append(Entry(event, position, channels, key))
        return position

    async def subscribe(self, channels: tuple[str, ...]) -> Position:
        return Position("0badc0de", len(self.entries))

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        """Do nothing."""

    async def history(self, channels: tuple[str, ...], after: Position | None, upto: Position, limit: int) -> History:
        start = 0 if after is None else after.sequence
        page = self.entries[start : min(start + limit, upto.sequence)]
        end = page[-1].position if page else upto
        return History(page, None if end == upto else end)


async def test_rewind_reads_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """It returns the position before the newest events, and does not count joins, leaves, and later events."""
    monkeypatch.setattr(base, "PAGE_ENTRIES", 2)
    backend = Smallest()
    given = []
    for event in (*"abc", presence_event("join", "ada"), *"de"):
        one = event if isinstance(event, ServerSentEvent) else ServerSentEvent(event)
        given.append(await backend.publish(("a",), one, key=None, idempotency_key=None))
    assert await backend.rewind(("a",), 1, given[-1]) == given[-2]
    assert await backend.rewind(("a",), 3, given[-1]) == given[1]
    assert await backend.rewind(("a",), 1, given[2]) == given[1]
    assert await backend.rewind(("a",), 5, given[-1]) is None


async def test_a_backend_need_not_know_more() -> None:
    """It has nothing to catch up with, knows no reason of an outage, and refuses presence by name."""
    backend = Smallest()
    await backend.reach()
    assert backend.trouble == ""
    assert backend.age(Position("01234567", 1)) == 0
    for asked in (backend.attend("process", lease=1), backend.present("a")):
        with pytest.raises(NotImplementedError, match="implement `attend` and `present`"):
            await asked


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (presence_event("join", "ada"), True),
        (presence_event("leave", "ada"), True),
        (ServerSentEvent("x", event="join"), False),
        (RenderedEvent(str, "sse.join", None), False),
    ],
)
def test_joins_and_leaves_are_known(event: Any, expected: bool) -> None:  # noqa: FBT001
    """By the type of an event that is the same for all readers."""
    assert is_presence(Entry(event, None, ("a",), None)) is expected
