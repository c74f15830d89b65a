"""A log that keeps everything, in a few lines: the judge of what a backend's history returns and reports."""

from random import Random
from typing import Any, NamedTuple

from ..._log.event import ServerSentEvent
from ..._log.position import Position
from ...backends.base import Backend


class Published(NamedTuple):
    """One event, and where it is in the log."""

    position: Position
    channels: tuple[str, ...]
    text: str


class NaiveLog:
    """Publishes random events to a backend, and compares its history with everything that was published."""

    def __init__(self, backend: Backend, seed: int, names: str = "abcd") -> None:
        self._backend = backend
        self._random = Random(seed)
        self._names = names
        self.published: list[Published] = []

    async def publish(self) -> None:
        """Publish one event to one or several channels."""
        channels = tuple(self._random.sample(self._names, self._random.choice((1, 1, 2, 3))))
        text = str(len(self.published)) * self._random.choice((1, 1, 10))
        position: Any = await self._backend.publish(channels, ServerSentEvent(text), key=None, idempotency_key=None)
        self.published.append(Published(position, channels, text))

    async def read(self) -> None:
        """Read on from a position, page by page: in order, each event once, with a reason exactly if one is missing."""
        channels = tuple(self._random.sample(self._names, self._random.randint(1, 3)))
        start = self._random.choice(self.published).position
        missed = [one for one in self.published if one.position > start and not {*one.channels}.isdisjoint(channels)]
        got: list[tuple[Any, Any]] = []
        reasons = []
        after: Position | None = start
        while after is not None:
            page = await self._backend.history(channels, after, self.published[-1].position, 3)
            got += [(entry.position, entry.event.data) for entry in page.entries]  # type: ignore[union-attr]
            reasons.append(page.reason)
            after = page.next
        expected = [(one.position, one.text) for one in missed]
        assert got == [one for one in expected if one in got], (channels, start)
        assert (reasons[0] is None) == (got == expected), (channels, start, reasons, [one.channels for one in missed])

    async def run(self, steps: int = 40) -> None:
        """Publish and read by chance."""
        await self.publish()
        for _ in range(steps):
            await (self.publish() if self._random.random() < 0.7 else self.read())
        await self.read()
