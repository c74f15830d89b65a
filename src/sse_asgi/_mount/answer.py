"""The answer to a poll: the frames of a subscription, up to a bound, as an event stream or as JSON."""

from .._log.event import POSITION_EVENT, to_json
from ..decoder import DecodedEvent, EventDecoder
from ..encoder import encode

MAX_EVENTS = 1000
MAX_BYTES = 1 << 20
END = b"\n\n"


class Answer:
    """Frames, and the events that a browser would read from them.

    Attributes:
        body: The frames.
        full: True if there were more frames than the answer holds.
    """

    def __init__(self, retry: int) -> None:
        """Begin with the milliseconds until the next poll."""
        self.body = bytearray()
        self.full = False
        self._events: list[DecodedEvent] = []
        self._decoder = EventDecoder()
        self.say(encode(retry=retry)[:-1])

    def say(self, line: bytes) -> None:
        """Add a line that is not a frame, such as `retry:`."""
        self.body += line
        self._decoder.feed(line)

    def add(self, frames: bytes) -> None:
        """Add frames up to the bound; the next poll gets the others."""
        for text in frames.split(END)[:-1]:
            frame = text + END
            if not self.full:
                self.full = self._is_too_much(frame)
            if not self.full:
                self.body += frame
                self._events += (one for one in self._decoder.feed(frame) if one.event != POSITION_EVENT)

    def _is_too_much(self, frame: bytes) -> bool:
        # An answer without an id cannot be divided: the next poll could not ask for the rest.
        begun = self._events and self._decoder.last_event_id
        return bool(begun) and (len(self._events) >= MAX_EVENTS or len(self.body) + len(frame) > MAX_BYTES)

    @property
    def has_events(self) -> bool:
        """True if there is an event; a poll that waits is answered then."""
        return bool(self._events)

    def stream(self, *, more: bool) -> bytes:
        """Write the answer as an event stream.

        Args:
            more: Whether the client should ask again at once. Then 0 replaces the milliseconds in the first line.
        """
        if not more:
            return bytes(self.body)
        return encode(retry=0)[:-1] + self.body.partition(b"\n")[2]

    def json(self, last_event_id: str | None, *, more: bool) -> bytes:
        """Write the answer as JSON.

        Args:
            last_event_id: The request's, for an answer without an id of its own.
            more: Whether the client should ask again at once.
        """
        return to_json(
            {
                "events": [{"id": one.id or None, "event": one.event, "data": one.data} for one in self._events],
                "last_event_id": self._decoder.last_event_id or last_event_id or None,
                "retry": self._decoder.retry,
                "more": more,
            }
        ).encode()
