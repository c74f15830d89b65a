"""Polls: what is new on a subscription, in one answer that ends.

A poll is served as a stream is, by a Connection, which watches the client, the send timeout and the server's shutdown.
Its feed reads the subscription frame by frame as a stream does, so that events, ids, gaps and transforms are the same.
Unlike a stream's, the feed ends when it is caught up and has an event, or when its wait is over. It gives one body,
and the head for it, because only the body tells the length, and only reading tells whether the answer is a 503.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .._hub.delivery import PING, Carrier
from .._hub.feed import SubscriptionFeed
from .._hub.options import Terms
from .._hub.subscription import Subscription
from .._log.event import POSITION_EVENT, to_json
from .._loop.timer import shared_timer
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from .._servers.shutdown import current_notice, farewell
from .._stream.connection import Connection
from .._stream.foreign import admit
from .._stream.last_event_id import last_event_id
from .._stream.limits import refused_body
from ..decoder import DecodedEvent, EventDecoder
from ..encoder import encode
from ..exceptions import BackendError, HubClosedError
from .problem import problem

RETRY_MS = 2000
MAX_EVENTS = 1000
MAX_BYTES = 1 << 20
CATCH_UP_SECONDS = 1.0
SEND_SECONDS = 30.0
CLEANUP_SECONDS = 5.0
END = b"\n\n"
WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class Poll(NamedTuple):
    """What a request asks for.

    Attributes:
        wait: Seconds to wait for the first event.
        as_stream: Whether the answer is to be an event stream that has ended, not JSON.
    """

    wait: float
    as_stream: bool


def check_max_wait(seconds: float) -> float:
    """Return the most seconds that a poll may wait, or raise ValueError for what is none."""
    if not 0 <= seconds < math.inf:
        msg = f"max_wait={seconds} must be a number of seconds; 0 forbids polls to wait"
        raise ValueError(msg)
    return seconds


def requested_poll(request: Request, max_wait: float) -> Poll | None:
    """Return what a request polls for, or None if it wants a stream.

    Raises:
        HTTPException: `?poll=` or `?wait=` is nothing that they can be.
    """
    accept = ",".join(request.headers.getlist("accept")).lower()
    as_stream = "text/event-stream" in accept
    asked = _first(request, "poll", "1" if "application/json" in accept and not as_stream else "0")
    if asked.lower() not in WORDS:
        raise HTTPException(400, f"poll={asked!r} is none of {', '.join(WORDS)}")
    if not WORDS[asked.lower()]:
        return None
    return Poll(min(_seconds(_first(request, "wait", "0")), max_wait), as_stream)


def _first(request: Request, name: str, default: str) -> str:
    return next(iter(request.query_params.getlist(name)), default)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise HTTPException(400, f"wait={text!r} must be a number of seconds that is not below 0")
    return seconds


class Answer:
    """Frames, as a browser would read them, up to a bound.

    Attributes:
        body: The frames.
        full: Whether there were more than it holds.
    """

    def __init__(self, retry: int) -> None:
        """Begin with the milliseconds until the next poll."""
        self.body = bytearray()
        self.full = False
        self._events: list[DecodedEvent] = []
        self._decoder = EventDecoder()
        self.say(encode(retry=retry)[:-1])

    def say(self, line: bytes) -> None:
        """Add one line of the library's own."""
        self.body += line
        self._decoder.feed(line)

    def add(self, frames: bytes) -> None:
        """Add frames; those that are too many are left to the next poll."""
        for text in frames.split(END)[:-1]:
            frame = text + END
            if not self.full:
                self.full = self._is_too_much(frame)
            if not self.full:
                self.body += frame
                self._events += (one for one in self._decoder.feed(frame) if one.event != POSITION_EVENT)

    def _is_too_much(self, frame: bytes) -> bool:
        # Not before there is an id from which the next poll goes on.
        begun = self._events and self._decoder.last_event_id
        return bool(begun) and (len(self._events) >= MAX_EVENTS or len(self.body) + len(frame) > MAX_BYTES)

    @property
    def has_events(self) -> bool:
        """Whether there is an event, which ends the waiting."""
        return bool(self._events)

    def json(self, last_event_id: str | None, *, more: bool) -> bytes:
        """Write the same as JSON; the id is the request's, for an answer that has none."""
        return to_json(
            {
                "events": [{"id": one.id or None, "event": one.event, "data": one.data} for one in self._events],
                "last_event_id": self._decoder.last_event_id or last_event_id or None,
                "retry": self._decoder.retry,
                "more": more,
            }
        ).encode()


class PollFeed:
    """Collects the frames of a subscription, and gives one answer when it has an event, or when the wait is over.

    Attributes:
        headers: Those of an answer that is not an error.
        head: Goes before the answer, and is complete when the answer is given.
        needs_run: Whether nothing was read yet.
        ended: `finished` when the answer is given.
    """

    immediate = False
    joined = True

    def __init__(
        self, subscription: Subscription, answer: Answer, *, wait: float, as_stream: bool, headers: Mapping[str, str]
    ) -> None:
        """Prepare; nothing is read yet. For the arguments see PollResponse."""
        media_type = "text/event-stream" if as_stream else "application/json"
        self.headers = {**headers, "content-type": media_type, "cache-control": "no-store"}
        self.head: Message = {"type": "http.response.start"}
        self.needs_run = True
        self.ended: str | None = None
        self._subscription = subscription
        self._inner = SubscriptionFeed(subscription)
        self._answer = answer
        self._wait = wait
        self._as_stream = as_stream
        self._given = headers
        self._reached = self._answered = False
        self._body = b""
        self._wakeup: Wakeup  # attached before it is run

    # What the connection calls: the methods of a Feed

    def attach(self, news: Signal, carrier: Carrier | None) -> None:  # noqa: ARG002 - the end of `run` is the news
        """Read on behalf of `run` alone."""
        self._wakeup = new_wakeup()
        self._inner.attach(self._wakeup, None)

    def take(self) -> bytes:
        """Return the answer, once."""
        body, self._body = self._body, b""
        return body

    take_plain = ping = take  # an answer has no pings

    async def run(self) -> None:
        """Read until there is an answer."""
        self.needs_run = False
        try:
            with shared_timer().move_on_after(max(self._wait, CATCH_UP_SECONDS)):
                await self._collect()
            self._give(self._concluded())
        except (BackendError, HubClosedError):
            self._give(self._unavailable())
        self.ended = "finished"
        # Before the answer is sent: a client that reads slowly keeps nothing, and one that asks again finds it gone.
        await self._inner.close()

    def stop(self) -> None:
        """Do nothing: `run` is cancelled."""

    def last_words(self, words: bytes) -> bytes:
        """Return the answer with these words in it if the stream ends before it was given, because the server stops."""
        if not self._answered:
            self._finish()
            self._answer.say(words)
            self._give(self.response(more=False))
        return self.take()

    async def close(self) -> None:
        """Leave the subscription, if `run` did not."""
        await self._inner.close()

    # Reading

    async def _collect(self) -> None:
        """Take what is there, and wait for an event where there is none."""
        feed = self._inner
        waits_until = anyio.current_time() + self._wait
        await feed.run()
        await feed.reach()
        self._reached = True
        while self._takes_more():
            if feed.needs_run:
                await feed.run()
            elif self._answer.has_events or anyio.current_time() >= waits_until:
                return
            else:
                with anyio.CancelScope(deadline=waits_until):
                    await self._wakeup

    def _takes_more(self) -> bool:
        """Take everything that is ready; tell whether there may be more."""
        answer, feed = self._answer, self._inner
        while not answer.full and (frames := feed.take()):
            answer.add(frames)
        return not answer.full and feed.ended is None

    def _finish(self) -> None:
        """Take what came last, and the position if it moved without an event."""
        if self._takes_more() and (frame := self._inner.ping()) != PING:
            self._answer.add(frame)

    # Answering

    def _concluded(self) -> Response:
        """Answer with what was read, unless that is nothing and there may be something."""
        self._finish()
        feed = self._inner
        behind = self._answer.full or feed.needs_run or feed.ended == "slow"
        complete = self._reached and not behind
        if feed.ended:
            self._answer.say(farewell(current_notice()))
        elif not (self._answer.has_events or complete):
            return self._unavailable()
        return self.response(more=not complete)

    def response(self, *, more: bool) -> Response:
        """Write the answer.

        Args:
            more: Whether the client should ask again at once.
        """
        answer = self._answer
        body = bytes(answer.body) if self._as_stream else answer.json(self._subscription.last_event_id, more=more)
        return Response(body, headers=self.headers)

    def _unavailable(self) -> Response:
        detail = "the backend is out of reach: ask again with the same Last-Event-ID"
        return problem(503, detail, {**self._given, "retry-after": "1"})

    def _give(self, response: Response) -> None:
        self._answered = True
        self.head.update(status=response.status_code, headers=response.raw_headers)
        self._body = bytes(response.body)


class PollResponse:
    """Answers once: with what is new, or with the first event that comes while it waits."""

    def __init__(
        self,
        subscription: Subscription,
        *,
        wait: float = 0.0,
        as_stream: bool = False,
        retry: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is read before the response is called.

        Args:
            subscription: With `position_frames`, because a poll that finds no event leads nowhere without them.
            wait: Seconds to wait for the first event; 0 answers with what is there.
            as_stream: Whether the answer is an event stream that has ended, not JSON.
            retry: Milliseconds until the client asks again; None is two seconds.
            headers: Sent as well.
        """
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self._subscription = subscription
        self._answer = Answer(RETRY_MS if retry is None else retry)
        self._feed = PollFeed(subscription, self._answer, wait=wait, as_stream=as_stream, headers=given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._subscription.last_event_id is None:
            self._subscription.last_event_id = last_event_id(scope)
        if scope["method"] == "HEAD":
            head = Response(headers=self._feed.headers)
            del head.headers["content-length"]  # which is known to those who read
            await head(scope, receive, send)
        elif admit(scope):
            feed = self._feed
            await Connection(feed, _terms(), scope, receive, send, head=feed.head, final_id=False).run(None)
        else:
            self._answer.say(refused_body())
            await self._feed.response(more=False)(scope, receive, send)


def _terms() -> Terms:
    """Return the terms of a stream without a greeting, pings and a lifetime, whose head waits for the answer."""
    never = math.inf
    return Terms(
        greeting=b"",
        ping_interval=never,
        start_timeout=never,
        send_timeout=SEND_SECONDS,
        max_lifetime=never,
        cleanup_timeout=CLEANUP_SECONDS,
        on_error=None,
    )
