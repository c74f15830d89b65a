"""What a response streams, made into frames: the two kinds of content behind one interface."""

import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from typing import Any, Protocol

from ._event import as_frame
from ._runtime import Wakeup, checkpoint, new_wakeup
from ._subscription import Subscription
from ._threads import iterate_in_thread

BODY_LIMIT = 64 * 1024
JOIN_SECONDS = 0.005


class Feed(Protocol):
    """Frames for one connection; all but `run` and `close` are called by its one writer."""

    @property
    def immediate(self) -> bool:
        """Whether the response starts before there is anything to send."""

    @property
    def ended(self) -> str | None:
        """Why nothing more will come once nothing is pending, or None."""

    @property
    def pending(self) -> bool:
        """Whether `take` has something to give."""

    @property
    def hungry(self) -> bool:
        """Whether `run` has something to do; it is run in a task of its own, once at a time."""

    def attach(self, wakeup: Wakeup) -> None:
        """Wake the writer with this."""

    def take(self) -> bytes:
        """Return what is pending as one body."""

    def sent(self) -> None:
        """Hear that the body that was taken last has been sent."""

    def ping(self) -> bytes:
        """Return what to send into a silence."""

    async def run(self) -> None:
        """Get more."""

    async def close(self) -> None:
        """Let go of everything, when `run` is not running."""


PING = b":\n"


class IterableFeed:
    """An iterable, pulled only while no send is pending."""

    immediate = False

    def __init__(self, iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
        """Touch nothing yet."""
        self._iterable = iterable
        self._frames: list[bytes] = []
        self._size = 0
        self._since = 0.0
        self._sending = False
        self._wakeup: Wakeup | None = None
        self._room: Wakeup | None = None
        self.hungry = True
        self.ended: str | None = None

    @property
    def pending(self) -> bool:
        """Whether frames wait."""
        return bool(self._frames)

    def attach(self, wakeup: Wakeup) -> None:
        """Wake the writer when a frame is there."""
        self._wakeup = wakeup
        self._room = new_wakeup()

    def take(self) -> bytes:
        """Join the frames that wait, of at most 64 KiB together; a larger one goes alone."""
        frames, self._frames = self._frames, []
        if self._size > BODY_LIMIT and len(frames) > 1:
            self._frames.append(frames.pop())
        self._size = sum(map(len, self._frames))
        self._sending = True
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def sent(self) -> None:
        """Go on pulling."""
        self._sending = False
        if self._room is not None and not self._frames:
            self._room.set()

    def ping(self) -> bytes:
        """Write a bare comment line."""
        return PING

    async def run(self) -> None:
        """Iterate, in this one task from first to last, and close the iterator in it."""
        self.hungry = False
        iterator = self._iterator()
        try:
            async for item in iterator:
                if item is None:
                    await checkpoint()
                else:
                    await self._put(as_frame(item))
        finally:
            if isinstance(iterator, AsyncGenerator):
                await iterator.aclose()
        self.ended = "finished"

    def _iterator(self) -> AsyncIterator[Any]:
        if isinstance(self._iterable, AsyncIterable):
            return aiter(self._iterable)
        return _each(self._iterable) if isinstance(self._iterable, list | tuple) else iterate_in_thread(self._iterable)

    async def _put(self, frame: bytes) -> None:
        assert self._wakeup is not None
        assert self._room is not None
        if not self._frames:
            self._since = time.monotonic()
        self._frames.append(frame)
        self._size += len(frame)
        self._wakeup.set()
        # What comes without a pause is joined, but not for longer than a reader would notice.
        while self._frames and (self._sending or self._size >= BODY_LIMIT or self._is_old()):
            await self._room.wait()

    def _is_old(self) -> bool:
        return time.monotonic() - self._since > JOIN_SECONDS

    async def close(self) -> None:
        """Have nothing left to do."""


async def _each(items: list[Any] | tuple[Any, ...]) -> AsyncIterator[Any]:
    for item in items:
        yield item


class SubscriptionFeed:
    """A subscription: entered, and caught up when it is behind, outside of the writer's task."""

    immediate = True

    def __init__(self, subscription: Subscription) -> None:
        """Touch nothing yet."""
        self._subscription = subscription
        self._entered = False

    @property
    def hungry(self) -> bool:
        """Whether it must be entered or caught up."""
        return not self._entered or self._subscription.behind

    @property
    def ended(self) -> str | None:
        """Why the hub ended it."""
        return self._subscription.ended

    @property
    def pending(self) -> bool:
        """Whether events wait."""
        return self._subscription.pending

    def attach(self, wakeup: Wakeup) -> None:
        """Wake the writer when an event is there."""
        self._subscription.attach(wakeup)

    def take(self) -> bytes:
        """Join what waits."""
        return self._subscription.take(BODY_LIMIT)

    def sent(self) -> None:
        """Do nothing: live events do not wait for a reader, and history is read when all was taken."""

    def ping(self) -> bytes:
        """Write the position if it has moved, else a bare comment line."""
        return self._subscription.position_frame() or PING

    async def run(self) -> None:
        """Enter, or read one page of history."""
        if self._entered:
            await self._subscription.catch_up()
        else:
            self._entered = True
            await self._subscription.__aenter__()

    async def close(self) -> None:
        """Leave."""
        if self._entered:
            await self._subscription.__aexit__()
