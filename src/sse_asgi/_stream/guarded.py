"""What a stream of our own asks of the guard of its request, if EventSourceMiddleware is around it."""

import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any

from starlette.types import Receive, Scope, Send

from .._loop.tasks import current_task
from .._loop.timer import Timer
from .._servers.abort import abort
from .._servers.interrupt import can_interrupt, interrupt
from .._servers.starlette import has_callbacks, is_passage, stacks_of
from .foreign import KEY, Guard


def admit(scope: Scope, kind: str) -> bool:
    """Begin a stream of our own of this kind; return False if a limit refuses it."""
    guard: Guard | None = scope.get(KEY)
    if guard is None:
        return True
    admitted = guard.admit()
    guard.observe(scope, kind)
    if not admitted:
        guard.conclude("refused")
    return admitted


def hand_over(scope: Scope, go_on: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Have the middleware go on with the stream whose coroutine calls this; then that coroutine must return.

    Otherwise the coroutines of routers and exception handling stay in memory as long as the stream. They have nothing
    more to do for a stream that has started. Nothing is handed over if any other coroutine is between the stream and
    the middleware, or if dependencies or files of FastAPI are open: these end with the stream.

    Args:
        scope: The request's.
        go_on: Called now; its coroutine is awaited in the current task, when the application has returned.

    Returns:
        False if the stream has to stay where it is.
    """
    guard: Guard | None = scope.get(KEY)
    if guard is None or guard.task is not current_task():
        return False
    stacks = stacks_of(scope)
    waits_for_stream = sys._getframe(2)  # noqa: SLF001 - inspect would also keep the frames that are closer
    if any(map(has_callbacks, stacks.values())) or not _is_next_to_guard(waits_for_stream):
        return False
    if stacks:  # each of them would keep half a KiB, and so would their places in the scope
        kept = {key: value for key, value in scope.items() if key not in stacks}
        scope.clear()
        scope.update(kept)
    guard.rest = go_on()
    return True


def _is_next_to_guard(frame: FrameType | None) -> bool:
    """Return True if this frame, or the first one around it that is not a passage, is that of a guard."""
    while frame is not None and is_passage(frame):
        frame = frame.f_back
    return frame is not None and frame.f_code is Guard.run.__code__


def watch_again(scope: Scope, reason: str | None) -> None:
    """Expect another response behind a stream of our own that has ended for this reason, maybe before its head."""
    guard: Guard | None = scope.get(KEY)
    if guard is not None:
        guard.conclude(reason)
        guard.watch_again()


def cut_off(scope: Scope, receive: Receive, timer: Timer) -> None:
    """Abort the connection of a stream of our own, if the server allows it."""
    guard: Guard | None = scope.get(KEY)
    if guard is None:
        abort(scope, receive, timer)
    else:
        guard.cut_off(timer)


def can_be_interrupted(scope: Scope, receive: Receive) -> bool:
    """Return True if the client of a stream of our own sees that it was broken off, and no other response is."""
    guard: Guard | None = scope.get(KEY)
    return can_interrupt(scope, receive) if guard is None else guard.can_interrupt()


async def end_incomplete(scope: Scope, receive: Receive, send: Send, finish: Callable[[], Awaitable[None]]) -> None:
    """Break off a stream of our own; for `send` and `finish` see Guard."""
    guard: Guard | None = scope.get(KEY)
    await (interrupt(receive) if guard is None else guard.end_incomplete(send, finish))


def default_drain_timeout(scope: Scope) -> float:
    """Return the `drain_timeout` of the middleware around this request."""
    guard: Guard | None = scope.get(KEY)
    return 0.0 if guard is None else guard.drain_timeout
