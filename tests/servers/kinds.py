"""Every kind of server that the tests run: its command, and how it stops."""

import signal
from typing import NamedTuple

# A second for the streams, and one for the server. hypercorn aborts streams after 3 s, the shortest limit of all these
# servers. So a server that stops in less has not waited for a stream.
STOP_SECONDS = 2.0

UVICORN = ("uvicorn", "app:app", "--port", "{port}", "--log-level", "warning")
GUNICORN = ("gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--no-control-socket")
HYPERCORN = ("hypercorn", "app:app", "--bind", "127.0.0.1:{port}")
GRANIAN = ("granian", "--interface", "asgi", "app:app", "--port", "{port}")

BY_SIGNAL = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
CLEAN = {signal.SIGTERM: 0, signal.SIGINT: 0}


class Kind(NamedTuple):
    """One way to run a server.

    Attributes:
        name: The command without its usual options.
        command: A module and its arguments.
        exits: The exit code for each signal.
        lifespan: The signals after which the lifespan of the application ends.
        ready: A text, and how often the log has it when all processes serve; None where the first answer shows it.
        waits: The seconds that it waits when it stops, with streams or without.
    """

    name: str
    command: tuple[str, ...]
    exits: dict[signal.Signals, int] = CLEAN
    lifespan: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    ready: tuple[str, int] | None = None
    waits: float = 0.0

    @property
    def stop_seconds(self) -> float:
        """The time in which it must stop."""
        return self.waits + STOP_SECONDS


KINDS = {
    kind.name: kind
    for kind in (
        Kind("uvicorn", UVICORN, BY_SIGNAL),
        Kind("uvicorn --http h11 --loop asyncio", (*UVICORN, "--http", "h11", "--loop", "asyncio"), BY_SIGNAL),
        Kind("uvicorn --http zttp --http2", (*UVICORN, "--http", "zttp", "--http2"), BY_SIGNAL),
        Kind("uvicorn --workers 2", (*UVICORN, "--workers", "2"), ready=("lifespan began", 2)),
        Kind("uvicorn --reload", (*UVICORN, "--reload")),
        Kind("uvicorn.Server in a thread", ("in_thread", "{port}")),
        Kind("gunicorn -k uvicorn_worker.UvicornWorker", (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker")),
        # Its main loop sleeps for a second at a time. Then it waits up to 0.5 s for its sockets, and 0.1 s at a time
        # for connections, as its parent process does for workers.
        Kind("gunicorn -k asgi", (*GUNICORN, "-k", "asgi"), lifespan=(signal.SIGTERM,), waits=1.7),
        Kind("hypercorn", HYPERCORN),
        Kind("hypercorn --workers 0", (*HYPERCORN, "--workers", "0")),
        Kind("hypercorn -k uvloop", (*HYPERCORN, "-k", "uvloop")),
        Kind("hypercorn -k trio", (*HYPERCORN, "-k", "trio")),
        # No handler is installed, so the signal kills the process a second after the streams were told.
        Kind(
            "hypercorn -k trio --workers 0",
            (*HYPERCORN, "-k", "trio", "--workers", "0"),
            BY_SIGNAL,
            lifespan=(),
            waits=1.0,
        ),
        Kind("granian", GRANIAN),
        Kind("granian --workers 2", (*GRANIAN, "--workers", "2"), ready=("Started worker", 2)),
        Kind("daphne", ("daphne", "--port", "{port}", "app:app"), lifespan=()),
    )
}
