"""Hearing the signals that stop a server, ahead of the handlers that are installed, and passing the signals on.

`loop.add_signal_handler` would replace the server's own handler. Observed: granian, hypercorn and gunicorn never exit
then.
"""

import inspect
import os
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Protocol

from .._loop.running import thread_safe_caller
from .._loop.timer import shared_timer
from .known import SERVERS
from .server import module_of

DEATH_SECONDS = 1.0

Undo = Callable[[], None]
PassOn = Callable[[FrameType | None], object]


class Hearer(Protocol):
    """An object that wants to hear of the signals, and knows when its streams have ended."""

    def hear_signal(self) -> None:
        """Hear that the servers of this event loop stop, or that a signal came again."""

    def when_quiet(self, callback: Callable[[], None], /) -> None:
        """Call back when every stream has ended."""


def hear_signals(hearer: Hearer) -> list[Undo]:
    """Tell a hearer of the signals that stop this process; return functions that restore the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return []
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGQUIT") and callable(signal.getsignal(signal.SIGQUIT)):
        numbers.append(signal.SIGQUIT)  # gunicorn sends it to its workers after a SIGINT
    return [_wrap(number, hearer) for number in numbers]


def _wrap(number: signal.Signals, hearer: Hearer) -> Undo:
    previous = signal.getsignal(number)
    if previous is None:  # not a Python handler, so it could not be restored
        return lambda: None
    call = thread_safe_caller()
    pass_on = _follower(number, previous, hearer)

    def handler(signum: int, frame: FrameType | None) -> None:
        try:
            call(hearer.hear_signal)
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


def _follower(number: signal.Signals, previous: Any, hearer: Hearer) -> PassOn:
    """Return a function that passes a signal on to the handler that was installed before."""
    call, timer, module = thread_safe_caller(), shared_timer(), module_of(previous)

    def die_soon() -> None:  # pragma: no cover - as _die
        timer.after(DEATH_SECONDS, partial(_die, number))

    if previous is signal.SIG_DFL:
        return lambda _: call(lambda: hearer.when_quiet(die_soon))  # pragma: no branch - as _die
    for server in SERVERS:
        delayed = server.delayed(number, previous, hearer.when_quiet)
        if delayed is not None:
            return _later(call, delayed)
    if module.startswith("trio."):
        # trio's handler raises KeyboardInterrupt in the task that runs at that moment, unless trio's own code calls it.
        return lambda _: call(lambda: previous(number, inspect.currentframe()))
    if callable(previous) and not module.startswith(("asyncio.unix_events", "uvloop")):
        return partial(previous, number)
    # The handler of an event loop works through the loop's wake-up file descriptor. Observed: granian on uvloop hung in
    # 10 of 96 double signals when that handler was called as well.
    return lambda _: None


def _later(call: Callable[[Callable[[], None]], object], function: Callable[[], None]) -> PassOn:
    return lambda _: call(function)


def _die(number: int) -> None:  # pragma: no cover - ends the process and its measurement; a test sees the exit status
    """Let the signal kill the process, as it does by default; the server has had a second to end by itself."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
