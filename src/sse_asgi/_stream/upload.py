"""Sharing `receive()`: the content of a stream may read the request's body while the stream watches for a disconnect.

Both need `receive()`, which gives each message once. So:

- Without a body (most GETs) the client is watched at once. Below EventSourceMiddleware the content may still ask for
  the body. The watcher has taken the message that says that it is empty, so a NoBody gives the content this message
  again. Without the middleware that content waits until its client disconnects.
- With a body, below EventSourceMiddleware, an Upload is the only caller of `receive()`. It gives the content every byte
  that came, and tells the connection that the client has disconnected. To hear of that, it reads ahead: at most 64 KiB
  for a content that has begun to read, at most 4 MiB for one that has not and may never. If more than that waits to be
  read, a disconnect is noticed when the content reads on, or when a send fails.
- With a body, without the middleware, nothing is taken from `receive()` before the body has been read. The requests of
  uvicorn, of BaseHTTPMiddleware and of EventStreamClient tell when it has been read. The queue of hypercorn on asyncio
  and of daphne can be looked through. Elsewhere the client is watched from the content's first event on, or after five
  seconds without one, unless the body is larger than 64 KiB or of unknown length: then the content or a send has to
  notice a disconnect.
"""

import time
from functools import partial

import anyio
from starlette.types import Message, Receive, Scope

from .._loop.tasks import Child, spawn
from .._loop.timer import Alarm, Timer
from .._servers.known import look_at
from .._servers.server import Look
from .feeds import IterableFeed
from .watching import Endable, watch

KEY = "sse_asgi.upload"
AHEAD_BYTES = 64 * 1024
UNREAD_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.05
READ_SECONDS = 5.0


def own_receive(scope: Scope, receive: Receive) -> Receive:
    """Return the `receive` that the application calls, through which a stream shares the server's."""
    if KEY in scope or isinstance(receive, NoBody):  # an outer middleware's
        return receive
    if not _may_have_body(scope):
        return NoBody(receive)
    scope[KEY] = shared = Upload(receive)
    return shared


def watch_client(
    scope: Scope, receive: Receive, connection: Endable, content: IterableFeed | None, timer: Timer
) -> Child:
    """Tell the connection when its client has disconnected, and leave the body of the request to the content.

    Args:
        scope: The request's.
        receive: The one that the response was given.
        connection: Told of the disconnect.
        content: The content, which may read the body; None if nothing does, so that the body is discarded.
        timer: The event loop's.
    """
    if content is None or not _may_have_body(scope):
        return watch(receive, connection, timer.context)
    shared: Upload | None = scope.get(KEY)
    if shared is None:
        return _Patient(receive, connection, _look(scope, receive, content), timer)
    if shared.was_read:  # then a middleware in between may have messages of its own
        return watch(receive, connection, timer.context)
    return spawn(partial(shared.read_ahead, connection))


def _may_have_body(scope: Scope) -> bool:
    """Return True if the request has a body, or if its application may wait for the end of an empty one."""
    return scope["method"] not in ("GET", "HEAD") or _length(scope) != 0


def _length(scope: Scope) -> int | None:
    """Return the number of bytes of the body; None if the request does not say it."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value) if value.isdigit() else None
    return length


def behind_no_body(receive: Receive) -> Receive:
    """Return the server's own `receive` of a request without a body, to watch with; any other `receive` as it is."""
    return receive.behind() if isinstance(receive, NoBody) else receive


class NoBody:
    """The `receive` of a request without a body, whose first message the watcher may take from the server."""

    __slots__ = ("_receive", "_state")

    def __init__(self, receive: Receive) -> None:
        """Pass everything on until a stream watches."""
        self._receive = receive
        self._state = "untouched"

    async def __call__(self) -> Message:
        """Return the server's next message, or the empty body that the watcher has taken."""
        if self._state == "taken":
            self._state = "read"
            return {"type": "http.request", "body": b"", "more_body": False}
        self._state = "read"
        return await self._receive()

    def behind(self) -> Receive:
        """Return the server's own `receive`, to watch with."""
        if self._state == "untouched":
            self._state = "taken"
        return self._receive


class Upload:
    """The `receive` of a request with a body: calls the server's for the watcher too, and gives each byte once."""

    def __init__(self, receive: Receive) -> None:
        """Pass everything on until a stream watches."""
        self._receive = receive
        self._body = bytearray()
        self._unread = False  # True if a message waits to be read; its body may be empty
        self._complete = False
        self._limit = UNREAD_BYTES
        self._gone = False
        self._receiving = False
        self._changed = anyio.Event()

    @property
    def was_read(self) -> bool:
        """True if the application has read the whole body."""
        return self._complete and not self._unread

    async def __call__(self) -> Message:
        """Return everything that has arrived and was not read yet."""
        self._limit = AHEAD_BYTES
        while not (self._unread or self._gone):
            await self._next()
        if not self._unread:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._unread = False
        self._notify()
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def read_ahead(self, connection: Endable) -> None:
        """Keep arriving messages for the reader, and tell the connection when its client has disconnected."""
        error = None
        try:
            while not self._gone:
                if len(self._body) >= self._limit:
                    await self._changed.wait()
                else:
                    await self._next()
        except Exception as caught:  # noqa: BLE001 - handed on
            error = caught
            self._gone = True
            self._notify()
        connection.gone(error)

    async def _next(self) -> None:
        """Take one message. A server need not support two calls at a time, so wait for a call that is under way."""
        if self._receiving:
            await self._changed.wait()
            return
        self._receiving = True
        try:
            self._take(await self._receive())
        finally:
            self._receiving = False
            self._notify()

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._gone = True
        else:
            self._body += message.get("body", b"")
            self._complete = not message.get("more_body", False)
            self._unread = True

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def _look(scope: Scope, receive: Receive, content: IterableFeed) -> Look:
    """Return a function that takes no message: True if the client has gone, False if `receive()` may be called."""
    known = look_at(receive)
    if known is not None:
        return known
    length = _length(scope)
    small = length is not None and length <= AHEAD_BYTES
    latest = time.monotonic() + READ_SECONDS
    return lambda: False if small and (content.begun or time.monotonic() > latest) else None


class _Patient:
    """Looks now and then, and watches the client as soon as nothing else needs `receive()`."""

    def __init__(self, receive: Receive, connection: Endable, look: Look, timer: Timer) -> None:
        self._receive = receive
        self._connection = connection
        self._look = look
        self._timer = timer
        self._alarm = Alarm()
        self._watcher: Child | None = None
        self._again()

    def _again(self) -> None:
        gone = self._look()
        if gone:
            self._connection.gone(None)
        elif gone is None:
            self._alarm = self._timer.after(LOOK_SECONDS, self._again)
        else:
            self._watcher = watch(self._receive, self._connection, self._timer.context)

    def cancel(self) -> None:
        self._alarm.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
