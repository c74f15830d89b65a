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
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

import anyio.lowlevel

from .._loop.runtime import Alarm, shared_timer, thread_safe_caller
from .known import WILDCARDS, Address, AskedServer, Server, UvicornServer, address_of, running_servers

logger = logging.getLogger("sse_asgi")

MAX_ADDRESSES = 64
POLL_SECONDS = 0.1
DEATH_SECONDS = 1.0
QUIET_SECONDS = 10.0
RETURN_SECONDS = 0.1

Undo = Callable[[], None]
Scope = Mapping[str, Any]


class Notice(Server):
    """The news that a server of this event loop stops, told once to each of its streams.

    The notice itself stands for any server that cannot be asked or told from others: its streams are told when one of
    the loop's servers stops, and its `heard` says that one does.
    """

    def __init__(self) -> None:
        """Know of no shutdown and look out for none."""
        super().__init__()
        self._watchers = 0
        self._listeners: dict[Callable[[], None], Server] = {}
        self._when_quiet: dict[Callable[[], None], tuple[Server, Alarm]] = {}
        self._undos: list[Undo] = []
        self._asked: list[AskedServer] = []
        self._at: dict[Address, Server] = {}
        self._next_look = Alarm()

    @property
    def listeners(self) -> int:
        """How many streams listen."""
        return len(self._listeners)

    def watch(self, scope: Scope | None = None) -> Server:
        """Look out for a shutdown until `unwatch`, with or without streams; return the server of this scope."""
        if not self._watchers:
            self._timer = shared_timer()
            self._find()
            if not any(isinstance(one, UvicornServer) for one in self._asked):
                self._undos = _hear_signals(self)
        self._watchers += 1
        return self if scope is None else self._server_of(scope)

    def unwatch(self) -> None:
        """Look out no more; the last one puts back what was touched."""
        self._watchers -= 1
        if not self._watchers:
            self._next_look.cancel()
            for undo in self._undos:
                undo()
            self._undos = []
            self._at.clear()
            for server in self._asked:  # whoever watches next asks again
                self.forget(server)

    def listen(self, callback: Callable[[], None], scope: Scope | None = None) -> None:
        """Call back when the server of this scope stops, without one when any does; at once when it stops already."""
        server = self.watch(scope)
        self._listeners[callback] = server
        server.streams += 1
        if server.heard:
            callback()

    def unlisten(self, callback: Callable[[], None]) -> None:
        """Forget a callback: its stream has ended and was cleaned up."""
        self._listeners.pop(callback).streams -= 1
        for one, (server, alarm) in list(self._when_quiet.items()):
            if not server.streams:
                alarm.cancel()
                self._settle(one)
        self.unwatch()

    def when_quiet(self, callback: Callable[[], None], server: Server | None = None) -> None:
        """Call back when every stream of a server was cleaned up, which may be now, or after QUIET_SECONDS."""
        if callback in self._when_quiet:
            return
        server = server or self
        alarm = self._timer.after(QUIET_SECONDS, partial(self._settle, callback))
        self._when_quiet[callback] = server, alarm
        if not server.streams:
            alarm.cancel()
            self._settle(callback)

    def _settle(self, callback: Callable[[], None]) -> None:
        del self._when_quiet[callback]
        callback()

    def hear(self, server: Server | None = None) -> None:
        """Tell the streams of a server that it stops, without one all streams; a second time tells none."""
        news = [one for one in (*(self._asked if server is None else [server]), self) if not one.heard]
        for one in news:
            one.heard = True
        for callback, one in list(self._listeners.items()) if news else ():
            if one in news:
                callback()

    def forget(self, server: Server) -> None:
        """Ask a server no more: it has stopped, and the event loop may serve again, or still serves with others."""
        self._asked = [one for one in self._asked if one is not server]
        self._at.clear()
        self.heard = any(one.heard for one in self._asked)

    # Servers that can be asked

    def _server_of(self, scope: Scope) -> Server:
        if scope["type"] == "lifespan":
            self._find()
            state = scope.get("state")
            return next((one for one in self._asked if state is not None and one.state is state), self)
        address = address_of(scope.get("server"))
        if address not in self._at and len(self._at) < MAX_ADDRESSES:
            server = self._server_at(address)
            if server is self:  # it may have started since the last look
                self._find()
                server = self._server_at(address)
            self._at[address] = server
        return self._at.get(address, self)

    def _server_at(self, address: Address) -> Server:
        for one in (address, *((host, address[1]) for host in WILDCARDS)):
            servers = [server for server in self._asked if one in server.addresses()]
            if servers:
                return servers[0] if len(servers) == 1 else self
        return self

    def _find(self) -> None:
        known = [one.key for one in self._asked]
        self._asked += [one for one in running_servers() if one.key not in known]
        self._look()

    def _look(self) -> None:
        self._next_look.cancel()
        for server in self._asked:
            if server.ended or server.stops():
                self.hear(server)
            if server.ended:
                self.forget(server)
        if self._asked:
            self._next_look = self._timer.after(POLL_SECONDS, self._look)


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
