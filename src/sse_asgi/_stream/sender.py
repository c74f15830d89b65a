"""Sending without a task: which `send` allows it, and the generator that runs such sends one after the other.

A server's `send` that does not wait needs no task switch. Under uvicorn `send` waits only if the client is slow, so one
generator can run it for one reader after another. Waking the task of each reader would cost a third of a delivery. A
send that has to wait is finished by the task of its own connection.

This is done only if everything between the stream and its server is known to pass messages on unchanged. The `send` of
an unknown middleware may depend on the task and the context that run it.
"""

from collections.abc import Generator
from types import coroutine
from typing import Any

from starlette.types import Message, Send

from .._servers.starlette import behind_send


def past_wrappers(send: Any) -> Any:
    """Return the `send` behind Starlette and EventSourceMiddleware, which pass the bodies of our streams unchanged."""
    while (behind := getattr(getattr(send, "__self__", None), "passes_on", None) or behind_send(send)) is not send:
        send = behind
    return send


class Sender:
    """Sends messages with one generator, which needs no task for any of them.

    A send that has to wait keeps that generator. The next send gets a new one.
    """

    __slots__ = ("_sends",)

    def __init__(self) -> None:
        """Make the first generator."""
        self._sends = _sends()

    def send(self, send: Send, message: Message) -> "Unsent | None":
        """Send as far as that is possible without waiting; return the rest of the send, or None if it is complete."""
        try:
            waits_for = self._sends.send((send, message))
        except BaseException as error:  # noqa: BLE001 - raised in the task that awaits the rest
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
    """The rest of a send that failed."""

    def __init__(self, error: BaseException) -> None:
        """Keep the exception."""
        self._error = error

    def __await__(self) -> Generator[Any, Any, None]:
        """Raise the exception."""
        raise self._error
        yield

    def close(self) -> None:
        """Do nothing."""


class Suspended:
    """The rest of a send that began outside any task, and waits."""

    __slots__ = ("_sends", "_waits_for")

    def __init__(self, sends: Generator[Any, Any, None], waits_for: Any) -> None:
        """Keep the generator, and the future that it waits for."""
        self._sends = sends
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        """Finish the send in the current task."""
        sends, waits_for = self._sends, self._waits_for
        while waits_for is not DONE:
            try:
                value = yield waits_for
            except BaseException as error:  # noqa: BLE001 - thrown into the send
                waits_for = sends.throw(error)
            else:
                waits_for = sends.send(value)
        sends.close()

    def close(self) -> None:
        """Give the send up."""
        self._sends.close()


Unsent = Failed | Suspended
