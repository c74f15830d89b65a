"""The content of a stream as frames: the interface of a feed, and the feed of an iterable.

The other feeds are SubscriptionFeed, and PollFeed for an answer that ends.

An iterable feed pulls its iterable only while no send is pending. The first item in a turn of the event loop is sent at
once, from the iterable's own task. Items that come without a pause are joined, for JOIN_SECONDS at most, or up to
64 KiB: an iterable that computes without awaiting anything would otherwise be heard only when it has finished.
"""

import logging
import time
from collections.abc import AsyncIterable, Iterable
from typing import Any, Protocol

import anyio
import anyio.lowlevel
from starlette.requests import ClientDisconnect

from .._hub.delivery import BODY_LIMIT, PING, Carrier
from .._log.logged import about
from .._loop.iterators import async_iterator, close_iterator, close_unused
from .._loop.running import checkpoint
from .._loop.turn import Turn, current_turn
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from .framing import EventFraming, Framing
from .joining import JOIN_SECONDS

logger = logging.getLogger("sse_asgi.stream")


class Feed(Protocol):
    """Frames for one connection. Its one writer calls every method but `run` and `close`."""

    @property
    def kind(self) -> str:
        """The kind of stream, for telemetry."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of a subscription, for the log; empty for other contents."""

    @property
    def immediate(self) -> bool:
        """True if the head is sent before there is anything else to send."""

    @property
    def joined(self) -> bool:
        """True if an immediate feed misses nothing that is published from now on, so that the head may be sent."""

    @property
    def ended(self) -> str | None:
        """The reason why nothing follows the pending frames; None while more may come."""

    @property
    def needs_run(self) -> bool:
        """True if `run` has something to do now. It runs in a task of its own, one run at a time."""

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Serve a connection: set `news` when there is something to do, and send by `carrier` without a task."""

    def take(self) -> bytes:
        """Return the pending frames as one body of at most 64 KiB, or one larger frame; no bytes if none is pending.

        The writer calls it again when it has sent that body.
        """

    def take_plain(self) -> bytes:
        """Take the pending frames if they are the same for all readers; else return no bytes, and take nothing."""

    def ping(self) -> bytes:
        """Return the bytes that are sent into a silence."""

    async def run(self) -> None:
        """Get more frames."""

    def stop(self) -> None:
        """Give no more frames: the stream is over."""

    def last_words(self, words: bytes) -> bytes:
        """Return the bytes before the final body, given the last words of the stream."""

    async def close(self) -> None:
        """Release everything; called while `run` does not run."""


class IterableFeed:
    """The feed of an iterable, which is pulled only while no send is pending.

    Attributes:
        framing: Makes frames of the items. It may be replaced until `run` begins.
        needs_run: See Feed, like `ended`.
    """

    immediate = False
    kind = "iterable"
    channels: tuple[str, ...] = ()

    def __init__(
        self, iterable: AsyncIterable[Any] | Iterable[Any], cleanup_timeout: float, framing: Framing | None = None
    ) -> None:
        """Keep the iterable; it is not touched yet.

        Args:
            iterable: Iterated by `run`.
            cleanup_timeout: The most seconds that closing may take of an iterable that `run` never began.
            framing: Makes frames of the items; None writes them as events.
        """
        self._iterable = iterable
        self.framing = framing or EventFraming(iterable)
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
        """True if the first event has come."""
        return self._last_turn >= 0 or self._handed_over > 0

    @property
    def joined(self) -> bool:
        """Whether it may start now, which is asked of an immediate one only."""
        return True

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Give each frame to the carrier, or keep it and set `news`."""
        self._news, self._carrier = news, carrier
        self._room = new_wakeup()
        self._turn = current_turn()

    def take(self) -> bytes:
        """Join the pending frames, up to 64 KiB; a larger frame goes alone."""
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
        """Join all pending frames. They are few, because the writer rests."""
        frames, self._frames, self._size = self._frames, [], 0
        return b"".join(frames)

    def ping(self) -> bytes:
        """Return a bare comment line."""
        return PING

    async def run(self) -> None:
        """Iterate from first to last and close the iterator, all in this one task."""
        self.needs_run = False
        iterator, carrier, turn, write = async_iterator(self._iterable), self._carrier, self._turn, self.framing.write
        try:
            async for item in iterator:
                if self._stopped:  # it yields while it is cleaned up, and no later send would end a wait
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
        except ClientDisconnect:  # raised by reading the body of the request
            self.ended = "client"
            return
        finally:
            await close_iterator(iterator)
        if rest := self.framing.rest():
            self._hold(rest)
        self.ended = self.reason_of_end()

    def reason_of_end(self) -> str:
        """Return why an iterable has ended that raised nothing."""
        return "finished"

    def _hold(self, frame: bytes) -> None:
        """Have the writer send a frame. The iterable waits for that only if it is time to send."""
        if not self._frames:  # else the writer knows
            self._news.set()
        self._frames.append(frame)
        self._size += len(frame)
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
        """Close an iterator that `run` never began; it may hold resources that the endpoint acquired for it."""
        if not self.needs_run:
            return
        self.needs_run = False
        try:
            with anyio.move_on_after(self._cleanup_timeout, shield=True) as limit:
                await close_unused(self._iterable)
        except Exception:
            logger.exception(
                "a %s that was not streamed could not be closed",
                type(self._iterable).__name__,
                extra=about("unstreamed_close_failed"),
            )
        else:
            if limit.cancelled_caught:
                told = "a %s that was not streamed took more than %s s to close"
                extra = about("unstreamed_close_timed_out")
                logger.warning(told, type(self._iterable).__name__, self._cleanup_timeout, extra=extra)


def reader_of_body(feed: Feed) -> IterableFeed | None:
    """Return the feed if it runs code of the application, which may read the request's body; else None."""
    return feed if isinstance(feed, IterableFeed) else None
