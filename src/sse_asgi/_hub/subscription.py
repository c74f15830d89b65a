"""One reader's handle on its channels: a bounded buffer behind a replay gate.

The gate is closed while the reader is behind the log. Live events are held in the buffer meanwhile, and history is
read a page at a time until it reaches what is held; then the gate opens. A reader that falls behind later closes its
gate again and is caught up the same way, so there is one recovery path. These hold at every await:

- Everything up to `_position` was taken by the reader, waits in `_ready`, or was declared lost by an `sse.gap`.
- With the gate open, the buffer holds every later event of the reader's channels that this process has seen, up to
  where the reader was ended.
- With the gate closed, it holds those seen since the last round began, unless `_missed` says that some were let go.
"""

import math
from typing import Literal, Self

from .._log.event import Entry, ServerSentEvent
from .._log.position import Position, furthest
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from ..exceptions import SlowReaderError
from .buffer import Buffer
from .delivery import Carrier, Delivery
from .options import Options
from .source import Source
from .view import FRESH, gap, is_after, position_before, seen_event, seen_frame, take_snapshot

BODY_LIMIT = 64 * 1024
PAGE = 512
PING = b":\n"


class Subscription:
    """A reader's events, to be returned in an EventSourceResponse or iterated inside `async with`.

    Attributes:
        channels: The names it reads, in the order given.
        last_event_id: Where it resumes; None or `""` is a fresh start.
        options: How it reads.
        ended: Why it was ended (`shutdown`, `revoked`, or `slow` with `overflow="close"`), or None.
        joined: Whether whatever is published from now on reaches it.
        recovery: How it began; known once it is entered.
        since: When it was looked up what it may; orders that were heard later concern it.
    """

    immediate = True

    __slots__ = (
        "_buffer",
        "_carrier",
        "_lost",
        "_missed",
        "_news",
        "_open",
        "_plain",
        "_position",
        "_ready",
        "_source",
        "_state",
        "_told",
        "_wakeup",
        "_written",
        "channels",
        "ended",
        "joined",
        "last_event_id",
        "options",
        "recovery",
        "since",
    )

    def __init__(self, source: Source, channels: tuple[str, ...], last_event_id: str | None, options: Options) -> None:
        """Prepare to read; nothing happens before it is entered."""
        self.channels = channels
        self.last_event_id = last_event_id
        self.options = options
        self.ended: str | None = None
        self.joined = False
        self.since = math.inf
        self.recovery = FRESH
        self._source = source
        self._news: Signal  # attached before the hub knows of this reader
        self._carrier: Carrier | None = None
        self._wakeup: Wakeup  # of one that is iterated
        self._state: Literal["new", "entered", "left"] = "new"
        self._ready: list[Entry] = []
        self._buffer = Buffer(options.buffer_size, options.buffer_bytes)
        self._position: Position | None = None
        self._written: Position | None = None
        self._open = self._missed = False
        self._lost: str | None = None
        self._told: int | None = 0
        self._plain = options.transform is None

    # What the application uses

    async def __aenter__(self) -> Self:
        """Join the channels, and resume after `last_event_id` where one was given.

        Raises:
            RuntimeError: It was entered before, or another event loop than the hub's runs here.
        """
        self._wakeup = new_wakeup()
        self.attach(self._wakeup, None)
        await self._enter()
        return self

    async def _enter(self) -> None:
        self._source.home.check("cannot enter the subscription")
        self._state = "entered"
        try:
            position = await self._source.enter(self)
            self.joined = True
            self._news.set()
            if self.ended is None:
                await self._begin(position)
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave the channels.

        Raises:
            RuntimeError: Another event loop than the hub's runs here.
        """
        self._source.home.check("cannot leave the subscription")
        self._state = "left"
        await self._source.leave(self)

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event; it carries its `id` and this reader's `channels`.

        Raises:
            SlowReaderError: The buffer was full and the rule is `overflow="close"`.
            StopAsyncIteration: The hub was drained or closed.
            RuntimeError: It was not entered, or another event loop than the hub's runs here.
        """
        self._source.home.check("cannot read the subscription")
        if self._state != "entered":
            msg = "a subscription is iterated inside `async with subscription:`"
            raise RuntimeError(msg)
        while True:
            while (entry := self._pop()) is not None:
                event = seen_event(entry, self.channels, self.options)
                if event is not None:
                    return entry.for_reader(event, self.channels)
            if self.ended == "slow":
                raise SlowReaderError(self._buffer.bounds)
            if self.ended is not None:
                raise StopAsyncIteration
            await (self.catch_up() if self.behind else self._wakeup)

    # What the hub calls, in the publisher's own turn

    def offer(self, delivery: Delivery) -> None:
        """Send one live event, or hold it, or do what the overflow rule says. It never waits and never fails."""
        if self.ended is not None:  # else a slow reader, whose buffer is never found empty, would go on for ever
            return
        carrier = self._carrier
        if (
            delivery.at_once
            and carrier is not None
            and self._open
            and not (self._ready or self._buffer.entries)
            and carrier.send(delivery)
        ):
            self._position = self._written = delivery.position
        elif carrier is None or not delivery.entry.frame:
            self._hold(delivery.entry)
            self._news.set()
        else:
            if not self._buffer.append(delivery.entry):
                carrier.send_waiting()
                self._hold(delivery.entry)
            carrier.send_later(delivery)

    def _hold(self, entry: Entry) -> None:
        if not self._buffer.append(entry):
            self._overflow(entry)

    def lose(self, reason: str | None) -> None:
        """Announce that live events were lost, if it is known that they were, then catch up from what is left."""
        self._lost = reason or self._lost
        self._close_gate()
        self._news.set()

    def end(self, reason: str) -> None:
        """Let the reader have what is pending, then end its stream; from another thread, soon."""
        if not self._source.home.takes_over(lambda: self.end(reason)):
            self.ended = self.ended or reason
            if hasattr(self, "_news"):  # else nobody waits yet
                self._news.set()

    # What the response calls: the methods of a Feed

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Read on behalf of a task.

        Args:
            news: Set when there is something to do.
            carrier: Sends events that are the same for all readers in the turn of the publisher, where that works.

        Raises:
            RuntimeError: It was entered before.
        """
        if self._state != "new":
            msg = "a subscription is entered once, by hand or by its response: make another with hub.subscribe(...)"
            raise RuntimeError(msg)
        self._news = news
        self._carrier = carrier if self._plain else None

    @property
    def needs_run(self) -> bool:
        """Whether it must be entered or caught up."""
        return not self._open and (self._state == "new" or self.behind)

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events wait for the reader, and how many bytes."""
        ready = sum(len(entry.frame) for entry in self._ready)
        return len(self._ready) + len(self._buffer.entries), ready + self._buffer.size

    @property
    def behind(self) -> bool:
        """Whether history must be read before there is anything to give."""
        return not self._open and not self._ready and self.ended is None

    def take(self) -> bytes:
        """Return the frames that are pending, joined: at most 64 KiB, or a single larger one."""
        if not self._ready and not (self._open and self._buffer.entries):
            return b""
        return self.take_plain() or self._join()

    def take_plain(self) -> bytes:
        """Return the frames that are pending, joined, if they are the same for all readers; else no bytes."""
        buffer = self._buffer
        entries = buffer.entries
        if not entries or self._ready or not (self._open and self._plain) or buffer.dropped:
            return b""
        body = entries[0].frame
        if len(entries) > 1:
            frames = [entry.frame for entry in entries]
            body = b"".join(frames) if all(frames) and buffer.size <= BODY_LIMIT else b""
        if body:
            self._position = self._written = entries[-1].position
            buffer.clear()
        return body

    def _join(self) -> bytes:
        frames: list[bytes] = []
        size = 0
        while (entry := self._pop()) is not None:
            frame = seen_frame(entry, self.channels, self.options)
            size += len(frame)
            if frames and size > BODY_LIMIT:
                self._ready.insert(0, entry.seen_as(frame))
                break
            if frame:
                self._written = entry.position or self._written
                frames.append(frame)
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def ping(self) -> bytes:
        """Return `sse.position` if the position moved since the last id and nothing is pending, else a comment.

        A reader that was ended is offered nothing more, so the position may be ahead of an event that it never gets.
        """
        position = self._source.position()
        if position is None or position == self._written or not self.options.position_frames:
            return PING
        if not self._open or self.ended is not None or self._ready or self._buffer.entries:
            return PING
        self._position = self._written = position
        return Entry(None, position).frame

    async def run(self) -> None:
        """Enter, or read one page of history."""
        await (self._enter() if self._state == "new" else self.catch_up())

    async def reach(self) -> None:
        """Be offered everything that was published so far, in whatever process."""
        await self._source.reach()

    def stop(self) -> None:
        """Do nothing: the run that reads history is cancelled, and the buffer is read by nobody."""

    def last_words(self, words: bytes) -> bytes:
        """Return the words as they are."""
        return words

    async def close(self) -> None:
        """Leave, if it was entered."""
        if self._state == "entered":
            await self.__aexit__()

    async def catch_up(self) -> None:
        """Read the next page of history, and open the gate when it reaches what is held."""
        self._missed = False  # in the same breath as the position: what is let go later is after it
        upto = self._source.position()
        if upto is not None:
            await self._read_page(upto)
        else:
            self._announce(None)
            self._open_gate()

    # The gate

    async def _begin(self, upto: Position | None) -> None:
        if upto is None or not self.last_event_id:
            await self._begin_fresh(upto)
            return
        self._position = Position.parse(self.last_event_id)
        self._lost = None if self._position else "malformed"
        self.recovery = FRESH._replace(outcome="resumed")
        reason = await self._read_page(upto)
        if reason is not None:
            self.recovery = self.recovery._replace(outcome="gap", reason=reason)

    async def _begin_fresh(self, upto: Position | None) -> None:
        self._lost = None  # what was lost while it waited to enter is none of its business
        self._ready.extend(Entry(event) for event in self.options.initial)
        self._news.set()
        if self.options.snapshot is not None:
            self._ready.append(await take_snapshot(self.options, self, upto))
        elif upto is not None and self.options.rewind:
            await self._rewind(upto)
            return
        elif upto is not None and self.options.position_frames:
            # After the initial events: whoever comes back with this id is not sent them again.
            self._ready.append(Entry(None, upto))
        self._reach(upto)

    async def _rewind(self, upto: Position) -> None:
        """Begin with the newest events that are kept; those that were dropped before are not missed by a fresh reader.

        No position is written before them: a reader that is cut off before the first of them begins afresh.
        """
        count = self.options.rewind
        start = None if math.isinf(count) else await self._source.rewind(self.channels, int(count), upto)
        self._position = start or upto._replace(sequence=0)
        self._told = None
        await self._read_page(upto)
        if self._open and not self.recovery.replayed and self.options.position_frames:
            self._ready.append(Entry(None, upto))

    async def _read_page(self, upto: Position) -> str | None:
        page = await self._source.history(self.channels, self._position, upto, PAGE)
        self._lost = self._lost or page.announced(self._told)
        self._told = max(self._told or 0, page.lost)
        if page.foreign:
            self._position, self._told = None, page.lost
        if self._lost is not None and self.options.snapshot is not None:
            snapshot = await take_snapshot(self.options, self, furthest(self._position, upto))
            reason = self._announce(None)  # without an id: whoever is cut off here still needs the snapshot
            self._ready.append(snapshot)
            self._reach(upto)
            return reason
        reason = self._announce(
            position_before(page.entries[0]) if page.entries else page.next or furthest(self._position, upto)
        )
        self._ready.extend(page.entries)
        self.recovery = self.recovery._replace(replayed=self.recovery.replayed + len(page.entries))
        if page.next is None:
            self._reach(upto)
        else:
            self._position = page.next
        return reason

    def _announce(self, position: Position | None) -> str | None:
        reason, self._lost = self._lost, None
        if reason is not None:
            self._source.tally.gaps += 1
            self._ready.append(gap(reason, position))
        return reason

    def _reach(self, position: Position | None) -> None:
        """Have everything up to here; go live if everything later is held."""
        self._position = furthest(self._position, position)
        if not self._missed:
            self._open_gate()

    def _open_gate(self) -> None:
        self._open = True
        known = sum(not is_after(entry, self._position) for entry in self._buffer.entries)
        if known:
            self._buffer.pop(known)

    def _close_gate(self) -> None:
        self._open = False
        self._missed = True
        self._buffer.clear()

    def _overflow(self, entry: Entry) -> None:
        rule = self.options.overflow
        if entry.position is None or (self._open and rule == "drop_oldest"):
            self._buffer.append_dropping_oldest(entry)
        elif self._open and rule == "latest" and self._buffer.append_keeping_latest(entry):
            pass
        else:
            if self._open and rule == "close":
                self.ended = self.ended or "slow"
            self._close_gate()

    # The queue: what is ready, then what is live

    def _peek(self) -> Entry | None:
        if not self._ready and self._open and self._buffer.entries:
            if not self._buffer.dropped:
                return self._buffer.entries[0]
            self._source.tally.drops += self._buffer.dropped
            self._source.tally.gaps += 1
            self._buffer.dropped = 0
            self._ready.append(gap("overflow", position_before(self._buffer.entries[0])))
        return self._ready[0] if self._ready else None

    def _pop(self) -> Entry | None:
        entry = self._peek()
        if self._ready:
            self._ready.pop(0)
        elif entry is not None:
            self._buffer.pop()
            self._position = entry.position
        return entry
