"""Following one stream over its reconnects, by the rules that the page's client has (client/README.md).

The end is a 204, the event `sse.end`, a complete body of a request that is not a GET, or a status from 400 to 499 other
than 408, 425 and 429. After anything else the reader waits and comes back with its Last-Event-ID.
"""

import random
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import NamedTuple

import anyio
import httpx

from .._log.names import END
from ..decoder import DecodedEvent, EventDecoder
from .request import EVENT_STREAM, FAILURES, StreamRequest, explain, media_type, pieces

SILENCE = 90.0
RETRY_MS = 3000  # what Chromium waits without a `retry:`
LONGEST = 30.0
TEMPORARY = (408, 425, 429)
ADVICE = {
    401: "give --header 'Authorization: ...' or a ticket in the URL",
    403: "give --header with the right credentials, or ask for a channel that you may read",
    404: "check the path, and whether it ends in a slash",
    405: "give --data for a stream that is asked for by POST",
}


class StreamError(Exception):
    """A stream that cannot be followed any more; the message says why and what to do."""


class Reconnect(NamedTuple):
    """The reader has lost its stream: why, and how many seconds it waits before it asks again."""

    reason: str
    wait: float


class Follower:
    """Reads a stream's events, and comes back after each interruption.

    Attributes:
        last_event_id: The id of the last event with one.
    """

    def __init__(self, request: StreamRequest, *, last_event_id: str = "") -> None:
        """Store the request; `last_event_id` is the first Last-Event-ID, "" for none."""
        self.last_event_id = last_event_id
        self._request = request
        self._retry_ms = RETRY_MS
        self._failures = 0
        self._connected = False
        self._ended = False

    async def follow(self) -> AsyncGenerator[DecodedEvent | Reconnect, None]:
        """Return each event, and a Reconnect before each pause, until the stream's end.

        Raises:
            StreamError: The server refuses the stream, or cannot be reached the first time, or a request that is not a
                GET was cut off and cannot be resumed.
        """
        async with self._request.client() as client:
            while not self._ended:
                reason = "the stream ended"
                try:
                    async for event in self._attempt(client):
                        yield event
                except FAILURES as error:
                    reason = explain(error)
                    self._check_failure(reason)
                except _TemporaryError as error:
                    reason = str(error)
                if not self._ended:
                    wait = self._pause(failed=reason != "the stream ended")
                    yield Reconnect(reason, wait)
                    await anyio.sleep(wait)

    async def _attempt(self, client: httpx.AsyncClient) -> AsyncIterator[DecodedEvent]:
        async with self._request.open(client, last_event_id=self.last_event_id, silence=SILENCE) as response:
            self._ended = response.status_code == HTTPStatus.NO_CONTENT
            if self._ended:
                return
            self._check_answer(response)
            self._connected = True
            decoder = EventDecoder()
            async for piece in pieces(response):
                self._failures = 0
                for event in decoder.feed(piece):
                    self.last_event_id = event.id or self.last_event_id
                    yield event
                    self._ended = event.event == END
                    if self._ended:
                        return
                self._retry_ms = self._retry_ms if decoder.retry is None else decoder.retry
        self._ended = self._request.method != "GET"

    def _check_answer(self, response: httpx.Response) -> None:
        status = response.status_code
        about = f"{response.url} answered {status} {response.reason_phrase}".rstrip()
        if status != HTTPStatus.OK:
            is_final = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in TEMPORARY
            if is_final or not self._connected:
                advice = ADVICE.get(status, "look into the server's log")
                msg = f"{about}: {advice}"
                raise StreamError(msg)
            raise _TemporaryError(about)
        if media_type(response) != EVENT_STREAM:
            got = response.headers.get("Content-Type", "none")
            msg = f"{about}, but its Content-Type must be {EVENT_STREAM} (got {got}): check the URL"
            raise StreamError(msg)

    def _check_failure(self, reason: str) -> None:
        if not self._connected:
            msg = f"cannot read {self._request.url}: {reason}: check the URL, and that the server runs"
            raise StreamError(msg)
        if self._request.method != "GET" and not self.last_event_id:
            msg = f"{reason}, and a {self._request.method} without event ids is not sent twice: run the command again"
            raise StreamError(msg)

    def _pause(self, *, failed: bool) -> float:
        """Return the seconds to wait: `retry:` and up to half of it more, or after failures a growing random time."""
        seconds = self._retry_ms / 1000
        if not failed:
            return seconds * random.uniform(1, 1.5)  # noqa: S311 - jitter
        self._failures += 1
        return min(LONGEST, max(seconds, 0.1) * 2.0**self._failures) * random.uniform(0.1, 1)  # noqa: S311


class _TemporaryError(Exception):
    """A status after which the reader comes back."""
