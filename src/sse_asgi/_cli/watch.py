"""One connection that the doctor watches: its head, when its pieces arrived, what they held, and how it ended."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import anyio
import httpx

from .._log.names import END
from ..decoder import DecodedEvent, EventDecoder
from .request import FAILURES, StreamRequest, explain, pieces

COMPLETE = "complete"
_COMMENT = re.compile(rb"(?:^|(?<=[\r\n])):")


class Arrival(NamedTuple):
    """A piece of a body: when it arrived, and how many events and pings it completed."""

    time: float
    events: int
    pings: int


@dataclass
class Watch:
    """What was seen on one connection; times are those of `time.monotonic()`, in seconds.

    Attributes:
        request: What was asked for.
        encoding: The Accept-Encoding.
        last_event_id: The Last-Event-ID, or "".
        began: When the request was sent.
        looked: Until when the connection was watched.
        head: When the head arrived, or None.
        response: The head, or None.
        arrivals: The pieces of the body.
        events: Each event, and when it arrived.
        retry: Whether the stream sent a `retry:`.
        end: "" while the stream is open, COMPLETE, or why it was cut off.
    """

    request: StreamRequest
    encoding: str = "identity"
    last_event_id: str = ""
    began: float = 0.0
    looked: float = 0.0
    head: float | None = None
    response: httpx.Response | None = None
    arrivals: list[Arrival] = field(default_factory=list)
    events: list[tuple[DecodedEvent, float]] = field(default_factory=list)
    retry: bool = False
    end: str = ""
    _changed: anyio.Event = field(default_factory=anyio.Event, repr=False)

    async def run(self, seconds: float) -> None:
        """Watch the stream until it ends, at most for so many seconds."""
        try:
            async with self.request.client() as client:
                self.began = time.monotonic()
                with anyio.move_on_after(seconds):
                    await self._read(client)
                    self.end = COMPLETE
        except FAILURES as error:
            self.end = explain(error)
        self.looked = time.monotonic()
        self.notify()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait until a fact about this connection is true."""
        while not fact():
            await self._changed.wait()

    def notify(self) -> None:
        """Wake whoever waits for a fact."""
        self._changed.set()
        self._changed = anyio.Event()

    async def _read(self, client: httpx.AsyncClient) -> None:
        decoder = EventDecoder()
        async with self.request.open(
            client, encoding=self.encoding, last_event_id=self.last_event_id, silence=None
        ) as self.response:
            self.head = time.monotonic()
            self.notify()
            async for piece in pieces(self.response):
                events = decoder.feed(piece)
                now = time.monotonic()
                self.events += ((event, now) for event in events)
                self.retry = decoder.retry is not None
                if piece:
                    self.arrivals.append(Arrival(now, len(events), len(_COMMENT.findall(piece))))
                self.notify()

    @property
    def finished(self) -> bool:
        """Whether the stream said that it is over, or is an answer whose complete body is its end."""
        ended = any(event.event == END for event, _ in self.events)
        return ended or (self.end == COMPLETE and self.request.method != "GET")

    @property
    def longest_silence(self) -> float:
        """The longest time without a byte after the head, in seconds; the time before the end counts too."""
        times = [self.head or self.began, *(one.time for one in self.arrivals), self.looked]
        return max(later - earlier for earlier, later in pairwise(times))

    @property
    def last_silence(self) -> float:
        """The time from the last byte, or from the head, to the end, in seconds."""
        return self.looked - (self.arrivals[-1].time if self.arrivals else self.head or self.began)

    def summary(self) -> dict[str, Any]:
        """Return what was seen, as values for JSON."""
        response = self.response
        return {
            "url": self.request.url,
            "accept_encoding": self.encoding,
            "status": response and response.status_code,
            "http_version": response and response.http_version,
            "head_after": self.head and round(self.head - self.began, 3),
            "first_bytes_after": round(self.arrivals[0].time - self.began, 3) if self.arrivals else None,
            "events": len(self.events),
            "pings": sum(one.pings for one in self.arrivals),
            "watched": round(self.looked - self.began, 1),
            "longest_silence": round(self.longest_silence, 1),
            "end": self.end or "open",
        }
