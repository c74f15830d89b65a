"""Polls: the new events of a subscription, in one answer that ends.

A Connection serves a poll as it serves a stream: it watches the client, the send timeout and the server's shutdown.
The feed of a poll reads the subscription frame by frame, so that events, ids, gaps and transforms are those of a
stream. It first asks the backend to deliver everything that was published before the poll, because this process may be
behind another. It ends when it is caught up and has an event, or when its wait is over.

The feed gives one body. It also completes the head, because the length is known with the body, and only reading shows
whether the answer is a 503.
"""

import math
from collections.abc import Mapping

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from .._hub.delivery import PING, Carrier
from .._hub.feed import SubscriptionFeed
from .._hub.gate import FINISHED
from .._hub.subscription import Subscription
from .._log.last_event_id import last_event_id
from .._loop.timer import shared_timer
from .._loop.wakeup import Signal, Wakeup, new_wakeup
from .._servers.shutdown import current_notice, farewell
from .._stream.connection import Connection
from .._stream.ending import FINAL, has_seen_the_end
from .._stream.guarded import admit
from .._stream.limits import refused_body
from .._stream.terms import Terms
from ..exceptions import BackendError, HubClosedError
from .answer import Answer
from .problem import problem

RETRY_MS = 2000
CATCH_UP_SECONDS = 1.0
SEND_SECONDS = 30.0
CLEANUP_SECONDS = 5.0


class PollFeed:
    """The feed of a poll: it gives one answer, when it has an event or when the wait is over.

    Attributes:
        headers: The headers of an answer that is not an error.
        head: The start of the response; complete when the answer is given.
        needs_run: True until reading begins.
        ended: `finished` when the answer is given.
    """

    immediate = False
    joined = True
    kind = "poll"

    def __init__(
        self, subscription: Subscription, answer: Answer, *, wait: float, as_stream: bool, headers: Mapping[str, str]
    ) -> None:
        """Prepare; nothing is read yet. See PollResponse for the arguments."""
        media_type = "text/event-stream" if as_stream else "application/json"
        self.headers = {**headers, "content-type": media_type, "cache-control": "no-store"}
        self.head: Message = {"type": "http.response.start"}
        self.needs_run = True
        self.ended: str | None = None
        self._subscription = subscription
        self.channels = subscription.channels
        self._inner = SubscriptionFeed(subscription)
        self._answer = answer
        self._wait = wait
        self._as_stream = as_stream
        self._given = headers
        self._reached = self._answered = False
        self._body = b""
        self._wakeup: Wakeup  # attached before it is run

    # What the connection calls: the methods of a Feed

    def attach(self, news: Signal, carrier: Carrier | None) -> None:  # noqa: ARG002 - the connection hears of the end of `run`
        """Read on behalf of `run` alone."""
        self._wakeup = new_wakeup()
        self._inner.attach(self._wakeup, None)

    def take(self) -> bytes:
        """Return the answer, once."""
        body, self._body = self._body, b""
        return body

    take_plain = ping = take  # there are no pings before or after the answer

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
        # Leave before the answer is sent, so that a client that reads slowly holds no subscription.
        await self._inner.close()

    def stop(self) -> None:
        """Do nothing: `run` is cancelled."""

    def last_words(self, words: bytes) -> bytes:
        """Return the answer. If the connection ends before there is one, it has the events so far and these words."""
        if not self._answered:
            self._finish()
            self._answer.say(words)
            self._give(self.response(more=False))
        return self.take()

    async def close(self) -> None:
        """Leave the subscription, unless `run` left it."""
        await self._inner.close()

    # Reading

    async def _collect(self) -> None:
        """Take the events that are there, and wait for one if there are none."""
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
        """Take everything that is ready; return True if there may be more."""
        answer, feed = self._answer, self._inner
        while not answer.full and (frames := feed.take()):
            answer.add(frames)
        return not answer.full and feed.ended is None

    def _finish(self) -> None:
        """Take the last events, and the position if it moved without an event."""
        if self._takes_more() and (frame := self._inner.ping()) != PING:
            self._answer.add(frame)

    # Answering

    def _concluded(self) -> Response:
        """Answer with the events that were read, or with a 503 if there are none because reading was not complete."""
        self._finish()
        feed = self._inner
        finished = feed.ended == FINISHED
        if finished:
            self._answer.add(FINAL)
        behind = self._answer.full or feed.needs_run or feed.ended == "slow"
        complete = (self._reached or finished) and not behind
        if feed.ended and not finished:
            self._answer.say(farewell(current_notice()))
        elif not (self._answer.has_events or complete):
            return self._unavailable()
        return self.response(more=not complete)

    def response(self, *, more: bool) -> Response:
        """Return the answer.

        Args:
            more: Whether the client should ask again at once.
        """
        answer = self._answer
        body = answer.stream(more=more) if self._as_stream else answer.json(self._subscription.last_event_id, more=more)
        return Response(body, headers=self.headers)

    def _unavailable(self) -> Response:
        detail = "the backend is out of reach: ask again with the same Last-Event-ID"
        return problem(503, detail, {**self._given, "retry-after": "1"})

    def _give(self, response: Response) -> None:
        self._answered = True
        self.head.update(status=response.status_code, headers=response.raw_headers)
        self._body = bytes(response.body)


class PollResponse:
    """Answers once: with the new events, or with the first event that is published while it waits."""

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
            subscription: Must have `position_frames`, because an answer without events has no id without them.
            wait: Seconds to wait for the first event; 0 answers at once.
            as_stream: Whether the answer is an event stream that has ended, instead of JSON.
            retry: Milliseconds until the client asks again; None is two seconds.
            headers: More headers of the answer.
        """
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self._subscription = subscription
        self._given = given
        self._answer = Answer(RETRY_MS if retry is None else retry)
        self._feed = PollFeed(subscription, self._answer, wait=wait, as_stream=as_stream, headers=given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._subscription.options.until is not None and has_seen_the_end(scope):
            end = Response(status_code=204, headers={**self._given, "cache-control": "no-store"})
            await end(scope, receive, send)
            return
        if self._subscription.last_event_id is None:
            self._subscription.last_event_id = last_event_id(scope)
        if scope["method"] == "HEAD":
            head = Response(headers=self._feed.headers)
            del head.headers["content-length"]  # nothing was read, so the length is unknown
            await head(scope, receive, send)
        elif admit(scope, "poll"):
            feed = self._feed
            await Connection(feed, _terms(), scope, receive, send, head=feed.head, final_id=False).run(None)
        else:
            self._answer.say(refused_body())
            await self._feed.response(more=False)(scope, receive, send)


def _terms() -> Terms:
    """Return the terms of a stream without greeting, pings and lifetime, whose head waits for the answer."""
    never = math.inf
    return Terms(
        greeting=b"",
        ping_interval=never,
        start_timeout=never,
        send_timeout=SEND_SECONDS,
        max_lifetime=never,
        cleanup_timeout=CLEANUP_SECONDS,
        on_error=None,
        always_complete=True,
    )
