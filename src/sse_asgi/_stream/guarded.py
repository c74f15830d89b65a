"""What a stream of our own asks of the guard of its request, if EventSourceMiddleware is around it."""

from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from .._loop.timer import Timer
from .._servers.abort import abort
from .._servers.interrupt import can_interrupt, interrupt
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
