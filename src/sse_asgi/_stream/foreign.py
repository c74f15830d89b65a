"""What the middleware does to one request: nothing, unless the response turns out to be an event stream.

Ours see to themselves. One that is not ours is kept from holding up the server: headers, pings, a lifetime, an end at
shutdown. Its application goes on believing that it sends; what it sends after the end goes nowhere, and it is stopped.
"""

import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import NamedTuple

import anyio
from anyio.lowlevel import checkpoint
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._loop.tasks import current_task, new_interrupt, spawn
from .._loop.timer import Alarm, Timer, shared_timer
from .._servers.abort import RETURN_SECONDS, abort
from .._servers.shutdown import current_notice, farewell
from .limits import ConnectionLimit, refused_body
from .upload import own_receive

logger = logging.getLogger("sse_asgi")

KEY = "sse_asgi.guard"
PATIENCE = 0.5
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class GuardTerms(NamedTuple):
    """What a middleware was told; see EventSourceMiddleware."""

    ping_interval: float
    max_lifetime: float
    limit: ConnectionLimit | None


class Guard:
    """Watches one response, and takes a hand in it if it turns out to be a foreign event stream."""

    __slots__ = ("_interrupt", "_leave", "_outer", "_receive", "_scope", "_send", "_stream", "_terms", "_watching")

    def __init__(self, terms: GuardTerms, scope: Scope, receive: Receive, send: Send) -> None:
        """Let everything through."""
        self._terms = terms
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watching = scope.get("method") != "HEAD"
        self._stream: ForeignStream | None = None
        self._leave: Callable[[], None] | None = None

    @property
    def passes_on(self) -> Send | None:
        """What the messages of a stream of ours go to, as they are."""
        return None if self._watching else self._send

    async def run(self, app: ASGIApp) -> None:
        """Serve the request."""
        self._outer: Guard | None = self._scope.get(KEY)
        self._scope[KEY] = self
        self._interrupt = new_interrupt(current_task())
        try:
            with self._interrupt:
                await app(self._scope, own_receive(self._scope, self._receive), self.send)
        finally:
            self._scope[KEY] = self._outer
            if self._stream is not None:
                self._stream.forget()
            if self._leave is not None:
                self._leave()

    def admit(self) -> bool:
        """Leave this response to one of ours; False if it is one too many."""
        admitted = (self._outer is None or self._outer.admit()) and self._enter()
        self._watching = False
        return admitted

    def watch_again(self) -> None:
        """Expect another response: one of ours failed before its head, and an exception handler may answer."""
        self._watching = True
        if self._outer is not None:
            self._outer.watch_again()

    def cut_off(self, timer: Timer) -> None:
        """Abort the connection of this request, where the server lets us."""
        if self._outer is None:
            abort(self._scope, self._receive, timer)
        else:
            self._outer.cut_off(timer)

    def _enter(self) -> bool:
        """Count this request, once, whatever is sent in answer to it; False if it is one too many."""
        if self._terms.limit is None or self._leave is not None:
            return True
        self._leave = self._terms.limit.enter(self._scope)
        return self._leave is not None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the application sends, without a coroutine around what needs none."""
        if self._watching and message["type"] == "http.response.start":
            self._watching = False
            headers = message.get("headers", ())
            if not isinstance(headers, list | tuple):
                message = {**message, "headers": (headers := [*headers])}
            if _header(headers, b"content-type").lower().startswith(b"text/event-stream"):
                return self._begin({**message, "headers": [*headers]})
        return self._send(message) if self._stream is None else self._stream.pass_on(message)

    async def _begin(self, head: Message) -> None:
        cut_off = partial(abort, self._scope, self._receive, shared_timer())
        self._stream = stream = ForeignStream(self._terms, self._scope, self._send, cut_off, self._interrupt.cancel)
        await (stream.begin(head) if self._enter() else stream.refuse(head))


class ForeignStream:
    """An event stream that is not ours."""

    def __init__(
        self,
        terms: GuardTerms,
        scope: Scope,
        send: Send,
        cut_off: Callable[[], None],
        stop_application: Callable[[], None],
    ) -> None:
        """Be ready for the head."""
        self._send = send
        self._cut_off = cut_off
        self._stop_application = stop_application
        self._timer = shared_timer()
        self._alarm = Alarm()
        self._lock = anyio.Lock(fast_acquire=True)
        self._last = time.monotonic()
        self._ping_interval = terms.ping_interval
        self._ends = self._last + terms.max_lifetime * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret
        self._encoded = False
        self._at_boundary = True
        self._tail = b"\n\n"
        self._ended = False
        self._notice = current_notice()
        self._notice.listen(self._end_soon, scope)

    async def begin(self, head: Message) -> None:
        """Send the head, with what keeps proxies from holding events back where the application says nothing."""
        self._encoded = bool(_header(head["headers"], b"content-encoding"))
        self._at_boundary = not self._encoded
        headers = MutableHeaders(raw=head["headers"])
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        del headers["content-length"]  # what is sent of ours is not in it
        self._look_again(self._last)
        async with self._lock:
            await self._send(head)

    async def refuse(self, head: Message) -> None:
        """Send a stream of nothing but a `retry:`, and stop the application."""
        self._ended = True
        headers = MutableHeaders(raw=head["headers"])
        headers.update({"content-type": "text/event-stream", **HEADERS})
        for name in ("content-length", "content-encoding"):
            del headers[name]
        await self._send({**head, "status": 200})
        await self._send_body(refused_body(), more=False)
        self._helper = spawn(self._stop)

    async def _stop(self) -> None:
        self._stop_application()

    async def pass_on(self, message: Message) -> None:
        """Pass a body on, as long as the stream has not been ended."""
        async with self._lock:
            if self._ended:
                await checkpoint()
                return
            if body := message.get("body", b""):
                self._at_boundary = False
                self._tail = (self._tail + body)[-4:]
            await self._send(message)
        self._last = time.monotonic()
        self._at_boundary = not self._encoded and self._tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        if not message.get("more_body", False):
            self._finish()

    def forget(self) -> None:
        """The application has returned, and cleaned up."""
        self._finish()
        self._notice.unlisten(self._end_soon)

    def _finish(self) -> None:
        """Leave the application to itself: what it does after its stream is its own business."""
        self._ended = True
        self._alarm.cancel()

    def _watch_clock(self) -> None:
        now = time.monotonic()
        if now >= self._ends:
            self._end_soon()
            return
        if now >= self._last + self._ping_interval:
            self._last = now
            self._helper = spawn(self._ping)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        when = min(self._last + self._ping_interval, self._ends)
        if when < math.inf:
            self._alarm = self._timer.after(when - now, self._watch_clock)

    def _end_soon(self) -> None:
        self._helper = spawn(self._end)

    async def _ping(self) -> None:
        if not self._lock.statistics().locked:
            async with self._lock:
                if self._at_boundary and not self._ended:
                    try:
                        await self._send_body(b":\n", more=True)
                    except Exception:
                        logger.exception("a ping could not be sent")

    async def _end(self) -> None:
        """Close the body, unless the application is stuck in the middle of a send, and stop the application."""
        try:
            stop = await self._close()
        except Exception:
            logger.exception("the end of an event stream could not be sent")
            stop = True
        if stop:
            self._stop_application()

    async def _close(self) -> bool:
        """Tell whether there was something left to end."""
        with self._timer.move_on_after(PATIENCE) as limit:
            async with self._lock:
                if self._ended:
                    return False
                body = farewell(self._notice) if self._at_boundary else b""
                self._finish()
                await self._send_body(body, more=False)
        if limit.cancelled_caught:
            self._finish()
            self._cut_off()
            with self._timer.move_on_after(RETURN_SECONDS):
                await self._lock.acquire()  # the send may return by itself
                self._lock.release()
        return True

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        with contextlib.suppress(OSError):  # the client has gone, of which the application hears by itself
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


def admit(scope: Scope) -> bool:
    """Begin one of our streams; False if it is one too many."""
    guard: Guard | None = scope.get(KEY)
    return guard is None or guard.admit()


def watch_again(scope: Scope) -> None:
    """Expect another response in the place of one of ours that failed before its head."""
    guard: Guard | None = scope.get(KEY)
    if guard is not None:
        guard.watch_again()


def cut_off(scope: Scope, receive: Receive, timer: Timer) -> None:
    """Abort the connection of one of our streams, where the server lets us."""
    guard: Guard | None = scope.get(KEY)
    if guard is None:
        abort(scope, receive, timer)
    else:
        guard.cut_off(timer)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    for key, value in headers:
        if key.lower() == name:
            return value
    return b""
