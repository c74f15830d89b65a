"""SubscriptionFeed: the frames of a subscription, as the connection of a response pulls them."""

from .._log.event import Entry
from .._loop.wakeup import Signal
from .delivery import BODY_LIMIT, PING, Carrier, Delivery
from .gate import OPEN
from .subscription import ENTERED, NEW, Subscription
from .view import is_last, seen_frame


class SubscriptionFeed:
    """Enters a subscription, and gives its frames to one connection: a Feed, and the receiver of live events."""

    immediate = True
    kind = "subscription"

    __slots__ = ("_carrier", "_gate", "_news", "_subscription")

    def __init__(self, subscription: Subscription) -> None:
        """Prepare to read; nothing happens before `run`."""
        self._subscription = subscription
        self._gate = subscription.gate
        self._carrier: Carrier | None = None
        self._news: Signal  # attached before the hub knows of this receiver

    def attach(self, news: Signal, carrier: Carrier | None) -> None:
        """Read on behalf of a task.

        Args:
            news: Set when there is something to do.
            carrier: Sends events that are the same for all readers in the turn of the publisher, where that works.

        Raises:
            RuntimeError: The subscription was entered before.
        """
        self._subscription.attach(news)
        self._news = news
        self._carrier = carrier if self._subscription.options.same_for_all else None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels that it reads."""
        return self._subscription.channels

    # What the hub calls, in the publisher's own turn

    def offer(self, delivery: Delivery) -> None:
        """Send one live event, or hold it, or do what the overflow rule says."""
        # This runs for each event and reader. It asks the gate for its fields, because calls would cost more than that.
        gate, carrier = self._gate, self._carrier
        if gate.ended is not None:
            delivery.held += 1
            return
        if (
            delivery.at_once
            and carrier is not None
            and gate.state is OPEN
            and not (gate.ready or gate.buffer.entries)
            and carrier.send(delivery)
        ):
            gate.position = gate.written = delivery.position
            return
        delivery.held += 1
        entry = delivery.entry
        has_room = gate.buffer.append(entry)
        if carrier is None or not entry.frame:
            if not has_room:
                gate.overflow(entry)
            self._news.set()
        else:
            if not has_room:
                carrier.send_waiting()
                gate.hold(entry)
            carrier.send_later(delivery)

    # What the connection calls

    @property
    def joined(self) -> bool:
        """Whether every event that is published from now on reaches the reader."""
        return self._subscription.joined

    @property
    def ended(self) -> str | None:
        """Why the subscription was ended, or None."""
        return self._gate.ended

    @property
    def needs_run(self) -> bool:
        """Whether the subscription must be entered or caught up."""
        gate = self._gate
        return gate.state is not OPEN and (gate.behind or self._subscription.stage is NEW)

    def take(self) -> bytes:
        """Take the frames that wait, joined: at most 64 KiB, or a single larger one."""
        gate = self._gate
        if not (gate.ready or gate.buffer.entries):
            return b""
        return gate.take_joined() or self._take_one_by_one()

    def take_plain(self) -> bytes:
        """Take the frames that wait, joined, if they are the same for all readers; else no bytes."""
        gate = self._gate
        return gate.take_joined() if gate.buffer.entries and not gate.ready else b""

    def _take_one_by_one(self) -> bytes:
        gate, channels, options = self._gate, self._subscription.channels, self._subscription.options
        frames: list[bytes] = []
        size = 0
        while (entry := gate.take()) is not None:
            frame = seen_frame(entry, channels, options)
            size += len(frame)
            if frame:
                gate.count(entry, len(frame))
            if frames and size > BODY_LIMIT:
                gate.put_back(entry.seen_as(frame))
                break
            if frame:
                gate.written = entry.position or gate.written
                frames.append(frame)
                if is_last(frame, options):
                    gate.finish()
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def ping(self) -> bytes:
        """Return `sse.position` if the position moved since the last id and no event waits, else a comment."""
        subscription, gate = self._subscription, self._gate
        position = subscription.source.position()
        if position is None or position == gate.written or not subscription.options.position_frames:
            return PING
        return Entry(None, position).frame if gate.show(position) else PING

    async def run(self) -> None:
        """Enter the subscription, or read one page of history."""
        subscription = self._subscription
        await (subscription.enter(self) if subscription.stage is NEW else subscription.catch_up())

    async def reach(self) -> None:
        """Be offered everything that was published so far, in whatever process."""
        await self._subscription.source.reach()

    def stop(self) -> None:
        """Do nothing: the run that reads history is cancelled, and no task reads the buffer any more."""

    def last_words(self, words: bytes) -> bytes:
        """Return the words as they are."""
        return words

    async def close(self) -> None:
        """Leave the channels, if the subscription was entered."""
        if self._subscription.stage is ENTERED:
            await self._subscription.leave()
