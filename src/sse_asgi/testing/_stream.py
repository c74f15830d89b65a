"""EventStream: one response, which a test reads while the application writes it."""

import json
from typing import Any, Self

import anyio
import anyio.lowlevel
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Scope

from .._log.event import POSITION_EVENT
from ..decoder import DecodedEvent, EventDecoder

UNREAD_LIMIT = 64 * 1024


class EventStream:
    """One response, as a page reads it.

    Iteration skips `sse.position`, because pages do not listen for it; its id still becomes `last_event_id`, and its
    bytes are in `content`. Iteration returns every other event, also `sse.gap`, `sse.error` and `sse.end`.

    Attributes:
        status_code: The status.
        headers: The response headers.
        content: All bytes received so far.
        complete: True once the application has sent the last body message, with which a server ends the response.
        last_event_id: The id that a browser would send if it reconnected now.
        retry: The last reconnection time received, in milliseconds, or None.
        body_taken: True once the application has received the request's body.
        disconnected: True once this client has disconnected.
    """

    def __init__(self, scope: Scope, body: bytes) -> None:
        """Store the request; EventStreamClient.stream makes it."""
        self.status_code: int = 0
        self.headers: Headers = Headers()
        self.content: bytes = b""
        self.complete: bool = False
        self._scope = scope
        self._request: Message = {"type": "http.request", "body": body, "more_body": False}
        self.body_taken: bool = False
        self._decoder = EventDecoder()
        self._events: list[DecodedEvent] = []
        self._unread = 0
        self._reading = True
        self.disconnected: bool = False
        self._error: Exception | None = None
        self._ended = anyio.Event()
        self._changed = anyio.Event()

    @property
    def last_event_id(self) -> str:
        """Return the last event id received."""
        return self._decoder.last_event_id

    @property
    def retry(self) -> int | None:
        """Return the last reconnection time received."""
        return self._decoder.retry

    @property
    def text(self) -> str:
        """Return all text received so far; bytes that are not UTF-8 become U+FFFD."""
        return self.content.decode(errors="replace")

    def json(self) -> Any:
        """Return the value of a JSON body. Read an answer to its end first, or make it with `request`.

        Raises:
            ValueError: What was received so far is not JSON.
        """
        return json.loads(self.content)

    def __aiter__(self) -> Self:
        """Iterate over the events until the stream ends."""
        return self

    async def __anext__(self) -> DecodedEvent:
        """Return the next event; after the last one, raise the exception that the application raised, if any."""
        while not self._events:
            if self._ended.is_set():
                self.check()
                raise StopAsyncIteration
            await self._more()
        self._unread = 0
        self._notify()
        return self._events.pop(0)

    async def next_event(self, timeout: float = 5.0) -> DecodedEvent:  # noqa: ASYNC109 - tests give it a number
        """Return the next event.

        Raises:
            TimeoutError: No event was complete within `timeout` seconds.
            EOFError: The stream has ended.
            Exception: The application raised it.
        """
        with anyio.move_on_after(timeout):
            try:
                return await anext(self)
            except StopAsyncIteration:
                msg = f"the stream has ended, with status {self.status_code}; its last bytes: {self._shown()}"
                raise EOFError(msg) from None
        msg = f"no event within {timeout} s; the last bytes so far: {self._shown()}"
        raise TimeoutError(msg)

    def _shown(self) -> str:
        return repr(self.content[-200:])

    async def read(self, timeout: float = 5.0) -> bytes:  # noqa: ASYNC109 - tests give it a number
        """Read to the end, and return all bytes.

        Raises:
            TimeoutError: The stream did not end within `timeout` seconds.
            Exception: The application raised it.
        """
        with anyio.fail_after(timeout):
            async for _ in self:
                pass
        return self.content

    async def received(self, part: bytes, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - tests give it a number
        """Wait until `content` contains these bytes.

        Raises:
            TimeoutError: They were not received within `timeout` seconds.
        """
        with anyio.fail_after(timeout):
            while part not in self.content:
                await self._more()

    def stall(self) -> None:
        """Stop reading: the application's next `send` waits until the client disconnects."""
        self._reading = False

    def disconnect(self) -> None:
        """Disconnect, as a closed tab does."""
        self.disconnected = True
        self._notify()

    async def ended(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - tests give it a number
        """Wait until the application has returned, after its cleanup and its background tasks.

        Raises:
            TimeoutError: It did not return within `timeout` seconds.
        """
        with anyio.fail_after(timeout):
            await self._ended.wait()

    # Called by the client and by the application

    async def run(self, app: ASGIApp) -> None:
        """Run the application with this request."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the reader raises it
            self._error = error
        finally:
            self._ended.set()
            self._notify()

    async def started(self) -> None:
        """Wait for the head, or raise the exception that the application raised before it."""
        while not self.status_code:
            if self._ended.is_set():
                self.check()
                msg = "the application returned without a response"
                raise RuntimeError(msg)
            await self._changed.wait()

    async def _receive(self) -> Message:
        await anyio.lowlevel.checkpoint()
        if not self.body_taken:
            self.body_taken = True
            return self._request
        while not (self.disconnected or self.complete):
            await self._changed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        while (not self._reading or self._unread > UNREAD_LIMIT) and not self.disconnected:
            await self._changed.wait()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self.headers = Headers(raw=list(message.get("headers", ())))
            self.status_code = message["status"]
        else:
            body = message.get("body", b"")
            self.content += body
            self._unread += len(body)
            self._events += (one for one in self._decoder.feed(body) if one.event != POSITION_EVENT)
            self.complete = not message.get("more_body", False)
        self._notify()

    def check(self) -> None:
        """Raise the exception of the application, unless it was raised before."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    async def _more(self) -> None:
        """Count all received bytes as read, and wait for a change."""
        if self._unread:
            self._unread = 0
            self._notify()
        await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
