"""Deadlines: what is due on one connection because time has passed."""

import math
import random
from typing import Protocol

from .._loop.timer import Batch, shared_timer
from .terms import Terms
from .writer import Writer


class Timed(Protocol):
    """A connection, for which something is due."""

    def end(self, reason: str) -> None:
        """Send what is there, then end the stream."""

    def cut_off(self) -> None:
        """Give up a client that does not read."""


class Deadlines:
    """Rings when a silence is long enough for a ping, when a send takes too long, and when the lifetime is over.

    The timer is set for the earliest time at which something can be due. Sending moves that time, but not the timer: it
    rings, finds nothing due, and is set again.

    Attributes:
        timer: The event loop's.
    """

    __slots__ = ("_batch", "_connection", "_ends", "_looked", "_terms", "_writer", "timer")

    def __init__(self, connection: Timed, writer: Writer, terms: Terms) -> None:
        """Begin with the time that the first bytes have."""
        self._connection, self._writer, self._terms = connection, writer, terms
        self.timer = shared_timer()
        lifetime = terms.max_lifetime * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret
        self._ends = min(math.inf, writer.last + lifetime)  # one infinity for all
        self._looked = math.inf
        self._batch: Batch
        self._set(writer.last + terms.start_timeout, writer.last)

    def ring(self, now: float) -> None:
        """Do what is due now, and set the timer for what can be due next."""
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
            # If the event loop was blocked, the client has read, or the content is there, and it was not seen yet.
            self._looked = last
            self._batch = self.timer.schedule_again(self, patience, now)
        elif sending:
            self._connection.cut_off()
        else:
            writer.ping_due = True
            writer.send_waiting()
            self._set(math.inf, now)

    def _set(self, silence_ends: float, now: float) -> None:
        """Ring when something can be due: what is sent from now on moves that, and is not waited for."""
        writer, terms = self._writer, self._terms
        stalled = (writer.last if writer.sending else now) + terms.send_timeout
        due = min(self._ends, silence_ends, stalled, now + terms.ping_interval)
        self._batch = self.timer.schedule(self, due, now)

    def stop(self) -> None:
        """Ring no more."""
        self._batch.pop(self, None)
