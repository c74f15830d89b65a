"""One connection's life: the one write loop, and everything that can end it.

The server's own task writes; a watcher owns `receive()`; another task runs while there is content to fetch. Whoever has
news sets a field and wakes the writer. Only the writer sends, or, while it rests, whoever brings an event that it would
send as it is; a send that has to wait is the writer's again.
"""

import logging
import math
import random
import time
from collections.abc import Callable

import anyio
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from ._abort import RETURN_SECONDS
from ._direct import Unsent, current_turn, may_be_direct, past_guards, send_now, watch
from ._ending import last_words, run_background
from ._feeds import Feed
from ._options import Terms
from ._runtime import Alarm, Child, checkpoint, new_interrupt, new_wakeup, shared_timer, spawn
from ._shutdown import current_notice
from ._subscription import PING

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
    """

    __slots__ = (
        "_abort",
        "_alarm",
        "_begun",
        "_child",
        "_drained",
        "_ends",
        "_feed",
        "_final_id",
        "_gone",
        "_head",
        "_interrupt",
        "_last",
        "_notice",
        "_ping_due",
        "_receive",
        "_rest",
        "_resting",
        "_scope",
        "_send",
        "_sending",
        "_stopping",
        "_terms",
        "_timer",
        "_turn",
        "_unsent",
        "_wakeup",
        "error",
        "reason",
        "started",
    )

    def __init__(
        self,
        feed: Feed,
        terms: Terms,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        head: Message,
        abort: Callable[[], None],
        final_id: bool,
    ) -> None:
        """Prepare; nothing is sent, and the content is not touched."""
        self.started = False
        self.error: Exception | None = None
        self._feed = feed
        self._terms = terms
        self._head = head
        self._final_id = final_id
        self._scope = scope
        self._receive = receive
        self._abort = abort
        self._send = past_guards(send)
        self._wakeup = new_wakeup()
        self._notice = current_notice()
        self._interrupt = new_interrupt()
        self._child: Child | None = None
        self._stopping = self._gone = False
        self._drained = math.inf
        self.reason: str | None = None
        self._sending = False
        self._unsent: Unsent | None = None
        self._turn = current_turn() if may_be_direct(send) else None
        self._resting = False
        self._ping_due = False
        self._begun = self._last = time.monotonic()
        lifetime = math.inf if terms.max_lifetime is None else terms.max_lifetime
        self._ends = self._begun + lifetime * random.uniform(0.8, 1.2)  # noqa: S311 - a spread, not a secret
        self._timer = shared_timer()
        self._alarm = Alarm()

    async def run(self, background: BackgroundTask | None) -> None:
        """Stream until the content, the client, the server or a limit ends it; clean up; then do the background task.

        Raises:
            Exception: What the content raised.
        """
        self._feed.attach(self)
        self._look_again(self._begun)
        self._notice.listen(self._on_shutdown)
        watcher = watch(self._receive, self._on_gone)
        try:
            with self._interrupt:
                await self._write()
        except OSError:  # what some servers raise from send when the client has gone
            self.reason = "client"
            await self._leave(watcher, background, None)
        except BaseException as error:
            self.reason = self.reason or ("error" if isinstance(error, Exception) else "shutdown")
            await self._leave(watcher, background, self._terms.cleanup_timeout)
            raise
        else:
            await self._leave(watcher, background, None)
        if self.error is not None:
            if self.started:  # else it becomes an error response, as any endpoint's
                logger.error("the content of the stream %s failed: %r", self._route, self.error)
            raise self.error

    # Writing

    async def _write(self) -> None:
        """Send what is there, then wait for a wake-up: whoever changes anything that is looked at here sets one."""
        await self._join()
        feed, wakeup, send = self._feed, self._wakeup, self._send
        while not self._gone:
            while not self._gone and (body := feed.take()):
                if self.started:  # the same as in _emit, without a coroutine for each event
                    self._begin_send()
                    await send({"type": "http.response.body", "body": body, "more_body": True})
                    self._sending = False
                else:
                    await self._emit(body)
                if len(body) > CHECKPOINT_BYTES:
                    await checkpoint()
                if self.reason and time.monotonic() >= self._drained:
                    break
            if self.reason or feed.ended or self.error:
                self._end(feed.ended or "error")
                break
            if self._ping_due:
                await self._emit(feed.ping() if self.started else b"")
            if feed.hungry:
                self._fetch()
            self._resting = self.started
            await wakeup
            self._resting = False
            if self._unsent is not None:
                await self._unsent
                self._unsent = None
                self._sending = False

    def set(self) -> bool:
        """Hear that the feed has news: send it at once where that takes no waiting, else wake the writer."""
        begun = False
        turn = self._turn
        if turn is not None and turn.direct and self._resting and not self._gone and (body := self._feed.take_plain()):
            self._begin_send()
            self._unsent = send_now(self._send({"type": "http.response.body", "body": body, "more_body": True}))
            if self._unsent is None:
                self._sending = False
                return False
            self._resting, begun = False, True
        self._wakeup.set()
        return begun

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
        self._sending = True
        self._ping_due = False
        self._last = time.monotonic()

    async def _emit(self, body: bytes) -> None:
        """Send one body, behind the head and the greeting when it is the first."""
        self._begin_send()
        if not self.started:
            self.started = True
            head, self._head = self._head, {}  # one of these for each idle connection would be a quarter kilobyte
            await self._send(head)
            body = (self._terms.greeting + body) or PING
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._sending = False

    @property
    def _route(self) -> str:
        return f"{self._scope['method']} {self._scope.get('path')}"

    # What can happen meanwhile

    def _on_gone(self, error: Exception | None) -> None:
        if error is not None and not isinstance(error, OSError):
            told = "receive() failed: the client of the stream %s is taken to have gone"
            logger.error(told, self._route, exc_info=error)
        self._lose("client")

    async def _run_feed(self) -> None:
        try:
            await self._feed.run()
        except Exception as error:
            if self._stopping:
                logger.exception("the content of the stream %s failed while it was cleaned up", self._route)
            else:
                self.error = error
        except BaseException:
            if not self._stopping:
                self.error = RuntimeError("it was cancelled from within")
            raise

    def _feed_done(self) -> None:
        self._child = None
        self._wakeup.set()

    def _on_shutdown(self) -> None:
        if not self._stopping:
            self._end("shutdown")
            self._alarm.cancel()
            self._alarm = self._timer.after(SHUTDOWN_SECONDS, self._cut)

    def _watch_clock(self) -> None:
        """See what is due, and look again when something can be due next."""
        terms, now = self._terms, time.monotonic()
        if self._sending and terms.send_timeout is not None and now >= self._last + terms.send_timeout:
            self._cut()
            return
        if not self._sending and now >= self._silence_ends():
            self._ping_due = True
            self._wakeup.set()
        if now >= self._ends:
            self._end("lifetime")
            self._ends = math.inf
        self._look_again(now)

    def _silence_ends(self) -> float:
        if not self.started:
            return self._begun + self._terms.start_timeout
        return math.inf if self._terms.ping_interval is None else self._last + self._terms.ping_interval

    def _look_again(self, now: float) -> None:
        terms = self._terms
        looks = [self._ends]
        if terms.send_timeout is not None:
            looks.append((self._last if self._sending else now) + terms.send_timeout)
        if self._sending or self._ping_due or not self.started:
            looks.append(now + (terms.ping_interval or math.inf))
        if not self._sending and not self._ping_due:
            looks.append(self._silence_ends())
        if min(looks) < math.inf:
            self._alarm = self._timer.after(min(looks) - now, self._watch_clock)

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._drained = time.monotonic() + DRAIN_SECONDS
        self._wakeup.set()

    def _lose(self, reason: str) -> None:
        """Write no more to a client that has gone, or will be; a send that waits for it may return by itself."""
        if self._stopping or self._gone:
            return
        self._gone = True
        self.reason = reason if reason == "client" else self.reason or reason
        self._wakeup.set()
        if self._sending:
            self._timer.after(RETURN_SECONDS, self._interrupt.cancel)

    def _cut(self) -> None:
        """Give up a client that does not read, and close its connection where the server lets us."""
        self._lose("slow")
        self._abort()

    # The end

    async def _leave(self, watcher: Child, background: BackgroundTask | None, patience: float | None) -> None:
        """Close and clean up, whoever cancels; a background task in spite of a cancellation has so many seconds."""
        self._stopping = True
        self._alarm.cancel()
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
                with anyio.move_on_after(patience, shield=patience is not None):
                    await run_background(background, self._route)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._notice.unlisten(self._on_shutdown)

    async def _close(self) -> None:
        if self._unsent is not None:
            self._unsent.close()
        if self._child is not None:
            self._child.cancel()
        if self.started or self.reason in ("finished", "shutdown", "lifetime", "revoked"):
            with anyio.move_on_after(FAREWELL_SECONDS) as limit:
                await self._part()
            if limit.cancelled_caught:
                self._abort()
        await self._clean_up()

    async def _part(self) -> None:
        ended = self.reason, self.error, self._notice, self._terms.on_error
        tail = b"" if self._sending else last_words(*ended, final_id=self._final_id, route=self._route)
        try:
            if tail or not self.started:
                await self._emit(tail)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            pass
        except Exception:
            logger.exception("the end of the stream %s could not be sent", self._route)

    async def _clean_up(self) -> None:
        with anyio.move_on_after(self._terms.cleanup_timeout):
            while self._child is not None:
                await self._wakeup
        if self._child is not None:
            seconds = self._terms.cleanup_timeout
            logger.warning("the content of the stream %s took more than %s s to clean up", self._route, seconds)
            self._child.cancel()
        await self._feed.close()
