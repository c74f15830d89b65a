"""The messages of the pub/sub connection, in order, to the sinks of this process.

The position of a log is known in three ways: by an event, by a mark (the epoch and last sequence, read on the pub/sub
connection itself, so that its answer comes after every event up to it), and by catching up. Invariants:

- The sequence of a hub only grows, and events arrive in the order in which they were published: there is one server and
  one connection.
- `position`: every event up to it, on every subscribed channel, was delivered to the sinks or reported as lost. So
  every reader of this process can resume from it.
- `Channel.last`: every event up to it, on this channel, was delivered or reported as lost. An event that arrives again
  is dropped. An event whose previous one is after `last` shows a hole, and the channel's readers get a gap.
- A channel that is not subscribed yet drops every event: its readers begin at its first mark.
- While the process catches up, events are held up to a bound. Beyond the bound the process catches up once more.
"""

import logging
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

from ..._log.event import Entry
from ..._log.logged import about
from ..._log.position import Position, new_position
from ..base import Sink
from ._keys import Keys
from ._message import PLAIN_EPOCH, entry

logger = logging.getLogger("sse_asgi.backends.redis")

HELD = 10_000
DAY = 86_400_000_000  # microseconds
MESSAGES = (b"message", b"smessage")
UNSUBSCRIBED = (b"unsubscribe", b"sunsubscribe")
EPOCH = re.compile(rb"[0-9a-f]{8}")
NO_EPOCH = " "  # before the first mark: no message has it, because the fields of a message end at spaces

ANOTHER_LIFE = "its log began another life"
FOREIGN = "not of this library, or broken; it and its like are ignored"
MIXED = (
    "of a process that opens this hub with history_size=0 while another does not, and neither gets the other's "
    "events: give all of them the same history_size"
)


class Channel:
    """A channel that this process reads."""

    __slots__ = ("digits", "earlier", "last", "names", "users")

    def __init__(self, name: str) -> None:
        """Begin without users, and not subscribed."""
        self.names = (name,)
        self.users = 0
        self.last = math.inf
        self.earlier: tuple[float, ...] = ()  # `last` before each of its last events, the newest first
        self.digits = b""  # the digits of the last sequence

    @property
    def subscribed(self) -> bool:
        """True if its events arrive."""
        return self.last < math.inf


class Life:
    """One life of the log, by its epoch.

    Attributes:
        epoch: The epoch as text.
        code: The epoch as messages write it.
        id_start: The `id:` line of its events, up to the sequence.
    """

    __slots__ = ("code", "epoch", "id_start")

    def __init__(self, epoch: str) -> None:
        """Prepare the forms of this epoch."""
        self.epoch = epoch
        self.code = epoch.encode()
        self.id_start = b"id: %b-" % self.code


class HeldMessages:
    """The messages that arrive while the process catches up, up to a bound.

    Attributes:
        messages: The messages with their channels, in order.
        overflowed: True if there were more messages than can be held.
    """

    __slots__ = ("messages", "overflowed")

    def __init__(self) -> None:
        """Hold no message yet."""
        self.messages: list[tuple[Channel, bytes]] = []
        self.overflowed = False

    def add(self, channel: Channel, message: bytes) -> None:
        """Hold a message, unless there are too many."""
        if len(self.messages) < HELD:
            self.messages.append((channel, message))
        else:
            self.overflowed = True


class Inbox:
    """The channels of one process, and how far it has read.

    Attributes:
        channels: The channels by their topics.
        sinks: The sinks of the open hubs.
        position: See above; None before the first mark, and without history.
        keeps: True if the hub keeps history.
        clock: The server's clock at our monotonic time 0, in seconds.
        fail: Ends the current session.
        probe: Lets the current session check that the log is still the same.
    """

    def __init__(self, keys: Keys, *, keeps: bool) -> None:
        """Begin without channels and sinks.

        Args:
            keys: The names of the hub.
            keeps: True if the hub keeps history.
        """
        self._keys = keys
        self.channels: dict[bytes, Channel] = {}
        self.sinks: list[Sink] = []
        self.position: Position | None = None
        self._sequence = -1
        self.clock = 0.0
        self._bound = 0
        self.keeps = keeps
        self._life = Life(NO_EPOCH)
        self._held: HeldMessages | None = None
        self._newest: Entry | None = None  # of those that arrived live
        self._unsubscribing: Counter[bytes] = Counter()
        self._ignored: Counter[str] = Counter()  # by the reason
        self.fail: Callable[[str], None] = lambda _: None
        self.probe: Callable[[], None] = lambda: None

    # Channels

    def add_user(self, topic: bytes, name: str) -> Channel:
        """Add a user of a channel."""
        channel = self.channels.get(topic)
        if channel is None:
            channel = self.channels[topic] = Channel(name)
        channel.users += 1
        return channel

    def remove_user(self, topic: bytes) -> bool:
        """Remove a user of a channel. Return True if it was the last one."""
        channel = self.channels.get(topic)
        if channel is None:
            return False
        channel.users -= 1
        if not channel.users:
            del self.channels[topic]
        return not channel.users

    def heard(self, topic: bytes, upto: int) -> int:
        """Return a sequence after which a channel has no event up to a sequence that this process has reached.

        Returns:
            The sequence of the channel's last event up to there, or of a later mark; `upto` if neither is known.
        """
        channel, newest = self.channels.get(topic), self._newest
        if channel is None:
            return upto
        known = [channel.last, *channel.earlier]
        if newest is not None and newest.position is not None and channel.names[0] in newest.channels:
            sequence = newest.position.sequence
            known += [sequence] * (sequence > channel.last)  # its message on another topic came first
        return int(max((one for one in known if one <= upto), default=upto))

    def expect_unsubscribed(self, topics: Collection[bytes]) -> None:
        """Expect one confirmation for each of these topics, which were unsubscribed from."""
        self._unsubscribing.update(topics)

    def reset(self) -> None:
        """Forget the state of the connection: the next one is new."""
        self._held = None
        self._unsubscribing.clear()
        for channel in self.channels.values():
            channel.last, channel.earlier = math.inf, ()

    # Messages

    def receive(self, push: list[Any]) -> None:
        """Receive one push."""
        if push[0] in MESSAGES:
            channel = self.channels.get(push[1])
            if channel is None:
                return
            if self._held is None:
                self._take(channel, push[2])
            else:
                self._held.add(channel, push[2])
        elif push[0] in UNSUBSCRIBED:
            self._unsubscribed(push[1])

    def _unsubscribed(self, topic: bytes) -> None:
        if self._unsubscribing[topic] > 1:
            self._unsubscribing[topic] -= 1
        elif self._unsubscribing.pop(topic, 0) == 0 and topic in self.channels:  # this process did not unsubscribe
            self.fail("the cluster moved the hub's slot")

    def _take(self, channel: Channel, message: bytes) -> None:
        """Take one message. This is the hot path: it runs for each message."""
        try:
            epoch, digits, previous, data = message.split(b" ", 3)
            life = self._life
            if epoch != life.code:
                self._take_foreign(channel, epoch, digits, data)
                return
            sequence = int(digits)
            if not digits.isdigit() or (sequence > self._bound and self.is_beyond(sequence)):
                raise ValueError  # noqa: TRY301 - handled like any other foreign message
            if sequence <= channel.last:
                return
            position = new_position(Position, (life.epoch, sequence))
            one = entry(channel.names, position, life.id_start + digits, data)
            hole = previous != channel.digits and int(previous) > channel.last
        except ValueError:
            self.ignore(f"a message on the channel {channel.names[0]!r}")
            return
        if hole:
            self.lose("lost", channel.names)
            channel.last, channel.earlier = math.inf, ()
        channel.earlier = (channel.last, *channel.earlier[:3])
        channel.last, channel.digits = sequence, digits
        if sequence > self._sequence:
            self.position, self._sequence = position, sequence
            self._newest = one
            for sink in self.sinks:
                sink.deliver(one)

    def is_beyond(self, sequence: int) -> bool:
        """Return True if a sequence is more than a day ahead of the server's clock and of the last sequence."""
        self._bound = max(round((time.monotonic() + self.clock) * 1_000_000), self._sequence) + DAY
        return sequence > self._bound

    def _take_foreign(self, channel: Channel, epoch: bytes, digits: bytes, data: bytes) -> None:
        """Take a message of another epoch: one without history, or one of another life of the log."""
        if not channel.subscribed:
            return
        other = EPOCH.fullmatch(epoch) and digits.isdigit()
        if not other and epoch != PLAIN_EPOCH:
            raise ValueError
        if bool(other) is not self.keeps:
            self.ignore(f"an event on the channel {channel.names[0]!r}", MIXED)
        elif other:
            self.probe()
        else:
            self._pass_on(channel, entry(channel.names, None, b"", data))

    def _pass_on(self, channel: Channel, one: Entry) -> None:
        mine = (self.channels.get(self._keys.topic(name)) for name in one.channels)
        # Several topics may bring this event here, all before the next mark. The first subscribed one delivers it.
        if next((other for other in mine if other is not None and other.subscribed), None) is channel:
            for sink in self.sinks:
                sink.deliver(one)

    @property
    def ignored(self) -> int:
        """The number of messages and entries that were not of this library."""
        return self._ignored.total()

    def ignore(self, what: str, why: str = FOREIGN) -> None:
        """Count a message or an entry that is not of this library, and log the first one."""
        self._ignored[why] += 1
        if self._ignored[why] == 1:
            logger.warning("Redis: %s is %s", what, why, extra=about("redis_message_ignored"))

    # Marks

    def mark_subscribed(self, channels: Collection[Channel], mark: Position | None, *, hold: bool) -> None:
        """Deliver every event after the mark on these channels from now on.

        Args:
            channels: All channels, or new ones.
            mark: The position where they begin.
            hold: True to hold events until `release_held`, because events before the mark must be read first.
        """
        for channel in channels:
            channel.last, channel.earlier = 0 if mark is None else mark.sequence, ()
        if hold:
            self._held = HeldMessages()
        else:
            self.advance(mark)

    def advance(self, mark: Position | None) -> None:
        """Move the position to a mark."""
        if mark is None or mark.sequence <= self._sequence:
            return
        self.position, self._sequence = mark, mark.sequence
        for sink in self.sinks:
            sink.advance(mark)

    def begin(self, mark: Position) -> None:
        """Begin at a mark in another life of the log. Readers get a gap, unless this is the first life."""
        known = self.position
        self.position, self._sequence = mark, mark.sequence
        self._life = Life(mark.epoch)
        for sink in self.sinks:
            sink.advance(mark)
        if known is not None:
            self.lose(None, None)

    def release_held(self) -> bool:
        """Deliver the held events. Return False, and deliver nothing, if there were more events than could be held."""
        held = self._held
        if held is None:  # the session ended meanwhile
            return True
        if held.overflowed:
            return False
        self._held = None
        for channel, message in held.messages:
            self._take(channel, message)
        return True

    # Sinks

    def deliver(self, one: Entry, position: Position) -> None:
        """Deliver the next event."""
        self.position, self._sequence = position, position.sequence
        for sink in self.sinks:
            sink.deliver(one)

    def lose(self, reason: str | None, channels: tuple[str, ...] | None) -> None:
        """Report a loss on these channels, or on all channels if None."""
        for sink in self.sinks:
            sink.gap(reason, channels)
