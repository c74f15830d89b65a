"""The body of a request whose response is a stream: the stream watches for the client to go, and the content may read.

Both need `receive()`, which gives each message once. So:

- A request without a body (a GET, in practice) is watched at once: there is nothing to read.
- Below EventSourceMiddleware, an Upload is the one that calls `receive()`. It gives the content every byte that came,
  and tells the watcher that the client has gone. To hear of that, it reads ahead: at most 64 KiB for a content that has
  begun to read, at most 4 MiB for one that has not and may never. A client that goes while more than that waits to be
  read is noticed when it is read, or when a send fails.
- Without the middleware, nothing is taken from `receive()` before the body has been read. The requests of uvicorn, of
  BaseHTTPMiddleware and of EventStreamClient tell when it has; the queue of hypercorn on asyncio and of daphne can be
  looked through. Elsewhere the client is watched from the content's first event on, or after five seconds without one,
  unless the body is larger than 64 KiB, or of unknown length: then the content or a send has to notice.
"""

import time
from functools import partial
from typing import Protocol

import anyio
from starlette.types import Message, Receive, Scope

from .._loop.tasks import Child, spawn
from .._loop.timer import Alarm, Timer, shared_timer
from .._servers.known import look_at
from .._servers.server import Look
from .direct import Watched, watch

KEY = "sse_asgi.upload"
AHEAD_BYTES = 64 * 1024
UNREAD_BYTES = 4 * 1024 * 1024
LOOK_SECONDS = 0.05
READ_SECONDS = 5.0


class Content(Protocol):
    """What is streamed, and may read the body."""

    @property
    def begun(self) -> bool:
        """Whether its first event has come."""


def own_receive(scope: Scope, receive: Receive) -> Receive:
    """Return what the application is to call as `receive`: the same, unless the request may have a body."""
    if KEY in scope or not _may_have_body(scope):
        return receive
    upload = scope[KEY] = Upload(receive)
    return upload.receive


def watch_client(scope: Scope, receive: Receive, watched: Watched, content: Content | None) -> Child:
    """Tell when the client of a stream has gone, and leave the body of its request to the content.

    Args:
        scope: That of the request.
        receive: As the response was given it.
        watched: Told when the client has gone.
        content: What may read the body; None if nothing does, so that the body is thrown away.
    """
    timer = shared_timer()  # here, in a task: a callback cannot ask for it
    if content is None or not _may_have_body(scope):
        return watch(receive, watched, timer.context)
    upload: Upload | None = scope.get(KEY)
    if upload is None:
        return _Patient(receive, watched, _look(scope, receive, content), timer)
    if upload.was_read:  # then what stands between may have a word of its own
        return watch(receive, watched, timer.context)
    return spawn(partial(upload.read_ahead, watched))


def _may_have_body(scope: Scope) -> bool:
    """Tell whether the request has a body, or is one whose application may wait for the end of an empty one."""
    return scope["method"] not in ("GET", "HEAD") or _length(scope) != 0


def _length(scope: Scope) -> int | None:
    """Return the number of bytes that the body will have; None if the request does not say it."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value) if value.isdigit() else None
    return length


class Upload:
    """Calls `receive()` for everybody, and hands on each byte once."""

    def __init__(self, receive: Receive) -> None:
        """Pass on what comes, until somebody watches."""
        self._receive = receive
        self._body = bytearray()
        self._unread = False  # whether a message waits to be read, which may be an empty one
        self._complete = False
        self._limit = UNREAD_BYTES
        self._gone = False
        self._receiving = False
        self._changed = anyio.Event()

    @property
    def was_read(self) -> bool:
        """Whether the application has the whole body."""
        return self._complete and not self._unread

    async def receive(self) -> Message:
        """Return what the server has sent and nobody has read yet."""
        self._limit = AHEAD_BYTES
        while not (self._unread or self._gone):
            await self._next()
        if not self._unread:
            return {"type": "http.disconnect"}
        body, self._body = bytes(self._body), bytearray()
        self._unread = False
        self._notify()
        return {"type": "http.request", "body": body, "more_body": not self._complete}

    async def read_ahead(self, watched: Watched) -> None:
        """Keep what comes for its reader, to hear when the client goes."""
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
        watched.gone(error)

    async def _next(self) -> None:
        """Take one message, or wait for the other one that is about to: a server need not bear two at a time."""
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


def _look(scope: Scope, receive: Receive, content: Content) -> Look:
    """Return a function that takes nothing: True if the client has gone, False if `receive()` is free to be called."""
    known = look_at(receive)
    if known is not None:
        return known
    length = _length(scope)
    small = length is not None and length <= AHEAD_BYTES
    latest = time.monotonic() + READ_SECONDS
    return lambda: False if small and (content.begun or time.monotonic() > latest) else None


class _Patient:
    """Looks now and then, and watches as soon as nobody else needs `receive()`."""

    def __init__(self, receive: Receive, watched: Watched, look: Look, timer: Timer) -> None:
        self._receive = receive
        self._watched = watched
        self._look = look
        self._timer = timer
        self._alarm = Alarm()
        self._watcher: Child | None = None
        self._again()

    def _again(self) -> None:
        gone = self._look()
        if gone:
            self._watched.gone(None)
        elif gone is None:
            self._alarm = self._timer.after(LOOK_SECONDS, self._again)
        else:
            self._watcher = watch(self._receive, self._watched, self._timer.context)

    def cancel(self) -> None:
        self._alarm.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
