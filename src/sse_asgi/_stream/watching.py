"""Watching for the client to disconnect: the owner of a request's `receive()`."""

from contextvars import Context
from typing import Any, Protocol

from starlette.types import Receive

from .._loop.tasks import Child, spawn
from .._servers.known import may_be_stepped


class Endable(Protocol):
    """A connection, as the parts see it that find a reason to end it."""

    def end(self, reason: str) -> None:
        """Send what is pending, then end the stream."""

    def cut_off(self) -> None:
        """Give up a client that does not read."""

    def gone(self, error: Exception | None) -> None:
        """End because the client has disconnected; `error` is the exception of `receive()`, if it raised one."""


def watch(receive: Receive, connection: Endable, context: Context) -> Child:
    """Call `receive()` until the client disconnects, as its only caller, and never cancel a call to repeat it.

    Args:
        receive: The request's.
        connection: Told when its client has disconnected.
        context: The timer's, for callbacks that run in no task. A copy for each idle connection would take 72 bytes.
    """
    if may_be_stepped(receive):
        return _Watcher(receive, connection, context)

    async def run() -> None:
        error = None
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception as caught:  # noqa: BLE001 - handed on
            error = caught
        connection.gone(error)

    return spawn(run)


class _Watcher:
    """Runs `receive()` without a task, which would take a twentieth of an idle connection's memory.

    It runs the coroutine to the next future that it waits for, and is itself the callback of that future.
    """

    __slots__ = ("_connection", "_context", "_coroutine", "_receive")

    def __init__(self, receive: Receive, connection: Endable, context: Context) -> None:
        self._receive = receive
        self._connection = connection
        self._context = context
        self._coroutine: Any = receive()
        self()

    def __call__(self, _: object = None) -> None:
        """Run `receive()` until it waits again."""
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
                waits_for._asyncio_future_blocking = False  # a task does the same with a future that it awaits  # noqa: SLF001
                waits_for.add_done_callback(self, context=self._context)
                return

    def _end(self, error: Exception | None) -> None:
        self.cancel()
        self._connection.gone(error)

    def cancel(self) -> None:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is not None:
            coroutine.close()
