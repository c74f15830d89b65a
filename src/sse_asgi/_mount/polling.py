"""What is new on a subscription, in one answer that ends: for clients that poll.

A poll reads its subscription frame by frame as a stream does, so that events, ids, gaps and transforms are the same.
"""

import contextlib
import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .._hub.subscription import PING, Subscription
from .._log.event import POSITION_EVENT, to_json
from .._loop.runtime import Alarm, Timer, checkpoint, new_wakeup, shared_timer, spawn
from .._servers.shutdown import current_notice, farewell
from .._stream.guard import admit, cut_off, watch_again
from .._stream.last_event_id import last_event_id
from .._stream.limits import refusal
from ..decoder import DecodedEvent, EventDecoder
from ..encoder import encode
from ..exceptions import BackendError, HubClosedError
from .problem import problem

logger = logging.getLogger("sse_asgi")

RETRY_MS = 2000
MAX_EVENTS = 1000
MAX_BYTES = 1 << 20
CATCH_UP_SECONDS = 1.0
SEND_SECONDS = 30.0
SHUTDOWN_SECONDS = 0.5
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
        media_type = "text/event-stream" if as_stream else "application/json"
        self._given = {name.lower(): value for name, value in (headers or {}).items()}
        self._headers = {**self._given, "content-type": media_type, "cache-control": "no-store"}
        self._subscription = subscription
        self._wait = wait
        self._as_stream = as_stream
        self._answer = Answer(RETRY_MS if retry is None else retry)
        self._reached = self._gone = self._stopping = False
        self._timer: Timer  # asked for when it serves
        self._alarm = Alarm()
        self._reading = anyio.CancelScope()
        self._sending = anyio.CancelScope()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._subscription.last_event_id is None:
            self._subscription.last_event_id = last_event_id(scope)
        if scope["method"] == "HEAD":
            head = Response(headers=self._headers)
            del head.headers["content-length"]  # which is known to those who read
            await head(scope, receive, send)
        elif admit(scope):
            await self._serve(scope, receive, send)
        else:
            self._answer.say(refusal())
            await self._response(more=False)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._timer, notice = shared_timer(), current_notice()
        notice.listen(self._on_shutdown, scope)
        watcher = spawn(partial(self._watch_client, receive))
        try:
            response = await self._read()
            if not self._stopping:
                self._limit_sending(SEND_SECONDS)
            with self._sending, contextlib.suppress(OSError):  # what some servers raise when the client has gone
                if not self._gone:
                    await response(scope, receive, send)
            if self._sending.cancelled_caught:
                cut_off(scope, receive, self._timer)
        finally:
            watcher.cancel()
            self._alarm.cancel()
            notice.unlisten(self._on_shutdown)
            watch_again(scope)  # for what answers if this failed

    # What can happen meanwhile

    async def _watch_client(self, receive: Receive) -> None:
        """Own `receive()`, as a stream does."""
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except OSError:
            pass
        except Exception:
            logger.exception("receive() failed: the client of a poll is taken to have gone")
        self._gone = True
        self._reading.cancel()

    def _on_shutdown(self) -> None:
        self._stopping = True
        self._reading.cancel()
        self._limit_sending(SHUTDOWN_SECONDS)

    def _limit_sending(self, seconds: float) -> None:
        self._alarm.cancel()
        self._alarm = self._timer.limit(seconds, self._sending.cancel)

    # Reading

    async def _read(self) -> Response:
        limit = self._timer.limit(max(self._wait, CATCH_UP_SECONDS), self._reading.cancel)
        try:
            with self._reading:
                await self._collect(limit)
            self._finish()
        except (BackendError, HubClosedError):
            return self._unavailable()
        finally:
            limit.cancel()
            await self._subscription.close()
        if self._stopping or self._subscription.ended:
            self._answer.say(farewell(current_notice()))
        elif not (self._answer.has_events or self._complete):
            return self._unavailable()
        return self._response(more=not self._complete and not self._stopping)

    async def _collect(self, limit: Alarm) -> None:
        """Take what is there, and wait for an event where there is none; the limit is for what is there."""
        subscription = self._subscription
        begun = anyio.current_time()
        wakeup = new_wakeup()
        subscription.attach(wakeup, None)
        await checkpoint()  # a task that polls and polls would let nobody else run
        await subscription.run()
        await subscription.reach()
        self._reached = True
        while self._takes_more():
            if subscription.hungry:
                await subscription.run()
            elif self._answer.has_events or anyio.current_time() >= begun + self._wait:
                return
            else:
                limit.cancel()
                self._reading.deadline = begun + self._wait
                await wakeup

    def _takes_more(self) -> bool:
        """Take everything that is ready; tell whether there may be more."""
        answer, subscription = self._answer, self._subscription
        while not answer.full and (frames := subscription.take()):
            answer.add(frames)
        return not answer.full and subscription.ended is None

    def _finish(self) -> None:
        """Take what came last, and the position if it moved without an event."""
        if self._takes_more() and (frame := self._subscription.ping()) != PING:
            self._answer.add(frame)

    @property
    def _complete(self) -> bool:
        """Whether everything is in the answer that was in the log when it was asked for."""
        subscription = self._subscription
        return self._reached and not (self._answer.full or subscription.hungry or subscription.ended == "slow")

    # Answering

    def _response(self, *, more: bool) -> Response:
        answer = self._answer
        body = bytes(answer.body) if self._as_stream else answer.json(self._subscription.last_event_id, more=more)
        return Response(body, headers=self._headers)

    def _unavailable(self) -> Response:
        detail = "the backend is out of reach: ask again with the same Last-Event-ID"
        return problem(503, detail, {**self._given, "retry-after": "1"})
