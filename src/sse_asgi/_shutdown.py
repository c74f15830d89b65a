"""Hearing that the server is about to stop, which no ASGI message announces in time.

A server sends `lifespan.shutdown` only after the last response has ended, so streams that wait for it keep it waiting.
There is one Notice per event loop. Nothing is touched before somebody listens, and what was touched is put back when
the last listener has gone.
"""

import asyncio
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio.lowlevel

from ._runtime import Timer, on_asyncio, shared_timer, thread_safe_caller

logger = logging.getLogger("sse_asgi")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Undo = Callable[[], None]


class Notice:
    """The news that the server of this event loop stops, told once to each listener.

    Attributes:
        heard: Whether it came; a stream that begins now should end at once.
    """

    def __init__(self) -> None:
        """Know of no shutdown and listen to nothing."""
        self.heard = False
        self._listeners: dict[Callable[[], None], None] = {}
        self._undo: Undo | None = None

    @property
    def listeners(self) -> int:
        """How many listen, which is about how many streams are open."""
        return len(self._listeners)

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when the shutdown begins; at once when it has begun."""
        if self._undo is None:
            self._undo = _hear_uvicorn(self) or _hear_signals(self) or _nothing
        self._listeners[callback] = None
        if self.heard:
            callback()

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Forget a callback; with the last one, put back what was touched."""
        del self._listeners[callback]
        if not self._listeners and self._undo is not None:
            self._undo()
            self._undo = None

    def hear(self) -> None:
        """Tell every listener; a second time tells nobody."""
        if not self.heard:
            self.heard = True
            for callback in list(self._listeners):
                callback()


_notice: anyio.lowlevel.RunVar[Notice] = anyio.lowlevel.RunVar("_notice")


def current_notice() -> Notice:
    """Return the notice of the running event loop."""
    notice = _notice.get(None)
    if notice is None:
        notice = Notice()
        _notice.set(notice)
    return notice


def farewell(notice: Notice) -> bytes:
    """Write a `retry:` line that spreads the clients of this process over a time that grows with their number."""
    spread = 1000 + 2 * notice.listeners
    return b"retry: %d\n" % random.randint(500, 500 + spread)  # noqa: S311 - a spread, not a secret


def _nothing() -> None:
    pass


def _hear_uvicorn(notice: Notice) -> Undo | None:
    """Hear uvicorn's own server object call its `shutdown`, whatever the reason.

    Observed: only this sees --limit-max-requests and a server in a thread; signals see neither. The instance is
    wrapped, never the class.
    """
    server = uvicorn_server()
    if server is None:
        return None
    original = server.shutdown

    async def shutdown(*args: Any, **kwargs: Any) -> None:
        notice.hear()
        await original(*args, **kwargs)
        notice.heard = False  # the loop may serve again

    def undo() -> None:
        if vars(server).get("shutdown") is shutdown:
            del server.shutdown

    server.shutdown = shutdown
    if server.should_exit or not all(one.is_serving() for one in getattr(server, "servers", ())):
        notice.hear()
    return undo


def uvicorn_server() -> Any | None:
    """Find the uvicorn.Server that serves this event loop, by looking at what its tasks are running."""
    module = sys.modules.get("uvicorn.server")
    if module is None or not on_asyncio():
        return None
    for task in asyncio.all_tasks():
        coroutine: Any = task.get_coro()
        while (frame := getattr(coroutine, "cr_frame", None)) is not None:
            candidate = frame.f_locals.get("self")
            if isinstance(candidate, module.Server):
                return candidate
            coroutine = coroutine.cr_await
    return None


def _hear_signals(notice: Notice) -> Undo | None:
    """Hear SIGINT and SIGTERM in front of the handlers that are installed.

    `loop.add_signal_handler` would replace the server's own: observed, granian, hypercorn and gunicorn never exit then.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    undos = [_wrap(number, notice) for number in _SIGNALS]

    def undo() -> None:
        for one in undos:
            one()

    return undo


def _wrap(number: int, notice: Notice) -> Undo:
    previous = signal.getsignal(number)
    call, timer = thread_safe_caller(), shared_timer()

    def handler(signum: int, frame: FrameType | None) -> None:
        call(notice.hear)
        if previous is signal.SIG_DFL:
            call(lambda: _die_later(timer, signum))  # pragma: no cover - as below
        elif callable(previous) and not _belongs_to_loop(previous):
            previous(signum, frame)

    def undo() -> None:
        if signal.getsignal(number) is handler:
            signal.signal(number, previous)

    signal.signal(number, handler)
    return undo


def _belongs_to_loop(handler: Any) -> bool:
    """Tell whether a handler is an event loop's own, which works through its wake-up file descriptor.

    Observed: granian on uvloop hung in 10 of 96 double signals when its loop's handler was called as well.
    """
    owner = type(getattr(handler, "__self__", handler))
    modules = (getattr(handler, "__module__", None) or "", owner.__module__)
    return any(name.startswith(("asyncio.unix_events", "uvloop")) for name in modules)


def _die_later(timer: Timer, number: int) -> None:  # pragma: no cover - as below
    """Give streams a second, then let the signal do what it would have done without us."""

    def die() -> None:  # pragma: no cover - ends the process, and its measurement; a test sees the exit status
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    timer.after(1, die)
