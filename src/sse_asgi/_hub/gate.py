"""Gate: decides which events one reader gets next, and when it must read history. It does no I/O.

The gate is closed while the reader is behind the log. The buffer holds its live events meanwhile, and history is read
in rounds, a page each, until it reaches the events that the buffer holds; then the gate opens. A reader that falls
behind later closes its gate again, and is caught up by the reader's own task in the same way, so there is one recovery
path for resuming, for a slow reader and for a loss. The publisher never waits.

    CLOSED    The reader is behind. The buffer holds every live event since the last round began.
    MISSED    The reader is behind, and live events were let go since the last round began: one more is needed.
    OPEN      The reader is up to date. The buffer holds every later event.

    CLOSED -> OPEN          a round has read to its end, or there is no history to read
    any -> MISSED           lose(): the backend reports a loss; overflow(): the buffer is full, and history has the rest
    MISSED -> CLOSED        begin_round()

A gate that was ended stays in its state. It takes no live event any more, and gives the events that it has; one that
was finished gives nothing more.

The invariants, which hold at every await of the tasks around the gate:

- Everything up to `position` was taken by the reader, waits in `ready`, or was declared lost by an `sse.gap`.
- In OPEN, the buffer holds every later event of the reader's channels that this process has seen, up to the moment at
  which the reader was ended.
- In CLOSED, the buffer holds the events seen since the last round began. `begin_round` leaves MISSED in the same
  breath in which the round takes the position that it reads up to, so an event that is let go after that is later.
- No id is given ahead of an event that the reader has not been given. The position of a fresh stream comes after its
  initial events, and travels on the last event of the snapshot where there is one. The id of a gap is just before the
  event that follows it, and a gap before a snapshot has none, because a reader that is cut off there still needs the
  snapshot. A reader that was ended is offered no more events, so it is shown no position any more.
- Events that the reader can no longer get are announced by one `sse.gap` in their place.
"""

from collections.abc import Iterable
from enum import Enum

from .._log.event import Entry, History, ServerSentEvent
from .._log.names import RESERVED
from .._log.position import Position, furthest
from .buffer import Buffer
from .delivery import BODY_LIMIT
from .options import Options
from .stats import Tally


class State(Enum):
    """Whether the reader is up to date; see the head of this module."""

    CLOSED = 1
    MISSED = 2
    OPEN = 3


CLOSED, MISSED, OPEN = State
FINISHED = "finished"


class Gate:
    """The events of one reader between the log and the connection.

    Attributes:
        state: See the head of this module.
        ended: Why the reader was ended; None while it was not.
        position: Everything up to here is behind the reader; None before it has begun, and without history.
        written: The last id that was given; None before.
        ready: The entries that are given before those of the buffer; to be read, not changed.
        buffer: Live entries, later than `ready`.
        lost: Why events before the next one are missing, to be announced with it; None if none is missing.
    """

    __slots__ = (
        "_overflow_rule",
        "_same_for_all",
        "_tally",
        "_told",
        "buffer",
        "ended",
        "lost",
        "position",
        "ready",
        "state",
        "written",
    )

    def __init__(self, options: Options, tally: Tally) -> None:
        """Begin closed and empty.

        Args:
            options: The reader's.
            tally: Counts the gaps and drops of all readers.
        """
        self.state: State = CLOSED
        self.ended: str | None = None
        self.position: Position | None = None
        self.written: Position | None = None
        self.ready: list[Entry] | tuple[()] = ()  # no list of its own for an idle reader
        self.buffer: Buffer = Buffer(options.buffer_size, options.buffer_bytes)
        self.lost: str | None = None
        self._told: int | None = 0  # up to which sequence losses were announced; None takes the first page's as known
        self._overflow_rule = options.overflow
        self._same_for_all = options.same_for_all
        self._tally = tally

    # Inputs while the reader is served

    def hold(self, entry: Entry) -> None:
        """Hold a live entry, unless the reader was ended: a slow one, whose buffer is never empty, would never end."""
        if self.ended is None and not self.buffer.append(entry):
            self.overflow(entry)

    def overflow(self, entry: Entry) -> None:
        """Do what the overflow rule says about an entry for which the buffer has no room."""
        rule = self._overflow_rule
        is_open = self.state is OPEN
        self._tally.overflows += is_open
        if entry.position is None or (is_open and rule == "drop_oldest"):
            self.buffer.append_dropping_oldest(entry)
        elif not (is_open and rule == "latest" and self.buffer.append_keeping_latest(entry)):
            if is_open and rule == "close":
                self.ended = "slow"
            self._close()

    def lose(self, reason: str | None) -> None:
        """Let go of the live events, because some were lost: history makes up for them.

        Args:
            reason: Announced to the reader; None if nothing may have been lost.
        """
        self.lost = reason or self.lost
        self._close()

    def end(self, reason: str) -> None:
        """Take no live event any more."""
        self.ended = self.ended or reason

    def finish(self) -> None:
        """Give nothing more: the reader has the event that its stream goes up to."""
        self.ended, self.ready = FINISHED, ()
        self.buffer.clear()

    # Inputs at the beginning

    def begin_fresh(self, events: Iterable[ServerSentEvent]) -> None:
        """Begin with these events; losses before the beginning do not concern a fresh reader."""
        self.lost = None
        self.give(map(Entry, events))

    def begin_after(self, last_event_id: str) -> None:
        """Begin after an id; the next page is the first after it, or announces that the id cannot be read."""
        self.position = Position.parse(last_event_id)
        self.lost = None if self.position else "malformed"

    def begin_with_newest(self, start: Position) -> None:
        """Begin after a position in the past; a fresh reader does not miss the events that were dropped before it."""
        self.position = start
        self._told = None

    def give(self, entries: Iterable[Entry]) -> None:
        """Have the reader get these entries before those of the buffer."""
        self.ready = [*self.ready, *entries] or ()

    # Inputs from history, in rounds

    def begin_round(self, upto: Position | None) -> bool:
        """Begin to catch up; return True if history must be read from `position` to `upto`, False if there is none."""
        self.state = CLOSED
        if upto is None:
            self._announce(None)
            self._open()
        return upto is not None

    def notice_losses(self, page: History) -> None:
        """Take from a page of history what is missing before it."""
        self.lost = self.lost or page.announced(self._told)
        self._told = max(self._told or 0, page.lost)
        if page.foreign:
            self.position, self._told = None, page.lost

    def give_page(self, page: History, upto: Position) -> str | None:
        """Have the reader get a page, behind a gap if something is missing before it; return the gap's reason."""
        reason = self._announce(
            _position_before(page.entries[0]) if page.entries else page.next or furthest(self.position, upto)
        )
        self.give(page.entries)
        if page.next is None:
            self.arrive(upto)
        else:
            self.position = page.next
        return reason

    def give_snapshot(self, entries: Iterable[Entry], upto: Position) -> str | None:
        """Have the reader get a snapshot in place of all events up to here, behind a gap; return the gap's reason."""
        reason = self._announce(None)
        self.give(entries)
        self.arrive(upto)
        return reason

    def arrive(self, upto: Position | None) -> None:
        """Have everything up to here; open if the buffer holds everything later."""
        self.position = furthest(self.position, upto)
        if self.state is CLOSED:
            self._open()

    # Outputs

    @property
    def behind(self) -> bool:
        """Whether history must be read before there is anything to give."""
        return self.state is not OPEN and not self.ready and self.ended is None

    @property
    def waiting(self) -> tuple[int, int]:
        """How many events wait for the reader, and how many bytes."""
        buffer, ready = self.buffer, self.ready
        return len(ready) + len(buffer.entries), sum(len(entry.frame) for entry in ready) + buffer.size

    def take_joined(self) -> bytes:
        """Take the frames of `ready` and the buffer as one body, if they are the same for all and fit.

        A single frame always fits.

        Returns:
            The body; no bytes, and nothing is taken, if the entries must be taken one by one or there is none.
        """
        ready, buffer = self.ready, self.buffer
        live = buffer.entries if self.state is OPEN else ()
        if not (ready or live) or not self._same_for_all or (live and buffer.dropped):
            return b""
        entries = [*ready, *live] if ready else live
        if len(entries) == 1:
            body = entries[0].frame
        else:
            frames = [entry.frame for entry in entries]
            body = b"".join(frames) if all(frames) and sum(map(len, frames)) <= BODY_LIMIT else b""
        if not body:
            return b""
        size = len(body)
        for entry in ready:
            self.count(entry, len(entry.frame))
            self.written = entry.position or self.written
            size -= len(entry.frame)
        self.ready = ()
        if live:
            self._tally.delivered += len(live)
            self._tally.size += size
            self.position = self.written = live[-1].position
            buffer.entries, buffer.size = (), 0
        return body

    def take(self) -> Entry | None:
        """Take the next entry; None if there is none now."""
        ready = self.ready
        if ready:
            entry = ready.pop(0)
            if not ready:
                self.ready = ()
            return entry
        buffer = self.buffer
        if self.state is not OPEN or not buffer.entries:
            return None
        if buffer.dropped:
            return self._gap_before(buffer.entries[0])
        entry = buffer.pop()
        self.position = entry.position
        return entry

    def count(self, entry: Entry, size: int) -> None:
        """Count an entry of `take` as delivered with this number of bytes, if it was published by the application."""
        if entry.channels and not entry.channels[0].startswith(RESERVED):
            self._tally.delivered += 1
            self._tally.size += size

    def put_back(self, entry: Entry) -> None:
        """Give an entry, which was taken, once more."""
        self.ready = [entry, *self.ready]

    def show(self, position: Position) -> bool:
        """Have the reader shown a position; return False if an event before it may be still to come."""
        if self.state is not OPEN or self.ended is not None or self.ready or self.buffer.entries:
            return False
        self.position = self.written = position
        return True

    # Inside

    def _open(self) -> None:
        self.state = OPEN
        known = sum(not _is_after(entry, self.position) for entry in self.buffer.entries)
        if known:
            self.buffer.pop(known)

    def _close(self) -> None:
        self.state = MISSED
        self.buffer.clear()

    def _announce(self, position: Position | None) -> str | None:
        reason, self.lost = self.lost, None
        if reason is not None:
            self._tally.gaps[reason] += 1
            self.give((gap(reason, position),))
        return reason

    def _gap_before(self, entry: Entry) -> Entry:
        """Return the announcement of the dropped entries, at the position just before the entry that follows them."""
        self._tally.drops += self.buffer.dropped
        self._tally.gaps["overflow"] += 1
        self.buffer.dropped = 0
        return gap("overflow", _position_before(entry))


def gap(reason: str, position: Position | None) -> Entry:
    """Return the announcement of a loss, at the position after which a reader should resume."""
    return Entry(gap_event(reason), position)


def gap_event(reason: str) -> ServerSentEvent:
    """Return the event that announces a loss."""
    return ServerSentEvent({"reason": reason}, event="sse.gap")


def _position_before(entry: Entry) -> Position | None:
    """Return the position just before an entry, from which the entry is the next one; None where there is none."""
    position = entry.position
    return position and position._replace(sequence=position.sequence - 1)


def _is_after(entry: Entry, position: Position | None) -> bool:
    """Return True if an entry comes after everything up to a position."""
    if position is None or entry.position is None:
        return True
    return entry.position.epoch != position.epoch or entry.position.sequence > position.sequence
