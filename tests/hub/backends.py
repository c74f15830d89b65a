"""A backend that a hub takes for one that crosses processes."""

from typing import Any

from sse_asgi import MemoryBackend
from sse_asgi._log.event import History
from sse_asgi._log.position import Position
from sse_asgi.backends.base import Backend


class Elsewhere(Backend):
    """Stores events in memory, but does not say so."""

    def __init__(self) -> None:
        self.inner = MemoryBackend()

    def connect(self, sink: Any) -> Any:
        return self.inner.connect(sink)

    async def publish(self, channels: Any, event: Any, *, key: str | None, idempotency_key: str | None) -> Any:
        return await self.inner.publish(channels, event, key=key, idempotency_key=idempotency_key)

    async def subscribe(self, channels: tuple[str, ...]) -> Position | None:
        return await self.inner.subscribe(channels)

    async def unsubscribe(self, channels: tuple[str, ...]) -> None:
        await self.inner.unsubscribe(channels)

    async def history(self, channels: Any, after: Any, upto: Position, limit: int) -> History:
        return await self.inner.history(channels, after, upto, limit)

    async def start_run(self, key: str, owner: str, **options: Any) -> Any:
        return await self.inner.start_run(key, owner, **options)

    async def append_run(self, key: str, owner: str, after: int, events: Any) -> Any:
        return await self.inner.append_run(key, owner, after, events)

    async def end_run(self, key: str, state: Any, **options: Any) -> bool:
        return await self.inner.end_run(key, state, **options)

    async def get_run(self, key: str) -> Any:
        return await self.inner.get_run(key)

    async def renew_runs(self, owners: Any, *, lease: float) -> Any:
        return await self.inner.renew_runs(owners, lease=lease)
