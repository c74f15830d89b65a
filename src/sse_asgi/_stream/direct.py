"""Sending and receiving without a task for it.

What a server's `send` does without waiting needs no task switch. Waiting for a client to go needs no task: that would
be a twentieth of an idle connection.

Only where nothing is between a stream and its server but what is known to pass messages on as they are: what others do
in their `send` may depend on the task and the context that run it.
"""

import asyncio
from collections.abc import Generator
from contextvars import Context
from types import coroutine
from typing import Any, Protocol

import anyio.lowlevel
from starlette.types import Message, Receive, Send

from .._loop.tasks import Child, spawn
from .._servers.known import may_be_stepped
from .._servers.starlette import behind_send


def may_be_direct(send: Any) -> bool:
    """Tell whether this is the `send` of a server that is known to take messages in any task, or a plain wrapper."""
    send = behind_send(send)
    behind = past_guards(send)
    return may_be_stepped(send) if behind is send else may_be_direct(behind)


def past_guards(send: Any) -> Any:
    """Return what EventSourceMiddleware, in which a stream of ours has been let through, passes its messages on to."""
    while (behind := getattr(getattr(send, "__self__", None), "passes_on", None)) is not None:
        send = behind
    return send


class Watched(Protocol):
    """Whose client it is."""

    def gone(self, error: Exception | None) -> None:
        """Hear that it has gone, with what `receive` raised, if it did."""


def watch(receive: Receive, watched: Watched, context: Context) -> Child:
    """Own `receive()`: called by nobody else, and never cancelled to be called again.

    Args:
        receive: That of a request.
        watched: Told when its client has gone.
        context: The timer's, for what runs in no task: a copy for each idle connection would be 72 bytes.
    """
    if may_be_stepped(receive):
        return _Watcher(receive, watched, context)

    async def run() -> None:
        error = None
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception as caught:  # noqa: BLE001 - handed on
            error = caught
        watched.gone(error)

    return spawn(run)


class _Watcher:
    """Runs `receive()` a step at a time, each when what it waits for is there; it is its own callback."""

    __slots__ = ("_context", "_coroutine", "_receive", "_watched")

    def __init__(self, receive: Receive, watched: Watched, context: Context) -> None:
        self._receive = receive
        self._watched = watched
        self._context = context
        self._coroutine: Any = receive()
        self()

    def __call__(self, _: object = None) -> None:
        """Go on."""
        while self._coroutine is not None:
            try:
                waits_for = self._coroutine.send(None)
            except StopIteration as end:
                if end.value["type"] == "http.disconnect":
                    self._end(None)
                else:
                    self._coroutine = self._receive()
            except Exception as error:  # noqa: BLE001 - handed on
                self._end(error)
            else:
                waits_for._asyncio_future_blocking = False  # as a task tells a future that it has heard  # noqa: SLF001
                waits_for.add_done_callback(self, context=self._context)
                return

    def _end(self, error: Exception | None) -> None:
        self.cancel()
        self._watched.gone(error)

    def cancel(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()


class Turn:
    """Tells one turn of the event loop from the next, on asyncio.

    Attributes:
        number: That of this turn; another than the one that was marked, unless it is still the same turn.
    """

    __slots__ = ("_marked", "number")

    def __init__(self) -> None:
        """Begin."""
        self.number = 0
        self._marked = False

    def mark(self) -> int:
        """Return the number of this turn, and have another for the next."""
        if not self._marked:
            self._marked = True
            asyncio.get_running_loop().call_soon(self._end)
        return self.number

    def _end(self) -> None:
        self.number += 1
        self._marked = False


_turn: anyio.lowlevel.RunVar[Turn] = anyio.lowlevel.RunVar("_turn")


def current_turn() -> Turn:
    """Return the turn of the running event loop."""
    turn = _turn.get(None)
    if turn is None:
        turn = Turn()
        _turn.set(turn)
    return turn


class Unsent(Protocol):
    """What is left of a send."""

    def __await__(self) -> Generator[Any, Any, None]:
        """Go on with it, in a task."""

    def close(self) -> None:
        """Give it up."""


class Sender:
    """Sends what need not wait: one generator runs one send after the other, which needs no task for any.

    A send that has to wait keeps that generator, and ends it; the next one is another's.
    """

    __slots__ = ("_sends",)

    def __init__(self) -> None:
        """Be ready."""
        self._sends = _sends()

    def send(self, send: Send, message: Message) -> Unsent | None:
        """Send for as long as that does not wait; return what is left of it, if anything."""
        try:
            waits_for = self._sends.send((send, message))
        except BaseException as error:  # noqa: BLE001 - raised in the task that is to await it
            self._sends = _sends()
            return Failed(error)
        if waits_for is DONE:
            return None
        unsent = Suspended(self._sends, waits_for)
        self._sends = _sends()
        return unsent


DONE = object()


def _sends() -> Generator[Any, Any, None]:
    sends = _send_each()
    next(sends)
    return sends


@coroutine
def _send_each() -> Generator[Any, Any, None]:
    while True:
        send, message = yield DONE
        yield from send(message)


class Failed:
    """What is left of a send that failed."""

    def __init__(self, error: BaseException) -> None:
        """Keep what is to be raised."""
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        """Raise it."""
        raise self._error
        yield

    def close(self) -> None:
        """Do nothing."""


class Suspended:
    """A send that has begun outside any task, for one to go on with."""

    __slots__ = ("_sends", "_waits_for")

    def __init__(self, sends: Generator[Any, Any, None], waits_for: Any) -> None:
        """Keep it, and the future that it waits for."""
        self._sends = sends
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        """Go on with it as the task that it would have had."""
        sends, waits_for = self._sends, self._waits_for
        while waits_for is not DONE:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - it is the send's
                waits_for = sends.throw(error)
            else:
                waits_for = sends.send(value)
        sends.close()

    def close(self) -> None:
        """Give it up."""
        self._sends.close()
