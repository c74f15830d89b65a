"""One connection's life: the one write loop, and everything that can end it.

The server's own task writes; a watcher owns `receive()`; another task runs while there is content to fetch. Whoever has
news sets a field and wakes the writer. Only the writer sends, or, while it rests, whoever brings an event that it would
send as it is; a send that has to wait is the writer's again.
"""

import logging
import math
import random
import time
from typing import Any

import anyio
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from .._hub.options import Terms
from .._hub.subscription import PING
from .._log.logged import named, one_line
from .._loop.runtime import (
    Child,
    Interrupt,
    Moment,
    checkpoint,
    current_task,
    new_interrupt,
    new_wakeup,
    shared_timer,
    spawn,
)
from .._servers.abort import RETURN_SECONDS
from .._servers.burst import current_burst
from .._servers.direct import Unsent, may_be_direct, past_guards
from .._servers.shutdown import current_notice
from .ending import last_words, run_background
from .feeds import Feed, reader_of_body
from .guard import cut_off, watch_again
from .upload import watch_client

logger = logging.getLogger("sse_asgi")

CHECKPOINT_BYTES = 16 * 1024
SHUTDOWN_SECONDS = 0.5
DRAIN_SECONDS = 0.25
FAREWELL_SECONDS = 0.4


class Connection:
    """One stream from its first byte to its last.

    Attributes:
        started: Whether the response head was sent.
        error: What the content raised, or None.
        reason: Why the stream ends, as EventSourceResponse says it; None while it runs.
        rests: Whether the writer has nothing to do, and others may send what they would make it send.
        stopping: Whether the stream is over, and its content is being cleaned up.
    """

    __slots__ = (
        "_burst",
        "_child",
        "_direct",
        "_drained",
        "_ends",
        "_feed",
        "_final_id",
        "_gone",
        "_head",
        "_interrupt",
        "_last",
        "_looked",
        "_moment",
        "_notice",
        "_ping_due",
        "_receive",
        "_rest",
        "_scope",
        "_send",
        "_sending",
        "_task",
        "_terms",
        "_timer",
        "_unsent",
        "_wakeup",
        "error",
        "reason",
        "rests",
        "started",
        "stopping",
    )

    def __init__(
        self, feed: Feed, terms: Terms, scope: Scope, receive: Receive, send: Send, *, head: Message, final_id: bool
    ) -> None:
        """Prepare; nothing is sent, and the content is not touched."""
        self.started = self.rests = False
        self.error: Exception | None = None
        self._feed, self._terms, self._final_id = feed, terms, final_id
        self._head: Any = head
        self._scope, self._receive, self._send = scope, receive, past_guards(send)
        self._wakeup = new_wakeup()
        self._notice, self._task = current_notice(), current_task()
        self._interrupt: Interrupt | None = None
        self._child: Child | None = None
        self.stopping = self._gone = self._sending = self._ping_due = False
        self._drained = self._looked = math.inf
        self.reason: str | None = None
        self._unsent: Unsent | None = None
        self._burst, self._direct = current_burst(), may_be_direct(send)
        self._last = time.monotonic()
        lifetime = terms.max_lifetime * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret
        self._ends = min(math.inf, self._last + lifetime)  # one infinity for all
        self._timer, self._moment = shared_timer(), Moment()

    async def run(self, background: BackgroundTask | None) -> None:
        """Stream until the content, the client, the server or a limit ends it; clean up; then do the background task.

        Raises:
            Exception: What the content raised.
        """
        self._feed.attach(self)
        self._look_again(self._last + self._terms.start_timeout, self._last)
        self._notice.listen(self._on_shutdown, self._scope)
        watcher = watch_client(self._scope, self._receive, self, reader_of_body(self._feed))
        try:
            await self._join()
            while await self._write():  # which leaves no frame of its own to an idle connection
                self.rests = self._direct and self.started
                await self._wakeup
                self.rests = False
        except OSError:  # what some servers raise from send when the client has gone
            self.reason = "client"
        except BaseException as error:
            self.reason = self.reason or ("error" if isinstance(error, Exception) else "shutdown")
            await self._leave(watcher, background, self._terms.cleanup_timeout)
            raise
        await self._leave(watcher, background)
        if self.error is not None:
            if self.started:  # else it becomes an error response, as any endpoint's
                logger.error("the content of the stream %s failed: %s", named(self._scope), one_line(repr(self.error)))
            raise self.error

    # Writing

    async def _write(self) -> bool:
        """Send what is there, and return whether to go on; whoever changes what is looked at here sets the wake-up."""
        feed = self._feed
        with new_interrupt(self._task) as self._interrupt:
            if self._unsent is not None:
                await self._unsent
                self._unsent, self._sending = None, False
            while not self._gone:
                body = feed.take()
                if body and self.started:  # the same as in _emit, without a coroutine for each event
                    self._begin_send()
                    await self._send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sending = False
                elif body or (self._ping_due and not (self.reason or feed.ended or self.error)):
                    await self._emit(body or (feed.ping() if self.started else b""))
                else:
                    break
                if len(body) > CHECKPOINT_BYTES:
                    await checkpoint()
                if self.reason and time.monotonic() >= self._drained:
                    break
        self._interrupt = None
        if self.reason or feed.ended or self.error:
            self._end(feed.ended or "error")
        elif feed.hungry:
            self._fetch()
        return self.reason is None

    def set(self) -> None:
        """Wake the writer."""
        self._wakeup.set()

    def carry(self) -> bool:
        """Send the event that is being delivered, if it is to be sent at once and the writer rests."""
        burst = self._burst
        if burst.message is None or not self.rests:
            return False
        self.pass_on(burst.message, burst.now)
        return True

    def note(self) -> None:
        """Hear of an event that others may send, and join with those that follow."""
        if self._direct and self._burst.gathering:
            self._burst.note(self)
        elif self.rests:
            self.flush()
        else:
            self._wakeup.set()

    def flush(self) -> None:
        """Send what waits for others, if that needs no waiting."""
        if body := self.take():
            self.send_now(body)

    def take(self) -> bytes:
        """Take what is to be sent by whoever asks, if the writer rests and need not do it itself."""
        if self.rests and (body := self._feed.take_plain() or (self._feed.ping() if self._ping_due else b"")):
            return body
        self._wakeup.set()
        return b""

    def send_now(self, body: bytes) -> bool:
        """Send this while the writer rests; False if that takes waiting, which the writer does."""
        return self.pass_on({"type": "http.response.body", "body": body, "more_body": True}, time.monotonic())

    def pass_on(self, message: Message, now: float) -> bool:
        """Send a message while the writer rests, which goes on with it if that takes waiting."""
        self._ping_due, self._last = False, now
        self._unsent = self._burst.sender.send(self._send, message)
        if self._unsent is None:
            return True
        self._sending, self.rests = True, False
        self._wakeup.set()
        return False

    async def _join(self) -> None:
        """Wait, for `start_timeout` at most: whoever has seen the head misses nothing that is published afterwards."""
        if self._feed.immediate:
            self._fetch()
            await checkpoint()
            while not (self._feed.joined or self._ping_due or self.reason or self.error):
                await self._wakeup
            self._ping_due = True

    def _fetch(self) -> None:
        if self._child is None and self.reason is None:
            self._child = spawn(self._run_feed, self._feed_done)

    def _begin_send(self) -> None:
        self._sending, self._ping_due = True, False
        self._last = time.monotonic()

    async def _emit(self, body: bytes) -> None:
        """Send one body, behind the head and the greeting when it is the first."""
        self._begin_send()
        if not self.started:
            self.started = True
            await self._send(self._head)
            self._head = None  # one of these for each idle connection would be a quarter kilobyte
            body = (self._terms.greeting + body) or PING
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._sending = False

    # What can happen meanwhile

    def gone(self, error: Exception | None) -> None:
        """Hear that the client has gone, or that receive() has failed."""
        if error is not None and not isinstance(error, OSError):
            told = "receive() failed: the client of the stream %s is taken to have gone"
            logger.error(told, named(self._scope), exc_info=error)
        self._lose("client")

    async def _run_feed(self) -> None:
        try:
            if self._feed.hungry:  # else it was ended before this task began
                await self._feed.run()
        except Exception as error:
            if self.stopping:
                logger.exception("the content of the stream %s failed while it was cleaned up", named(self._scope))
            else:
                self.error = error
        except BaseException:
            if not self.stopping:
                self.error = RuntimeError("it was cancelled from within")
            raise

    def _feed_done(self) -> None:
        self._child = None
        self._wakeup.set()

    def _on_shutdown(self) -> None:
        if not self.stopping:
            self._end("shutdown")
            self._moment.pop(self, None)
            self._timer.limit(SHUTDOWN_SECONDS, self._cut)

    def ring(self, now: float) -> None:
        """See what is due, and look again when something can be due next."""
        if now >= self._ends:
            self._end("lifetime")
            self._ends = math.inf
        terms, sending = self._terms, self._sending
        patience = terms.send_timeout if sending else terms.ping_interval if self.started else terms.start_timeout
        over = self._last + patience
        if now < over:
            self._look_again(over, now)
        elif (sending or not self.started) and self._looked != self._last:
            # If the event loop was blocked, the client has read, or the content is there, and it was not seen yet.
            self._looked = self._last
            self._moment = self._timer.owe_again(self, patience, now)
        elif sending:
            self._cut()
        else:
            self._ping_due = True
            self.flush()
            self._look_again(math.inf, now)

    def _look_again(self, silence_ends: float, now: float) -> None:
        """Look when something can be due: what is sent from now on moves that, and is not waited for."""
        stalled = (self._last if self._sending else now) + self._terms.send_timeout
        due = min(self._ends, silence_ends, stalled, now + self._terms.ping_interval)
        self._moment = self._timer.owe(self, due, now)

    def _end(self, reason: str) -> None:
        self.reason, self.rests = self.reason or reason, False
        self._drained = time.monotonic() + DRAIN_SECONDS
        self._wakeup.set()

    def _lose(self, reason: str) -> None:
        """Write no more to a client that has gone, or will be; a send that waits for it may return by itself."""
        if self.stopping or self._gone:
            return
        self._gone, self.rests = True, False
        self.reason = reason if reason == "client" else self.reason or reason
        self._wakeup.set()
        if self._sending:
            self._timer.limit(RETURN_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self._interrupt is not None:
            self._interrupt.cancel()

    def _cut(self) -> None:
        """Give up a client that does not read, and close its connection where the server lets us."""
        if not self.stopping:
            self._lose("slow")
            cut_off(self._scope, self._receive, self._timer)

    # The end

    async def _leave(self, watcher: Child, background: BackgroundTask | None, patience: float = math.inf) -> None:
        """Close and clean up, whoever cancels; a background task in spite of a cancellation has so many seconds."""
        self.stopping, self.rests = True, False
        self._moment.pop(self, None)
        try:
            with anyio.CancelScope(shield=True):
                await self._close()
        except BaseException:
            # A cancellation that no shield keeps out, as asyncio's own: what is left is done by another task.
            self._rest = spawn(self._clean_up, self._forget)
            raise
        finally:
            watcher.cancel()
        try:
            if background is not None and (self.started or self.error is None):  # else it becomes an error response
                with self._timer.move_on_after(patience, shield=patience < math.inf):
                    await run_background(background, named(self._scope))
        finally:
            self._forget()

    def _forget(self) -> None:
        self._notice.unlisten(self._on_shutdown)
        watch_again(self._scope)  # for what an exception handler answers

    async def _close(self) -> None:
        if self._unsent is not None:
            self._unsent.close()
        if self._child is not None:
            self._child.cancel()
        if self.started or self.reason in ("finished", "shutdown", "lifetime", "revoked"):
            with self._timer.move_on_after(FAREWELL_SECONDS) as limit:
                await self._part()
            if limit.cancelled_caught:
                cut_off(self._scope, self._receive, self._timer)
        await self._clean_up()

    async def _part(self) -> None:
        ended = self.reason, self.error, self._notice, self._terms.on_error
        tail = b"" if self._sending else last_words(*ended, final_id=self._final_id, route=named(self._scope))
        try:
            if tail or not self.started:
                await self._emit(tail)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass
        except Exception:
            logger.exception("the end of the stream %s could not be sent", named(self._scope))

    async def _clean_up(self) -> None:
        with self._timer.move_on_after(self._terms.cleanup_timeout):
            while self._child is not None:
                await self._wakeup
        if self._child is not None:
            seconds = self._terms.cleanup_timeout
            logger.warning("the content of the stream %s took more than %s s to clean up", named(self._scope), seconds)
            self._child.cancel()
        await self._feed.close()
