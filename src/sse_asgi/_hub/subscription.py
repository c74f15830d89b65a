"""Subscription: a reader's handle on its channels, and the I/O that its gate asks for.

`gate.py` decides what comes next. A Subscription joins the channels, reads history and takes snapshots, and gives the
results to the gate. It is entered once: by hand, which reads events, or by a SubscriptionFeed, which reads frames.
"""

import math
from enum import Enum
from typing import Literal, NamedTuple, Self

from .._log.event import Entry, History, ServerSentEvent
from .._log.names import END
from .._log.position import Position, furthest
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from ..exceptions import SlowReaderError
from .delivery import Delivery, Receiver
from .gate import OPEN, Gate
from .options import Options
from .source import Source
from .view import is_last, seen_event, seen_frame, take_snapshot

PAGE = 512


class Recovery(NamedTuple):
    """How a subscription began.

    Attributes:
        outcome: `fresh` (no id was given), `resumed` (nothing is missing), or `gap` (the stream begins with `sse.gap`).
        replayed: How many events came from history so far.
        reason: Why there is a gap, or None.
    """

    outcome: Literal["fresh", "resumed", "gap"]
    replayed: int = 0
    reason: str | None = None


FRESH = Recovery("fresh")


class Stage(Enum):
    """How far a subscription was used."""

    NEW = 1
    ENTERED = 2
    LEFT = 3


NEW, ENTERED, LEFT = Stage


class Subscription:
    """A reader's events, to be returned in an EventSourceResponse or iterated inside `async with`.

    Attributes:
        channels: The names of the channels that it reads, in the order given.
        last_event_id: The id after which it resumes; None or `""` is a fresh start.
        options: How it reads.
        joined: Whether every event that is published from now on reaches it.
        recovery: How it began; known once it is entered.
        since: When this reader was authorized. Disconnect orders received after that apply to it.
        stage: How far it was used.
        source: The hub that it reads from.
        gate: Its events between the hub and the reader.
    """

    __slots__ = (
        "_news",
        "_wakeup",
        "channels",
        "gate",
        "joined",
        "last_event_id",
        "options",
        "recovery",
        "since",
        "source",
        "stage",
    )

    def __init__(self, source: Source, channels: tuple[str, ...], last_event_id: str | None, options: Options) -> None:
        """Prepare to read; nothing happens before it is entered."""
        self.channels: tuple[str, ...] = channels
        self.last_event_id: str | None = last_event_id
        self.options: Options = options
        self.joined: bool = False
        self.recovery: Recovery = FRESH
        self.since: float = math.inf
        self.stage: Stage = NEW
        self.source: Source = source
        self.gate: Gate = Gate(options, source.tally)
        self._news: Signal | None = None
        self._wakeup: Wakeup  # set where it is entered by hand

    @property
    def ended(self) -> str | None:
        """Why it was ended (`shutdown`, `revoked`, `finished`, or `slow` with `overflow="close"`), or None."""
        return self.gate.ended

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events wait for the reader, and how many bytes."""
        return self.gate.waiting

    # What the application uses

    async def __aenter__(self) -> Self:
        """Join the channels, and resume after `last_event_id` where one was given.

        Raises:
            RuntimeError: It was entered before, or another event loop than the hub's runs here.
        """
        self._wakeup = new_wakeup()
        self.attach(self._wakeup)
        await self.enter(self)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Leave the channels.

        Raises:
            RuntimeError: Another event loop than the hub's runs here.
        """
        await self.leave()

    def __aiter__(self) -> Self:
        """Iterate over the events."""
        return self

    async def __anext__(self) -> ServerSentEvent:
        """Return the next event; it carries its `id` and this reader's `channels`.

        Raises:
            SlowReaderError: The buffer was full and the rule is `overflow="close"`.
            StopAsyncIteration: The hub was drained or closed, or the last event was of the type `until`.
            RuntimeError: It was not entered, or another event loop than the hub's runs here.
        """
        self.source.home.check("cannot read the subscription")
        if self.stage is not ENTERED:
            msg = "a subscription is iterated inside `async with subscription:`"
            raise RuntimeError(msg)
        gate = self.gate
        while True:
            while (entry := gate.take()) is not None:
                event = seen_event(entry, self.channels, self.options)
                if event is not None:
                    gate.count(entry, len(entry.frame))
                    if is_last(event.encode(), self.options):
                        gate.finish()
                    return entry.for_reader(event, self.channels)
            if gate.ended == "slow":
                raise SlowReaderError(gate.buffer.bounds)
            if gate.ended is not None:
                raise StopAsyncIteration
            await (self.catch_up() if gate.behind else self._wakeup)

    def end(self, reason: str) -> None:
        """Let the reader have the events that wait for it, then end its stream; from another thread, soon."""
        if not self.source.home.takes_over(lambda: self.end(reason)):
            self.gate.end(reason)
            self._notify()

    # What the hub calls, in the publisher's own turn

    def offer(self, delivery: Delivery) -> None:
        """Hold one live event for a reader that was entered by hand."""
        delivery.held += 1
        self.gate.hold(delivery.entry)
        self._wakeup.set()

    def lose(self, reason: str | None) -> None:
        """Announce that live events were lost, if it is known that they were, then catch up from history."""
        self.gate.lose(reason)
        self._notify()

    def _notify(self) -> None:
        if self._news is not None:
            self._news.set()

    # What a SubscriptionFeed calls, too

    def attach(self, news: Signal) -> None:
        """Claim the subscription for one task.

        Args:
            news: Set when there is something to do.

        Raises:
            RuntimeError: It was entered before.
        """
        if self.stage is not NEW:
            msg = "a subscription is entered once, by hand or by its response: make another with hub.subscribe(...)"
            raise RuntimeError(msg)
        self._news = news

    async def enter(self, receiver: Receiver) -> None:
        """Join the channels, and begin to read.

        Args:
            receiver: Is offered the live events.
        """
        self.source.home.check("cannot enter the subscription")
        self.stage = ENTERED
        try:
            position = await self.source.enter(self, receiver)
            self.joined = True
            self._notify()
            if self.gate.ended is None:
                await self._begin(position)
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Leave the channels."""
        self.source.home.check("cannot leave the subscription")
        self.stage = LEFT
        await self.source.leave(self)

    async def catch_up(self) -> None:
        """Read the next page of history, and open the gate when it reaches the events that the gate holds."""
        upto = self.source.position()
        if self.gate.begin_round(upto) and upto is not None:
            await self._read_page(upto)

    async def _begin(self, upto: Position | None) -> None:
        if self.options.until is not None and await self._has_finished(upto):
            self.recovery = Recovery("resumed")
            self.gate.finish()
            return
        if upto is None or not self.last_event_id:
            await self._begin_fresh(upto)
            return
        self.gate.begin_after(self.last_event_id)
        self.recovery = Recovery("resumed")
        reason = await self._read_page(upto)
        if reason is not None:
            self.recovery = self.recovery._replace(outcome="gap", reason=reason)

    async def _has_finished(self, upto: Position | None) -> bool:
        """Return True if the event that the stream goes up to was the reader's last one.

        A connection may break between this event and the end of the stream.
        """
        if self.last_event_id == END:
            return True
        last = Position.parse(self.last_event_id or "")
        if last is None or upto is None or last.epoch != upto.epoch or not 0 < last.sequence <= upto.sequence:
            return False
        page = await self.source.history(self.channels, last._replace(sequence=last.sequence - 1), last, 1)
        return any(is_last(seen_frame(entry, self.channels, self.options), self.options) for entry in page.entries)

    async def _begin_fresh(self, upto: Position | None) -> None:
        gate, options = self.gate, self.options
        gate.begin_fresh(options.initial)
        self._notify()
        if any(is_last(event.encode(), options) for event in options.initial):
            return
        if options.snapshot is not None:
            gate.give(await take_snapshot(options, self, upto))
        elif upto is not None and options.rewind:
            await self._rewind(upto)
            return
        elif upto is not None and options.position_frames:
            # After the initial events: a reader that comes back with this id is not sent them again.
            gate.give((Entry(None, upto),))
        gate.arrive(upto)

    async def _rewind(self, upto: Position) -> None:
        """Begin with the newest events that are kept.

        No position is written before them: a reader that is cut off before the first of them begins afresh.
        """
        count = self.options.rewind
        start = None if math.isinf(count) else await self.source.rewind(self.channels, int(count), upto)
        self.gate.begin_with_newest(start or upto._replace(sequence=0))
        await self._read_page(upto)
        if self.gate.state is OPEN and not self.recovery.replayed and self.options.position_frames:
            self.gate.give((Entry(None, upto),))

    async def _history(self, upto: Position) -> History:
        return await self.source.history(self.channels, self.gate.position, upto, PAGE)

    async def _read_page(self, upto: Position) -> str | None:
        """Read one page, or take a snapshot if events are missing before it; return the reason if a gap is given."""
        gate, options = self.gate, self.options
        page = await self._history(upto)
        gate.notice_losses(page)
        if gate.lost is not None and options.snapshot is not None:
            snapshot = await take_snapshot(options, self, furthest(gate.position, upto))
            return gate.give_snapshot(snapshot, upto)
        reason = gate.give_page(page, upto)
        self.source.tally.replayed += len(page.entries)
        self.recovery = self.recovery._replace(replayed=self.recovery.replayed + len(page.entries))
        return reason
