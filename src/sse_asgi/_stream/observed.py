"""What an application's telemetry is told of each stream: that it opens, that its head was sent, and why it ended."""

from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Scope


class ObservedStream(Protocol):
    """One stream, as its telemetry sees it."""

    def started(self) -> None:
        """Note that the head was sent."""

    def ended(self, reason: str) -> None:
        """Note the end of the stream, of its cleanup and of its background task.

        Args:
            reason: One of EventSourceResponse's.
        """


class StreamObserver(Protocol):
    """The telemetry of an application."""

    def opened(self, scope: Scope, kind: str) -> ObservedStream:
        """Note that a stream opens.

        Args:
            scope: The request's.
            kind: `subscription`, `iterable`, `poll` or `foreign`.
        """


def reason_of(error: BaseException) -> str:
    """Return the reason why a stream has ended whose application raised this."""
    if isinstance(error, OSError | ClientDisconnect):
        return "client"
    return "error" if isinstance(error, Exception) else "shutdown"
