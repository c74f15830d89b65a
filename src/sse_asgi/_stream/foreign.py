"""The guard of one request below the middleware. It does nothing unless the response turns out to be an event stream.

Our own streams need no guard. A foreign stream, which another library makes, gets headers, pings, a lifetime and an end
at shutdown, so that it does not hold up the server. After that end its application may go on sending: the guard
discards these messages. The application has RETURN_ALONE seconds to return by itself, because servers answer its
`receive()` with `http.disconnect` once the response is complete, and frameworks clean up best after that: a cancelled
Django leaves its tasks behind. Then the guard cancels the application. The body of a stream that is cut off stays
incomplete, unless its client is an EventSource (`ending.py` says why).

The guard adds no turn of the event loop to a send, because applications depend on the order of their tasks. Observed: a
tool of an MCP server that closes its stream at once lost the first event, and with it the client's way back, when the
head of the response took one turn more. Only one send in SENDS_A_TURN gives way, so that an application that never
waits still lets the shutdown be heard.
"""

import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .._log.logged import about
from .._loop.tasks import Interrupt, current_task, new_interrupt, spawn
from .._loop.timer import Alarm, Timer, shared_timer, spread
from .._loop.wakeup import new_wakeup
from .._servers.abort import RETURN_SECONDS, abort
from .._servers.interrupt import can_interrupt, interrupt
from .._servers.shutdown import current_notice, farewell
from .event_source import is_event_source, may_be_event_source
from .framing import Frames
from .headers import value_of
from .limits import refusal
from .observed import ObservedStream, reason_of
from .sender import past_wrappers
from .terms import GuardTerms
from .upload import own_receive

logger = logging.getLogger("sse_asgi.stream")

KEY = "sse_asgi.guard"
PATIENCE = 0.5
RETURN_ALONE = 0.2
SENDS_A_TURN = 64
HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class Guard:
    """Watches one response, and takes it over if it turns out to be a foreign event stream.

    Attributes:
        observer: The telemetry of this middleware, or else of one around it; None if another guard tells it.
        reason: The reason why a foreign stream has ended, as far as it is known.
        rest: The rest of a stream of our own, to be awaited when the application has returned; None if there is none.
        task: The task of the request on asyncio; None on trio.
    """

    __slots__ = (
        "_interrupt",
        "_leave",
        "_observed",
        "_outer",
        "_receive",
        "_scope",
        "_send",
        "_stream",
        "_terms",
        "_watching",
        "observer",
        "reason",
        "rest",
        "task",
    )

    def __init__(self, terms: GuardTerms, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin to watch, and let the request's stream find this guard; no message has been sent yet."""
        self._terms = terms
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watching = scope.get("method") != "HEAD"
        self._stream: ForeignStream | None = None
        self._leave: Callable[[], None] | None = None
        self.observer = terms.observer
        self._observed: ObservedStream | None = None
        self.reason: str | None = None
        self.task = current_task()
        self._interrupt: Interrupt | None = None
        self.rest: Coroutine[Any, Any, None] | None = None
        self._outer: Guard | None = scope.get(KEY)
        if self._outer is not None:  # which leaves the stream to this guard, so that it is observed once
            self.observer, self._outer.observer = self.observer or self._outer.observer, None
        scope[KEY] = self

    @property
    def passes_on(self) -> Send | None:
        """The `send` behind this guard if a stream of our own is sent through it unchanged; else None."""
        return None if self._watching else self._send

    def fail(self, error: BaseException) -> None:
        """Note the exception of the application, or of the rest of a stream."""
        self.reason = self.reason or reason_of(error)

    def leave(self) -> None:
        """Release everything: the application and the stream have ended."""
        self._scope[KEY] = self._outer
        if self._stream is not None:
            self._stream.forget()
            self.conclude(self.reason)
        if self._leave is not None:
            self._leave()

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; then `rest` may be left."""
        with new_interrupt(self.task) as self._interrupt:
            await app(self._scope, own_receive(self._scope, self._receive), self.send)
            if self._stream is not None:
                await self._stream.complete()
        self._interrupt = None

    def admit(self) -> bool:
        """Let a stream of our own through; return False if a limit refuses it."""
        admitted = (self._outer is None or self._outer.admit()) and self._enter()
        self._watching = False
        return admitted

    def watch_again(self) -> None:
        """Expect another response: a stream of our own has ended, and an exception handler may answer."""
        self._watching = True
        if self._outer is not None:
            self._outer.watch_again()

    def observe(self, scope: Scope, kind: str) -> None:
        """Tell the telemetry that a stream opens; the scope is that of its response, and has the route."""
        if self.observer is not None:
            self._observed = self.observer.opened(scope, kind)

    def conclude(self, reason: str | None) -> None:
        """Tell the telemetry that the stream has ended."""
        observed, self._observed = self._observed, None
        if observed is not None:
            observed.ended(reason or "finished")

    def cut_off(self, timer: Timer) -> None:
        """Abort the connection of this request, if the server allows it."""
        if self._outer is None:
            abort(self._scope, self._receive, timer)
        else:
            self._outer.cut_off(timer)

    async def interrupt(self) -> None:
        """Break off the response now; later messages, such as those that would complete it, are discarded."""
        self._send = _discard
        await (interrupt(self._receive) if self._outer is None else self._outer.interrupt())

    async def end_incomplete(self, send: Send, finish: Callable[[], Awaitable[None]]) -> None:
        """Break off a stream of our own behind its last bytes.

        Args:
            send: The stream's. If middleware is between it and the server, the last bytes may be on their way.
            finish: Sends the final body, which follows these bytes; the outermost guard breaks the response off for it.
        """
        if self._outer is not None:
            await self._outer.end_incomplete(send, finish)
        elif send == past_wrappers(self._send):
            await self.interrupt()
        else:
            self._send = partial(self._interrupt_at_end, self._send)
            await finish()

    async def _interrupt_at_end(self, send: Send, message: Message) -> None:
        more = message.get("more_body", False)
        if more or message.get("body"):  # an empty body would wait for a client that does not read
            await send({**message, "more_body": True})
        if not more:
            await self.interrupt()

    def can_interrupt(self) -> bool:
        """Return True if the client sees that its response was broken off, and no other response is."""
        return can_interrupt(self._scope, self._receive) if self._outer is None else self._outer.can_interrupt()

    @property
    def drain_timeout(self) -> float:
        """The seconds for which streams of this application may go on after the news that the server stops."""
        return self._terms.drain_timeout

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
            if value_of(headers, b"content-type").lower().startswith(b"text/event-stream"):
                return self._begin({**message, "headers": [*headers]})
        if self._observed is not None and message["type"] == "http.response.start":
            self._observed.started()
        return self._send(message) if self._stream is None else self._stream.pass_on(message)

    async def _begin(self, head: Message) -> None:
        # An EventSource gets the head and a farewell then, which is an empty answer to other clients.
        too_late = current_notice().stops(self._scope) and not may_be_event_source(self._scope)
        admitted = self._enter() and not too_late
        self.observe(self._scope, "foreign")
        self.reason = None if admitted else "refused"
        self._stream = stream = ForeignStream(self._terms, self._scope, self._send, self)
        await (stream.begin(head) if admitted else stream.refuse(head, self._scope))
        if self._observed is not None:
            self._observed.started()

    def must_complete(self) -> bool:
        """Return True if the client comes back after every end, or cannot see that a body is incomplete."""
        return is_event_source(self._scope) or not self.can_interrupt()

    def stop_application(self) -> None:
        """Cancel the application, because its stream has ended."""
        assert self._interrupt is not None  # a stream that waits for its application to return
        self._interrupt.cancel()


class ForeignStream:
    """An event stream that another library makes."""

    def __init__(self, terms: GuardTerms, scope: Scope, send: Send, guard: Guard) -> None:
        """Prepare for the head."""
        self._send = send
        self._guard = guard
        self._timer = shared_timer()
        self._alarm = Alarm()
        self._lock = anyio.Lock(fast_acquire=True)
        self._last = self._timer.now()
        self._ping_interval = terms.ping_interval
        self._ends = self._last + spread(terms.max_lifetime)
        self._frames = Frames(encoded=False)
        self._sends = 0
        self._ended = False
        self._returned = new_wakeup()
        self._notice = current_notice()
        self._drain = 0.0  # a stream that begins while the server stops ends at once
        self._notice.listen(self._on_shutdown, scope, drain=terms.drain_timeout)
        self._drain = terms.drain_timeout

    async def begin(self, head: Message) -> None:
        """Send the head, with headers that keep proxies from holding events back, unless the application set them."""
        self._frames = Frames(encoded=bool(value_of(head["headers"], b"content-encoding")))
        headers = MutableHeaders(raw=head["headers"])
        for name, value in HEADERS.items():
            headers.setdefault(name, value)
        del headers["content-length"]  # it does not count pings and the farewell
        self._look_again(self._last)
        async with self._lock:
            await self._send(head)

    async def refuse(self, head: Message, scope: Scope) -> None:
        """Answer the request of this scope with a refusal, and stop the application."""
        self._ended = True
        headers = MutableHeaders(raw=head["headers"])
        headers.update({"content-type": "text/event-stream", **HEADERS})
        for name in ("content-length", "content-encoding"):
            del headers[name]
        status, raw, body = refusal(scope, headers.raw)
        await self._send({**head, "status": status, "headers": raw})
        await self._send_body(body, more=False)
        self._helper = spawn(self._stop)

    async def _stop(self) -> None:
        """Cancel the application, unless it returns by itself after the end of its response."""
        with self._timer.move_on_after(RETURN_ALONE):
            await self._returned
            return
        self._guard.stop_application()

    async def pass_on(self, message: Message) -> None:
        """Pass a body on, unless the stream has ended."""
        async with self._lock:
            if self._ended:
                await cancel_shielded_checkpoint()
                return
            if body := message.get("body", b""):
                self._frames.begin(body)
            await self._send(message)
        self._last = self._timer.now()
        self._frames.end()
        if not message.get("more_body", False):
            self._finish()
        self._sends += 1
        if self._sends % SENDS_A_TURN == 0:
            await cancel_shielded_checkpoint()

    async def complete(self) -> None:
        """End the body if the application returned without that, as sse-starlette does when a server stops."""
        self._guard.reason = self._guard.reason or self._reason_of_return()
        if not self._ended:
            with contextlib.suppress(Exception):  # the client may have disconnected, and servers raise different errors
                await self._close()

    def _reason_of_return(self) -> str:
        """Return the reason why the stream of an application has ended that has returned by itself."""
        if self._ended:
            return "finished"
        return "shutdown" if self._notice.heard else "client"

    def forget(self) -> None:
        """Release everything: the application has returned."""
        self._finish()
        self._notice.unlisten(self._on_shutdown)
        self._returned.set()

    def _finish(self) -> None:
        """Send nothing more; the application may go on after its stream."""
        self._ended = True
        self._alarm.cancel()

    def _watch_clock(self) -> None:
        now = self._timer.now()
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

    def _on_shutdown(self) -> None:
        drain, self._drain = self._drain, 0.0
        if drain and not self._ended:
            now = self._timer.now()
            self._ends = min(self._ends, now + drain)
            self._alarm.cancel()
            self._look_again(now)
        else:
            self._end_soon()

    def _end_soon(self) -> None:
        if not self._ended:
            self._guard.reason = "shutdown" if self._notice.heard else "lifetime"
        self._helper = spawn(self._end)

    async def _ping(self) -> None:
        if not self._lock.statistics().locked:
            async with self._lock:
                if self._frames.complete and not self._ended:
                    try:
                        await self._send_body(b":\n", more=True)
                    except Exception:
                        extra = about("foreign_ping_failed")
                        logger.exception("a ping of a foreign event stream could not be sent", extra=extra)

    async def _end(self) -> None:
        """End the body, unless a send of the application is stuck, and stop the application."""
        try:
            stop = await self._close()
        except Exception:
            logger.exception("the end of a foreign event stream could not be sent", extra=about("foreign_end_failed"))
            stop = True
        if stop:
            await self._stop()

    async def _close(self) -> bool:
        """Return True if the stream had not ended already."""
        with self._timer.move_on_after(PATIENCE) as limit:
            async with self._lock:
                if self._ended:
                    return False
                body = farewell(self._notice) if self._frames.complete else b""
                self._finish()
                complete = self._guard.must_complete()
                if body or complete:
                    await self._send_body(body, more=not complete)
                if not complete:
                    await self._guard.interrupt()
        if limit.cancelled_caught:
            self._finish()
            self._guard.cut_off(self._timer)
            with self._timer.move_on_after(RETURN_SECONDS):
                await self._lock.acquire()  # the send may return by itself
                self._lock.release()
        return True

    async def _send_body(self, body: bytes, *, more: bool) -> None:
        with contextlib.suppress(OSError):  # the client has disconnected, and `receive()` tells the application
            await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def _discard(_: Message) -> None:
    """Send nothing: the response was broken off."""
