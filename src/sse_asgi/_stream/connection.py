"""Connection: one stream's life, from the request to the cleanup.

The server's own task runs the connection. It writes, and sleeps when there is nothing to write. These wake it: the feed
(it has something to send), the content's task (it has ended), the watcher of `receive()` (the client has disconnected),
the deadlines (a ping, a stalled send, the lifetime), the shutdown notice. Each of them sets a field and the wake-up.
None of them waits, and none of them sends except through a writer that rests (`writer.py`).

A connection goes through these states, and never back:

    OPEN      Nothing ends the stream. The head is sent with the first bytes.
    ENDING    The reason is known. The connection's task sends the pending bytes, for DRAIN_SECONDS at most. No other
              task sends.
    LOST      The client has disconnected, or does not read. Nothing more is sent. A send that waits for the client has
              RETURN_SECONDS to return by itself, and is broken off then.
    CLOSING   The content is cancelled once. The last words and the final body are sent, unless the connection was
              LOST before its head, or the body has to stay incomplete (`ending.py`). Then the cleanup is awaited, and
              then the background task runs.

    OPEN -> ENDING           end(): the feed has ended or failed, the lifetime is over, the server stops and the
                             `drain_timeout` is over
    OPEN, ENDING -> LOST     _lose(): `receive()` reports a disconnect, or a send takes longer than `send_timeout`
    any -> CLOSING           _leave(): nothing is left to write, or the task was cancelled, or a send raised

A subscription's head goes out when the subscription has joined its hub, so that a client that has seen the head misses
nothing that is published later. An iterable's head waits for its first event, end or error, or for `start_timeout`: an
exception in that time becomes an error response. After the cleanup and the background task, the content's exception, if
there is one, is raised. Each step of the end has a time limit. The shutdown notice counts the stream until then, and
the middleware delays `lifespan.shutdown` until no stream is left, for ten seconds at most.
"""

import logging
import math
import time
from enum import Enum
from functools import partial

import anyio
from starlette.background import BackgroundTask
from starlette.types import Message, Receive, Scope, Send

from .._log.logged import about, named, one_line
from .._loop.running import checkpoint
from .._loop.tasks import Child, spawn
from .._loop.timer import SHUTDOWN_SECONDS
from .._loop.wakeup import new_wakeup
from .._servers.abort import RETURN_SECONDS
from .._servers.shutdown import current_notice
from .content import Content
from .deadlines import Deadlines
from .ending import Ending, run_background
from .feeds import Feed, reader_of_body
from .guarded import cut_off, hand_over, watch_again
from .terms import Terms
from .upload import behind_no_body, watch_client
from .writer import Writer

logger = logging.getLogger("sse_asgi.stream")

DRAIN_SECONDS = 0.25


class State(Enum):
    """The state of a connection; the head of this module says what may happen in each."""

    OPEN = 1
    ENDING = 2
    LOST = 3
    CLOSING = 4


OPEN, ENDING, LOST, CLOSING = State


class Connection:
    """One stream from its first byte to its last.

    Attributes:
        state: See the head of this module.
        reason: The reason why the stream ends, one of EventSourceResponse's; None while it is open.
    """

    __slots__ = (
        "_aborted",
        "_content",
        "_deadlines",
        "_final_id",
        "_may_drain",
        "_notice",
        "_receive",
        "_rest",
        "_scope",
        "_terms",
        "_wakeup",
        "_watcher",
        "_writer",
        "reason",
        "state",
    )

    def __init__(
        self, feed: Feed, terms: Terms, scope: Scope, receive: Receive, send: Send, *, head: Message, final_id: bool
    ) -> None:
        """Prepare. Nothing is sent, and the content is not touched."""
        self.state = OPEN
        self.reason: str | None = None
        self._aborted = self._may_drain = False
        self._terms, self._final_id = terms, final_id
        self._scope, self._receive = scope, receive
        self._wakeup = new_wakeup()
        self._notice = current_notice()
        self._writer = Writer(feed, head, terms.greeting, send, self._wakeup)
        self._content = Content(feed, scope, self._wakeup)
        self._watcher: Child | None = None

    async def run(self, background: BackgroundTask | None) -> None:
        """Stream until the content, the client, the server or a limit ends it; clean up; run the background task.

        A stream that waits for the first time may go to the middleware. This returns then, and runs there once more.

        Raises:
            Exception: The content's exception.
        """
        writer, feed = self._writer, self._writer.feed
        may_move = self._begin()
        try:
            await self._join()
            while True:
                await writer.write(self._content.error is None)
                if feed.ended or self._content.error:
                    self._conclude()
                if self.state is not OPEN:
                    break
                if feed.needs_run:
                    self._content.fetch()
                writer.rest()
                if may_move and not self._content.runs:
                    may_move = False
                    if hand_over(self._scope, partial(self.run, background)):
                        return
                await self._wakeup  # an idle connection waits here, in this one frame
                writer.rests = False
        except OSError:  # some servers raise it from send when the client has disconnected
            self.reason = "client"
        except BaseException as error:
            self.reason = self.reason or ("error" if isinstance(error, Exception) else "shutdown")
            await self._leave(background, self._terms.cleanup_timeout)
            raise
        await self._leave(background)
        self._raise_failure()

    def _raise_failure(self) -> None:
        if (failure := self._content.error) is None:
            return
        if self._writer.started:  # else it becomes an error response, like the exception of any endpoint
            extra = about("stream_failed", self._scope, self._writer.feed.channels)
            told = "the content of the stream %s failed: %s"
            logger.error(told, named(self._scope), one_line(repr(failure)), extra=extra)
        raise failure

    def _begin(self) -> bool:
        """Watch the clock, the server and the client; return False if this was done before the stream moved."""
        if self._watcher is not None:
            return False
        self._deadlines = Deadlines(self, self._writer, self._terms)
        drain = self._terms.drain_timeout
        self._notice.listen(self._on_shutdown, self._scope, drain=drain)
        self._may_drain = drain > 0  # from now on: a stream that begins while the server stops ends at once
        content = reader_of_body(self._writer.feed)
        self._receive = behind_no_body(self._receive)  # no stream but one that reads the body needs more
        self._watcher = watch_client(self._scope, self._receive, self, content, self._deadlines.timer)
        return True

    async def _join(self) -> None:
        """Delay the head, for `start_timeout` at most, until the client misses nothing that is published later."""
        if self._writer.feed.immediate and not self._writer.started:
            if self.state is OPEN:
                self._content.fetch()
            await checkpoint()
            while not (self._writer.feed.joined or self._writer.ping_due or self.reason or self._content.error):
                await self._wakeup
            self._writer.ping_due = True

    def _conclude(self) -> None:
        """End for the reason for which the feed has ended."""
        if self._writer.feed.ended == "client":
            self._lose("client")
        else:
            self.end(self._writer.feed.ended or "error")

    # What can happen meanwhile

    def end(self, reason: str) -> None:
        """Send the pending bytes, then end the stream."""
        self.reason = self.reason or reason
        if self.state is OPEN:
            self.state = ENDING
            self._writer.stop(time.monotonic() + DRAIN_SECONDS)
            self._wakeup.set()

    def gone(self, error: Exception | None) -> None:
        """End because the client has disconnected, or because receive() has failed."""
        if error is not None and not isinstance(error, OSError):
            told = "receive() failed, so the stream %s ends as if its client had disconnected"
            logger.error(told, named(self._scope), exc_info=error, extra=about("receive_failed", self._scope))
        self._lose("client")

    def cut_off(self) -> None:
        """Give up a client that does not read, and abort its connection if the server allows it."""
        if self.state is not CLOSING:
            self._lose("slow")
            self._abort()

    def _lose(self, reason: str) -> None:
        if self.state in (OPEN, ENDING):
            self.state = LOST
            self.reason = reason if reason == "client" else self.reason or reason
            self._writer.stop(0.0)
            self._wakeup.set()
            if self._writer.sending:
                self._deadlines.timer.limit(RETURN_SECONDS, self._writer.give_up)

    def _on_shutdown(self) -> None:
        if self._may_drain and self.state is OPEN:
            self._may_drain = False
            self._deadlines.drain(self._on_shutdown)
        elif self.state is not CLOSING:
            self.end("shutdown")
            self._deadlines.stop()
            self._deadlines.timer.limit(SHUTDOWN_SECONDS, self.cut_off)

    def _abort(self) -> None:
        """Abort the connection, once: later its address may be another connection's."""
        if not self._aborted:
            self._aborted = True
            cut_off(self._scope, self._receive, self._deadlines.timer)

    # The end

    async def _leave(self, background: BackgroundTask | None, patience: float = math.inf) -> None:
        """Close and clean up, in spite of any cancellation; after one, the background task has `patience` seconds."""
        self.state = CLOSING
        self._writer.rests = False
        self._deadlines.stop()
        parts = self._writer, self._content, self._terms, self._notice
        request = self._scope, self._receive
        ending = Ending(*parts, request, final_id=self._final_id)
        try:
            with anyio.CancelScope(shield=True):
                await ending.close(self.reason, self._abort)
        except BaseException:
            # A cancellation of asyncio's own, which no shield keeps out: another task finishes the cleanup.
            self._rest = spawn(ending.clean_up, self._forget)
            raise
        finally:
            assert self._watcher is not None
            self._watcher.cancel()
        try:
            # Else the exception becomes an error response.
            if background is not None and (self._writer.started or self._content.error is None):
                with self._deadlines.timer.move_on_after(patience, shield=patience < math.inf):
                    await run_background(background, self._scope)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._notice.unlisten(self._on_shutdown)
        watch_again(self._scope, self.reason)  # an exception handler may answer now
