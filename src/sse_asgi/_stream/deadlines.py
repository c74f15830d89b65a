"""Deadlines: the pings, the stalled sends and the lifetime of one connection."""

import math
from collections.abc import Callable

from .._loop.timer import Alarm, Batch, shared_timer, spread
from .terms import Terms
from .watching import Endable
from .writer import Writer


class Deadlines:
    """Acts when a silence is long enough for a ping, when a send takes too long, and when the lifetime is over.

    The timer is set for the earliest time at which something can be due. Each send moves that time, but not the timer:
    the timer rings, finds nothing due, and is set again.

    Attributes:
        timer: The event loop's.
    """

    __slots__ = ("_batch", "_connection", "_drained", "_ends", "_looked", "_terms", "_writer", "timer")

    def __init__(self, connection: Endable, writer: Writer, terms: Terms) -> None:
        """Begin with the deadline of the first bytes."""
        self._connection, self._writer, self._terms = connection, writer, terms
        self.timer = shared_timer()
        self._ends = min(math.inf, writer.last + spread(terms.max_lifetime))  # one infinity for all connections
        self._looked = math.inf
        self._drained: Alarm | None = None
        self._batch: Batch
        self._set(writer.last + terms.start_timeout, writer.last)

    def ring(self, now: float) -> None:
        """Do everything that is due now, and set the timer for the next deadline."""
        if now >= self._ends:
            self._connection.end("lifetime")
            self._ends = math.inf
        writer, terms = self._writer, self._terms
        sending, last = writer.sending, writer.last
        patience = terms.send_timeout if sending else terms.ping_interval if writer.started else terms.start_timeout
        over = last + patience
        if now < over:
            self._set(over, now)
        elif (sending or not writer.started) and self._looked != last:
            # After the event loop was blocked, the client may have read, or the content may be there, unseen so far.
            self._looked = last
            self._batch = self.timer.schedule_again(self, patience, now)
        elif sending:
            self._connection.cut_off()
        else:
            writer.ping_due = True
            writer.send_waiting()
            self._set(math.inf, now)

    def _set(self, silence_ends: float, now: float) -> None:
        """Set the timer for the earliest deadline; sends from now on only move it to a later time."""
        writer, terms = self._writer, self._terms
        stalled = (writer.last if writer.sending else now) + terms.send_timeout
        due = min(self._ends, silence_ends, stalled, now + terms.ping_interval)
        self._batch = self.timer.schedule(self, due, now)

    def stop(self) -> None:
        """Cancel the timer."""
        self._batch.pop(self, None)
        if self._drained is not None:
            self._drained.cancel()

    def drain(self, end: Callable[[], None]) -> None:
        """Let the stream go on for its `drain_timeout`, then call `end`."""
        self._drained = self.timer.after(self._terms.drain_timeout, end)
