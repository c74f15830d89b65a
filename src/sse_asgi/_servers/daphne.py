"""daphne: the signal handlers of twisted must wait for the streams, and `receive` is the `get` of a queue."""

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.types import Receive, Scope

from .._loop.timer import shared_timer
from .queues import look_through
from .server import KnownServer, Look, WhenQuiet, module_of

AROUND_SECONDS = 0.1


class Daphne(KnownServer):
    """The facts about daphne."""

    def look(self, receive: Receive, /) -> Look | None:
        """Look through the queue of a request."""
        return look_through(receive)

    def breaks_off(self, scope: Scope, _: Receive, /) -> bool | None:
        """Return False: the client of an incomplete response waits for ever, even if the application raises.

        daphne is the known server whose scope has no `spec_version`.
        """
        return None if "spec_version" in scope.get("asgi", {"spec_version": None}) else False

    def delayed(self, number: int, handler: Any, when_quiet: WhenQuiet, /) -> Callable[[], None] | None:
        """Return a function that calls twisted's handler after the streams and the middleware around them have ended.

        Observed: daphne cancels every response at once, but waits for the first of them only. A stream that used
        anyio's threads, and is still on its way out through middleware, is then never told to end. It holds the process
        up.
        """
        if not module_of(handler).startswith("twisted."):
            return None
        timer = shared_timer()

        def stop_soon() -> None:
            timer.after(AROUND_SECONDS, partial(handler, number, None))

        return partial(when_quiet, stop_soon)
