"""One connection to Redis: commands go out in one write for each turn of the loop, and replies come in their order.

Whoever asked may be cancelled: the reply finds its place in the queue all the same, and is dropped. After a timeout or
a broken protocol nobody knows which reply is whose, so that the connection is never used again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, cast

from ._resp import NOT_ENOUGH, PIECE, PUSH, Argument, ProtocolError, new_reader, pack

OnReply = Callable[[Any], None]


class LinkLostError(Exception):
    """The connection ended before the reply came; `sent` says whether the server may have the command."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        """Say why."""
        super().__init__(reason)
        self.sent = sent


def _ignore(what: object) -> None:
    """Do nothing."""


class Link(asyncio.Protocol):
    """A connection that is shared by everybody in this process.

    Attributes:
        lost: Why it ended, or None.
        heard: When something arrived last, on the clock of the event loop.
        closed: Done when the socket is closed.
        on_lost: Called once, with the reason, when the connection ends.
    """

    def __init__(self, timeout: float, on_push: Callable[[list[Any]], None] | None = None) -> None:
        """Prepare for a transport.

        Args:
            timeout: Seconds that a reply may take, and each part of a long one.
            on_push: Called with each message that is no reply, in its place between the replies.
        """
        self.lost: str | None = None
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.on_lost: Callable[[str], None] = _ignore
        self._timeout = timeout
        self._on_push = on_push or _ignore
        self._reader = new_reader()
        self._waiting: deque[tuple[float, OnReply]] = deque()
        self._unsent: list[bytes] = []
        self._fresh = 0  # how many of those that wait have a command that is not sent
        self._alarm: asyncio.TimerHandle | None = None
        self.heard = 0.0
        self._retired = False
        self._transport: asyncio.Transport | None = None

    # Asking

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send a command; the future has its reply, or raises ReplyError or LinkLostError."""
        future = self._loop.create_future()
        self.request(partial(_settle, future), *arguments)
        return future

    def request(self, on_reply: OnReply, *arguments: Argument) -> None:
        """Send a command, and call back at its reply's place in what arrives; the reply may be an exception."""
        if self.lost is not None:
            on_reply(LinkLostError(self.lost, sent=False))
            return
        self._waiting.append((self._loop.time() + self._timeout, on_reply))
        self._fresh += 1
        self.post(*arguments)
        if self._alarm is None:
            # Not in this context, that of one request: under load it arms itself again and again.
            self._alarm = self._loop.call_later(self._timeout, self._watch, context=Context())

    def post(self, *arguments: Argument) -> None:
        """Send a command that is answered by pushes."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pack(arguments))

    def _flush(self) -> None:
        if self.lost is None and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._fresh = 0

    def _watch(self) -> None:
        """Look at the oldest question: its reply is the next one, or is arriving."""
        self._alarm = None
        if self._waiting:
            delay = max(self._waiting[0][0], self.heard + self._timeout) - self._loop.time()
            if delay <= 0:
                self.close(f"no answer within {self._timeout:g} s")
            else:
                self._alarm = self._loop.call_later(delay, self._watch, context=Context())

    # The end

    def retire(self) -> None:
        """End once everything that was asked is answered."""
        self._retired = True
        if not self._waiting:
            self.close("it is not needed any more")

    def close(self, reason: str) -> None:
        """End at once; whoever still waits gets a LinkLostError."""
        if self.lost is not None:
            return
        self.lost = reason
        self._on_push = _ignore
        if self._alarm is not None:
            self._alarm.cancel()
        waiting, self._waiting = self._waiting, deque()
        sent = len(waiting) - self._fresh
        for number, (_, on_reply) in enumerate(waiting):
            on_reply(LinkLostError(reason, sent=number < sent))
        if self._transport is None:
            self.closed.set_result(None)
        else:
            self._transport.abort()
        self.on_lost(reason)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand out everything that is complete."""
        self.heard = self._loop.time()
        reader = self._reader
        try:
            for start in range(0, len(data), PIECE):
                reader.feed(data[start : start + PIECE])
                while (reply := reader.gets()) is not NOT_ENOUGH:
                    if type(reply) is PUSH:
                        self._on_push(reply)
                    elif self._waiting:
                        self._waiting.popleft()[1](reply)
                    else:
                        self.close(f"an answer to no question: {reply!r:.100}")
                        return
        except ProtocolError as error:
            self.close(f"it does not speak RESP: {error}")
        if self._retired and not self._waiting:
            self.close("it is not needed any more")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self.close(f"the connection was lost: {exc}" if exc else "the server closed the connection")
        self.closed.set_result(None)


def _settle(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)
