"""EventStreamClient, which serves the application that it tests: its streams know whether the body was taken."""

from functools import partial
from typing import Any

from starlette.types import Receive

from .server import KnownServer, Look


class Client(KnownServer):
    """The facts about EventStreamClient."""

    def look(self, receive: Receive, /) -> Look | None:
        """Look at the stream; `receive` is a method of it."""
        stream = getattr(receive, "__self__", None)
        return partial(_look_at, stream) if hasattr(stream, "body_taken") else None


def _look_at(stream: Any) -> bool | None:
    if stream.disconnected:
        return True
    return False if stream.body_taken else None
