"""The guard of one request below the middleware. It does nothing unless the response turns out to be an event stream.

Our own streams need no guard. A foreign stream, which another library makes, gets headers, pings, a lifetime and an end
at shutdown, so that it does not hold up the server. After that end its application may go on sending: the guard
discards these messages, and cancels the application.
"""

import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import NamedTuple

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._loop.tasks import current_task, new_interrupt, spawn
from .._loop.timer import Alarm, Timer, shared_timer, spread
from .._servers.abort import RETURN_SECONDS, abort
from .._servers.shutdown import current_notice, farewell
from .limits import ConnectionLimit, refused_body
from .upload import own_receive

logger = logging.getLogger("sse_asgi.stream")

KEY = "sse_asgi.guard"
PATIENCE = 0.5
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class GuardTerms(NamedTuple):
    """The options of a middleware; see EventSourceMiddleware."""

    ping_interval: float
    max_lifetime: float
    limit: ConnectionLimit | None


class Guard:
    """Watches one response, and takes it over if it turns out to be a foreign event stream."""

    __slots__ = ("_interrupt", "_leave", "_outer", "_receive", "_scope", "_send", "_stream", "_terms", "_watching")

    def __init__(self, terms: GuardTerms, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to watch; no message has been sent yet."""
        self._terms = terms
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watching = scope.get("method") != "HEAD"
        self._stream: ForeignStream | None = None
        self._leave: Callable[[], None] | None = None

    @property
    def passes_on(self) -> Send | None:
        """The `send` behind this guard if a stream of our own is sent through it unchanged; else None."""
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
        """Let a stream of our own through; return False if a limit refuses it."""
        admitted = (self._outer is None or self._outer.admit()) and self._enter()
        self._watching = False
        return admitted

    def watch_again(self) -> None:
        """Expect another response: a stream of our own failed before its head, and an exception handler may answer."""
        self._watching = True
        if self._outer is not None:
            self._outer.watch_again()

    def cut_off(self, timer: Timer) -> None:
        """Abort the connection of this request, if the server allows it."""
        if self._outer is None:
            abort(self._scope, self._receive, timer)
        else:
            self._outer.cut_off(timer)

    def _enter(self) -> bool:
        """Count this request, once, whatever the response; return False if a limit refuses it."""
        if self._terms.limit is None or self._leave is not None:
            return True
        self._leave = self._terms.limit.enter(self._scope)
        return self._leave is not None

    def send(self, message: Message) -> Awaitable[None]:
        """Pass a message of the application on, without a coroutine of our own around the `send` of other responses."""
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
    """An event stream that another library makes."""

    def __init__(
        self,
        terms: GuardTerms,
        scope: Scope,
        send: Send,
        cut_off: Callable[[], None],
        stop_application: Callable[[], None],
    ) -> None:
        """Prepare for the head."""
        self._send = send
        self._cut_off = cut_off
        self._stop_application = stop_application
        self._timer = shared_timer()
        self._alarm = Alarm()
        self._lock = anyio.Lock()
        self._last = time.monotonic()
        self._ping_interval = terms.ping_interval
        self._ends = self._last + spread(terms.max_lifetime)
        self._encoded = False
        self._at_boundary = True
        self._tail = b"\n\n"
        self._ended = False
        self._notice = current_notice()
        self._notice.listen(self._end_soon, scope)

    async def begin(self, head: Message) -> None:
        """Send the head, with headers that keep proxies from holding events back, unless the application set them."""
        self._encoded = bool(_header(head["headers"], b"content-encoding"))
        self._at_boundary = not self._encoded
        headers = MutableHeaders(raw=head["headers"])
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        del headers["content-length"]  # it does not count pings and the farewell
        self._look_again(self._last)
        async with self._lock:
            await self._send(head)

    async def refuse(self, head: Message) -> None:
        """Send a stream that has only a `retry:` line, and stop the application."""
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
        """Pass a body on, unless the stream has ended."""
        async with self._lock:
            if self._ended:
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
        """Release everything: the application has returned."""
        self._finish()
        self._notice.unlisten(self._end_soon)

    def _finish(self) -> None:
        """Send nothing more; the application may go on after its stream."""
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
                        logger.exception("a ping of a foreign event stream could not be sent")

    async def _end(self) -> None:
        """Send the final body, unless a send of the application is stuck, and stop the application."""
        try:
            stop = await self._close()
        except Exception:
            logger.exception("the end of a foreign event stream could not be sent")
            stop = True
        if stop:
            self._stop_application()

    async def _close(self) -> bool:
        """Return True if the stream had not ended already."""
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
        with contextlib.suppress(OSError):  # the client has disconnected, and `receive()` tells the application
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


def admit(scope: Scope) -> bool:
    """Begin a stream of our own; return False if a limit refuses it."""
    guard: Guard | None = scope.get(KEY)
    return guard is None or guard.admit()


def watch_again(scope: Scope) -> None:
    """Expect another response in place of a stream of our own that failed before its head."""
    guard: Guard | None = scope.get(KEY)
    if guard is not None:
        guard.watch_again()


def cut_off(scope: Scope, receive: Receive, timer: Timer) -> None:
    """Abort the connection of a stream of our own, if the server allows it."""
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
