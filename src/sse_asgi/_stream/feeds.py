"""What a response streams, made into frames: the interface, and its implementation for iterables.

The other implementations are SubscriptionFeed, and PollFeed for an answer that ends.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Any, Protocol

import anyio
from starlette.requests import ClientDisconnect

from .._hub.delivery import BODY_LIMIT, PING, Carrier
from .._loop.running import checkpoint
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from .direct import Turn, current_turn
from .framing import Framing
from .threads import close_in_thread, iterate_in_thread

logger = logging.getLogger("sse_asgi")

JOIN_SECONDS = 0.005


class Feed(Protocol):
    """Frames for one connection; all but `run` and `close` are called by its one writer."""

    @property
    def immediate(self) -> bool:
        """Whether the response starts before there is anything to send."""

    @property
    def joined(self) -> bool:
        """Whether it may start now, where it is immediate: nothing that is published after the head is missed."""

    @property
    def ended(self) -> str | None:
        """Why nothing more will come once nothing is pending, or None."""

    @property
    def needs_run(self) -> bool:
        """Whether `run` has something to do now; it is run in a task of its own, once at a time."""

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Set `news` when there is something to do; the carrier sends what needs no task."""

    def take(self) -> bytes:
        """Return what is there as one body of at most 64 KiB, unless one frame is larger; no bytes if nothing is.

        It is called again when that body has been sent.
        """

    def take_plain(self) -> bytes:
        """Return what is there if it is one frame that is the same for all; else no bytes, and nothing is taken."""

    def ping(self) -> bytes:
        """Return what to send into a silence."""

    async def run(self) -> None:
        """Get more."""

    def stop(self) -> None:
        """Give nothing more, because the stream is over."""

    def last_words(self, words: bytes) -> bytes:
        """Return what is sent before the final body, given the words that a stream ends with."""

    async def close(self) -> None:
        """Let go of everything, when `run` is not running."""


class IterableFeed:
    """An iterable, pulled only while no send is pending."""

    immediate = False

    def __init__(self, iterable: AsyncIterable[Any] | Iterable[Any], cleanup_timeout: float, framing: Framing) -> None:
        """Touch nothing yet.

        Args:
            iterable: Iterated by `run`.
            cleanup_timeout: Seconds that an iterable has to be closed which `run` never began.
            framing: Makes frames of its items.
        """
        self._iterable = iterable
        self._framing = framing
        self._cleanup_timeout = cleanup_timeout
        self._frames: list[bytes] = []
        self._size = 0
        self._handed_over = 0.0
        self._sending = False
        self._last_turn = -1
        self._turn: Turn
        self._news: Signal  # attached before the first take
        self._carrier: Carrier | None = None
        self._room: Wakeup
        self._stopped = False
        self.needs_run = True
        self.ended: str | None = None

    @property
    def begun(self) -> bool:
        """Whether its first event has come."""
        return self._last_turn >= 0 or self._handed_over > 0

    @property
    def joined(self) -> bool:
        """Whether it may start now, which is asked of an immediate one only."""
        return True

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Give each frame to the carrier, or set `news` when one is there."""
        self._news, self._carrier = news, carrier
        self._room = new_wakeup()
        self._turn = current_turn()

    def take(self) -> bytes:
        """Join the frames that wait, of at most 64 KiB together; a larger one goes alone."""
        if not self._frames:
            self._sending = False
            self._room.set()
            return b""
        frames, self._frames = self._frames, []
        if self._size > BODY_LIMIT and len(frames) > 1:
            self._frames.append(frames.pop())
        self._size = sum(map(len, self._frames))
        self._sending = True
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def take_plain(self) -> bytes:
        """Take what waits: the writer rests, so that it is not much."""
        frames, self._frames, self._size = self._frames, [], 0
        return b"".join(frames)

    def ping(self) -> bytes:
        """Write a bare comment line."""
        return PING

    async def run(self) -> None:
        """Iterate, in this one task from first to last, and close the iterator in it."""
        self.needs_run = False
        iterator, carrier, turn, write = self._iterator(), self._carrier, self._turn, self._framing.write
        try:
            async for item in iterator:
                if self._stopped:  # yielded while it is cleaned up: to go on would wait for a send that never comes
                    return
                frame = b"" if item is None else write(item)
                if not frame:
                    await checkpoint()
                    continue
                if carrier and carrier.rests and turn.number != self._last_turn and not self._frames:
                    self._last_turn = turn.mark()
                    self._sending = not carrier.send_now(frame)
                else:
                    self._hold(frame)
                if self._sending:
                    await self._until_sent()
        except ClientDisconnect:  # it was reading the body of the request
            self.ended = "client"
            return
        finally:
            await _close_async(iterator)
        if rest := self._framing.rest():
            self._hold(rest)
        self.ended = "finished"

    def _iterator(self) -> AsyncIterator[Any]:
        if isinstance(self._iterable, AsyncIterable):
            return aiter(self._iterable)
        return _each(self._iterable) if isinstance(self._iterable, list | tuple) else iterate_in_thread(self._iterable)

    def _hold(self, frame: bytes) -> None:
        """Have the writer send a frame, which the source need not wait for unless it is time."""
        self._frames.append(frame)
        self._size += len(frame)
        self._news.set()
        # What comes without a pause is joined, but not for longer than a reader would notice: a source that computes
        # without awaiting would otherwise be heard only when it has finished.
        now = time.monotonic()
        if self._sending or self._size >= BODY_LIMIT or now - self._handed_over > JOIN_SECONDS:
            self._handed_over = now
            self._sending = True

    async def _until_sent(self) -> None:
        while self._frames or self._sending:
            await self._room

    def stop(self) -> None:
        """Break the iterator off at its next item."""
        self._stopped = True

    def last_words(self, words: bytes) -> bytes:
        """Return the words as they are."""
        return words

    async def close(self) -> None:
        """Close an iterator that `run` never began, which would otherwise keep what the endpoint acquired for it."""
        if not self.needs_run:
            return
        self.needs_run = False
        try:
            with anyio.move_on_after(self._cleanup_timeout, shield=True) as limit:
                await _close_unused(self._iterable)
        except Exception:
            logger.exception("a %s that was not streamed could not be closed", type(self._iterable).__name__)
        else:
            if limit.cancelled_caught:
                told = "a %s that was not streamed took more than %s s to close"
                logger.warning(told, type(self._iterable).__name__, self._cleanup_timeout)


def reader_of_body(feed: Feed) -> IterableFeed | None:
    """Return the feed if it runs code of the application, which may read the body of the request."""
    return feed if isinstance(feed, IterableFeed) else None


async def _close_unused(iterable: AsyncIterable[Any] | Iterable[Any]) -> None:
    """Close an iterator; an iterable that makes iterators is left alone, because it may serve others as well."""
    if isinstance(iterable, AsyncIterator):
        await _close_async(iterable)
    elif isinstance(iterable, Iterator) and hasattr(iterable, "close"):
        await close_in_thread(iterable)


async def _close_async(iterator: AsyncIterator[Any]) -> None:
    """Close an iterator where that can be done; a generator may yield once in its `finally`, which is broken off."""
    if isinstance(iterator, AsyncGenerator):
        with suppress(GeneratorExit, StopAsyncIteration):
            await iterator.athrow(GeneratorExit)
    close = getattr(iterator, "aclose", None)  # generators, streams of objects, cursors of databases
    if close is not None:
        await close()


async def _each(items: list[Any] | tuple[Any, ...]) -> AsyncIterator[Any]:
    for item in items:
        yield item
