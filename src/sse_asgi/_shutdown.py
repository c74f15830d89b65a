"""Hearing that the server is about to stop, which no ASGI message announces in time.

A server sends `lifespan.shutdown` only after the last response has ended, so streams that wait for it keep it waiting.
There is one Notice per event loop. Nothing is touched before somebody listens, and what was touched is put back when
the last listener has gone.
"""

import inspect
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import anyio.lowlevel

from ._runtime import Alarm, coroutines, shared_timer, thread_safe_caller

logger = logging.getLogger("sse_asgi")

POLL_SECONDS = 0.1
DEATH_SECONDS = 1.0
QUIET_SECONDS = 10.0
RETURN_SECONDS = 0.1

Undo = Callable[[], None]


class Notice:
    """The news that the server of this event loop stops, told once to each stream.

    Attributes:
        heard: Whether it came; a stream that begins now should end at once.
    """

    def __init__(self) -> None:
        """Know of no shutdown and look out for none."""
        self.heard = False
        self._watchers = 0
        self._listeners: dict[Callable[[], None], None] = {}
        self._when_quiet: dict[Callable[[], None], Alarm] = {}
        self._undos: list[Undo] = []
        self._is_asked = False

    @property
    def listeners(self) -> int:
        """How many streams listen."""
        return len(self._listeners)

    def watch(self) -> None:
        """Look out for a shutdown, whether there are streams or not, until `unwatch`."""
        if not self._watchers:
            self._timer = shared_timer()
            uvicorn = _hear_uvicorn(self)
            asked = uvicorn or [*_hear_hypercorn(self), *_hear_gunicorn(self)]
            self._is_asked = bool(asked)
            self._undos = asked if uvicorn else [*asked, *_hear_signals(self)]
        self._watchers += 1

    def unwatch(self) -> None:
        """Look out no more; the last one puts back what was touched."""
        self._watchers -= 1
        if not self._watchers:
            for undo in self._undos:
                undo()
            if self._is_asked:
                self.heard = False  # whoever watches next asks again, and the loop may serve again

    def listen(self, callback: Callable[[], None]) -> None:
        """Call back when the shutdown begins; at once when it has begun."""
        self.watch()
        self._listeners[callback] = None
        if self.heard:
            callback()

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Forget a callback: its stream has ended and was cleaned up."""
        del self._listeners[callback]
        if not self._listeners:
            for one, alarm in list(self._when_quiet.items()):
                alarm.cancel()
                self._settle(one)
        self.unwatch()

    def when_quiet(self, callback: Callable[[], None]) -> None:
        """Call back when every stream has ended and was cleaned up, which may be now, or after QUIET_SECONDS."""
        if callback in self._when_quiet:
            return
        self._when_quiet[callback] = self._timer.after(QUIET_SECONDS, partial(self._settle, callback))
        if not self._listeners:
            self._when_quiet[callback].cancel()
            self._settle(callback)

    def _settle(self, callback: Callable[[], None]) -> None:
        del self._when_quiet[callback]
        callback()

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


def _hear_uvicorn(notice: Notice) -> list[Undo]:
    """Hear uvicorn's own server object call its `shutdown`, whatever the reason.

    Observed: only this sees --limit-max-requests and a server in a thread; signals see neither. The instance is
    wrapped, never the class.
    """
    server = uvicorn_server()
    if server is None:
        return []
    original = server.shutdown

    async def shutdown(*args: Any, **kwargs: Any) -> None:
        notice.hear()
        try:
            await original(*args, **kwargs)
        finally:
            notice.heard = False  # the loop may serve again

    def undo() -> None:
        if vars(server).get("shutdown") is shutdown:
            del server.shutdown

    server.shutdown = shutdown
    if server.should_exit or not all(one.is_serving() for one in getattr(server, "servers", ())):
        notice.hear()
    return [undo]


def uvicorn_server() -> Any | None:
    """Find the uvicorn.Server that serves this event loop."""
    module = sys.modules.get("uvicorn.server")
    return None if module is None else _running(module.Server)


def _hear_hypercorn(notice: Notice) -> list[Undo]:
    """Ask what hypercorn's worker itself asks every 0.1 s.

    Observed: where only the parent process is signalled, nothing else reaches a worker before its streams have ended,
    and a signal says nothing of --max-requests.
    """
    if "hypercorn" not in sys.modules:
        return []
    frame = next((one for one in _frames() if one.f_code.co_name == "worker_serve"), None)
    if frame is None:
        return []
    trigger = frame.f_locals.get("shutdown_trigger")
    # `Event.wait` in the only process, else a partial of a function and the parent's event
    event = getattr(trigger, "__self__", None) or next(iter(getattr(trigger, "args", ())), None)

    def stops() -> bool:
        events: list[Any] = [event, getattr(frame.f_locals.get("context"), "terminate", None)]
        return any(one.is_set() for one in events if hasattr(one, "is_set"))

    return [_poll(notice, stops)]


def _hear_gunicorn(notice: Notice) -> list[Undo]:
    """Ask whether gunicorn's own ASGI worker is to live on; observed: --max-requests is told in no other way."""
    module = sys.modules.get("gunicorn.workers.gasgi")
    worker = None if module is None else _running(module.ASGIWorker)
    return [] if worker is None else [_poll(notice, lambda: not worker.alive)]


def _poll(notice: Notice, stops: Callable[[], bool]) -> Undo:
    timer, looking = shared_timer(), True

    def look() -> None:
        if stops():
            notice.hear()
        elif looking:
            timer.after(POLL_SECONDS, look)

    def undo() -> None:
        nonlocal looking
        looking = False

    look()
    return undo


def _running(kind: type) -> Any | None:
    """Find the object of a class whose method a task of this event loop is running."""
    selves = (frame.f_locals.get("self") for frame in _frames())
    return next((one for one in selves if isinstance(one, kind)), None)


def _frames() -> Iterator[FrameType]:
    """Go through the frames of every task of this event loop, from the task's function to where it awaits."""
    for coroutine in coroutines():
        inner = coroutine
        while (frame := getattr(inner, "cr_frame", None)) is not None:
            yield frame
            inner = inner.cr_await


def _hear_signals(notice: Notice) -> list[Undo]:
    """Hear the signals that stop a server in front of the handlers that are installed.

    `loop.add_signal_handler` would replace the server's own: observed, granian, hypercorn and gunicorn never exit then.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGQUIT") and callable(signal.getsignal(signal.SIGQUIT)):
        numbers.append(signal.SIGQUIT)  # what gunicorn sends its workers when it got SIGINT
    return [_wrap(number, notice) for number in numbers]


def _wrap(number: signal.Signals, notice: Notice) -> Undo:
    previous = signal.getsignal(number)
    if previous is None:  # not Python's
        return lambda: None
    call = thread_safe_caller()
    pass_on = _follower(number, previous, notice)

    def handler(signum: int, frame: FrameType | None) -> None:
        try:
            call(notice.hear)
        except RuntimeError:  # the event loop is closed
            undo()
            os.kill(os.getpid(), signum)
        else:
            pass_on(frame)

    def undo() -> None:
        if signal.getsignal(number) is handler:
            signal.signal(number, previous)

    signal.signal(number, handler)
    return undo


def _follower(number: signal.Signals, previous: Any, notice: Notice) -> Callable[[FrameType | None], object]:
    """Return what passes a signal on to the handler that was there."""
    call, timer, module = thread_safe_caller(), shared_timer(), _module(previous)

    def die_soon() -> None:  # pragma: no cover - as _die
        timer.after(DEATH_SECONDS, partial(_die, number))

    if previous is signal.SIG_DFL:
        return lambda _: call(lambda: notice.when_quiet(die_soon))  # pragma: no branch - as _die
    if module.startswith("twisted."):
        # Observed: daphne cancels every response at once, and waits for the first of them only. Where one that used
        # anyio's threads is still on its way through middleware, these are never told to end, and hold the process up.
        def stop_soon() -> None:
            timer.after(RETURN_SECONDS, partial(previous, number, None))

        return lambda _: call(lambda: notice.when_quiet(stop_soon))
    if module.startswith("trio."):
        # It raises KeyboardInterrupt in whatever task runs just now, unless it is called by trio's own code.
        return lambda _: call(lambda: previous(number, inspect.currentframe()))
    if callable(previous) and not module.startswith(("asyncio.unix_events", "uvloop")):
        return partial(previous, number)
    # A loop's own handler works through its wake-up file descriptor. Observed: granian on uvloop hung in 10 of 96
    # double signals when it was called as well.
    return lambda _: None


def _module(handler: Any) -> str:
    module: str = getattr(handler, "__module__", None) or type(getattr(handler, "__self__", handler)).__module__
    return module


def _die(number: int) -> None:  # pragma: no cover - ends the process, and its measurement; a test sees the exit status
    """Let the signal do what it would have done without us; the server had a second to end by itself."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
