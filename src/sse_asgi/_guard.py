"""A stream that is not ours, kept from holding up the server: pings, a lifetime, an end at shutdown.

The application goes on believing that it sends; what it sends after the end goes nowhere, and it is cancelled.
"""

import contextlib
import math
import random
import time
from collections.abc import Awaitable, Callable

import anyio
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._runtime import Alarm, Timer, new_interrupt, shared_timer, spawn
from ._shutdown import current_notice, farewell

KEY = "sse_asgi.guard"
PATIENCE = 0.5
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class Guard:
    """Watches one response, and takes a hand in it if it turns out to be a foreign event stream."""

    __slots__ = (
        "_alarm",
        "_at_boundary",
        "_encoded",
        "_ended",
        "_ends",
        "_helper",
        "_interrupt",
        "_last",
        "_lock",
        "_notice",
        "_ping_interval",
        "_send",
        "_stream",
        "_timer",
        "_watching",
        "abort",
    )

    def __init__(self, send: Send, ping_interval: float | None, max_lifetime: float | None) -> None:
        """Let everything through."""
        self._send = send
        self._ping_interval = math.inf if ping_interval is None else ping_interval
        self._ends = math.inf if max_lifetime is None else max_lifetime * random.uniform(0.8, 1.2)  # noqa: S311
        self._watching = True
        self._stream = False
        self._ended = False

    def release(self) -> None:
        """Leave this response to one of ours, which sees to all of this itself."""
        self._watching = False

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive) -> None:
        """Serve one request."""
        scope[KEY] = self
        self.abort = _abort_of(receive)
        self._interrupt = new_interrupt()
        with self._interrupt:
            try:
                await app(scope, receive, self.send)
            finally:
                if self._stream and not self._ended:
                    self._finish()

    def send(self, message: Message) -> Awaitable[None]:
        """Pass on what the application sends, without a coroutine around what needs none."""
        if self._stream:
            return self._pass_on(message)
        if self._watching and message["type"] == "http.response.start":
            message = {**message, "headers": list(message.get("headers", ()))}
            if _header(message, b"content-type").lower().startswith(b"text/event-stream"):
                return self._begin(message)
        return self._send(message)

    async def _begin(self, message: Message) -> None:
        headers = MutableHeaders(raw=message["headers"])
        self._encoded = bool(_header(message, b"content-encoding"))
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        self._stream = True
        self._at_boundary = not self._encoded
        self._lock = anyio.Lock()
        self._timer: Timer = shared_timer()
        self._last = time.monotonic()
        self._ends += self._last
        self._alarm = Alarm()
        self._look_again(self._last)
        self._notice = current_notice()
        await self._send(message)
        self._notice.listen(self._on_shutdown)

    async def _pass_on(self, message: Message) -> None:
        async with self._lock:
            if self._ended:
                return
            await self._send(message)
        self._last = time.monotonic()
        body = message.get("body", b"")
        if body:
            self._at_boundary = not self._encoded and body.endswith((b"\n\n", b"\r\n\r\n", b"\r\r"))
        if not message.get("more_body", False):
            self._finish()

    def _finish(self) -> None:
        """Leave the application to itself: what it does after its stream is its own business."""
        self._ended = True
        self._alarm.cancel()
        self._notice.unlisten(self._on_shutdown)

    def _watch_clock(self) -> None:
        now = time.monotonic()
        if now >= self._ends:
            self._on_shutdown()
            return
        if now >= self._last + self._ping_interval:
            self._last = now
            self._helper = spawn(self._ping)
        self._look_again(now)

    def _look_again(self, now: float) -> None:
        when = min(self._last + self._ping_interval, self._ends)
        if when < math.inf:
            self._alarm = self._timer.after(when - now, self._watch_clock)

    def _on_shutdown(self) -> None:
        self._helper = spawn(self._end)

    async def _ping(self) -> None:
        if not self._lock.statistics().locked:
            async with self._lock:
                if self._at_boundary and not self._ended:
                    await self._send_body(b":\n", more=True)

    async def _end(self) -> None:
        """Close the body, unless the application is stuck in the middle of a send, and stop the application."""
        with anyio.move_on_after(PATIENCE) as limit:
            async with self._lock:
                if self._ended:
                    return
                body = farewell(self._notice) if self._at_boundary else b""
                self._finish()
                await self._send_body(body, more=False)
        if limit.cancelled_caught:
            self.abort()
        self._interrupt.cancel()

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        with contextlib.suppress(OSError):  # the client has gone, of which the application hears by itself
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


def release(scope: Scope, receive: Receive) -> Callable[[], None]:
    """Tell the guard of this request, if any, that the response is ours; return how to abort its connection."""
    guard = scope.get(KEY)
    if guard is None:
        return _abort_of(receive)
    guard.release()
    abort: Callable[[], None] = guard.abort
    return abort


def _abort_of(receive: Receive) -> Callable[[], None]:
    """Find the server's transport, of which the outermost `receive` is a method where there is one (uvicorn)."""
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    return getattr(transport, "abort", _nothing)


def _nothing() -> None:
    pass


def _header(message: Message, name: bytes) -> bytes:
    found: list[bytes] = [value for key, value in message["headers"] if key.lower() == name]
    return found[0] if found else b""
