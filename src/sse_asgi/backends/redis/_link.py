"""One connection to Redis: the commands of one turn of the event loop share a write, and replies come in their order.

A caller may be cancelled: its reply still takes its place in the queue, and is dropped. After a timeout or a protocol
error the link cannot tell which reply belongs to which command, so that the connection is never used again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, cast

from ._resp import NOT_ENOUGH, PIECE, PUSH, Argument, ProtocolError, new_reader, pack

OnReply = Callable[[Any], None]
NOT_NEEDED = "it is not needed any more"


class LinkLostError(Exception):
    """The connection ended before the reply came; `sent` is False if the server cannot have the command."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.sent = sent


def _ignore(_: object) -> None:
    """Do nothing."""


class Link(asyncio.Protocol):
    """A connection that all tasks of this process share.

    Attributes:
        lost: The reason why the connection ended, or None.
        heard: The time of the last bytes that arrived, on the clock of the event loop.
        closed: A future that is done when the socket is closed.
        on_lost: Called once, with the reason, when the connection ends.
    """

    def __init__(self, timeout: float, on_push: Callable[[list[Any]], None] | None = None) -> None:
        """Prepare for a transport.

        Args:
            timeout: Seconds that a reply may take, and each part of a long reply.
            on_push: Called with each message that is not a reply, in its place between the replies.
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
        self._fresh = 0  # how many waiting commands are not sent yet
        self._alarm: asyncio.TimerHandle | None = None
        self.heard = 0.0
        self._retired = False
        self._transport: asyncio.Transport | None = None

    # Commands

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Send a command. The future returns its reply, or raises ReplyError or LinkLostError."""
        future = self._loop.create_future()
        self.request(partial(_settle, future), *arguments)
        return future

    def request(self, on_reply: OnReply, *arguments: Argument) -> None:
        """Send a command, and call back when its reply is read, in order. The reply may be an exception."""
        if self.lost is not None:
            on_reply(LinkLostError(self.lost, sent=False))
            return
        self._waiting.append((self._loop.time() + self._timeout, on_reply))
        self._fresh += 1
        self.post(*arguments)
        if self._alarm is None:
            # An empty context: under load this timer re-arms itself, and would keep the variables of one request alive.
            self._alarm = self._loop.call_later(self._timeout, self._watch, context=Context())

    def post(self, *arguments: Argument) -> None:
        """Send a command whose answers are pushes."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pack(arguments))

    def _flush(self) -> None:
        if self.lost is None and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()
        self._fresh = 0

    def _watch(self) -> None:
        """Close the link if the reply to the oldest command is late, and nothing of it has arrived."""
        self._alarm = None
        if self._waiting:
            delay = max(self._waiting[0][0], self.heard + self._timeout) - self._loop.time()
            if delay <= 0:
                self.close(f"no answer within {self._timeout:g} s")
            else:
                self._alarm = self._loop.call_later(delay, self._watch, context=Context())

    # The end

    def retire(self) -> None:
        """Close the link when every command has its reply."""
        self._retired = True
        if not self._waiting:
            self.close(NOT_NEEDED)

    def close(self, reason: str) -> None:
        """Close the link at once. Commands without a reply fail with LinkLostError."""
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

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand out every complete reply and push."""
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
                        self.close(f"a reply without a command: {reply!r:.100}")
                        return
        except ProtocolError as error:
            self.close(f"it does not speak RESP: {error}")
        if self._retired and not self._waiting:
            self.close(NOT_NEEDED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the commands that have no reply."""
        self.close(f"the connection was lost: {exc}" if exc else "the server closed the connection")
        self.closed.set_result(None)


def _settle(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():
        return
    if isinstance(reply, Exception):
        future.set_exception(reply)
    else:
        future.set_result(reply)
