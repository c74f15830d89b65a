"""Every server that the tests run, and what is known of it."""

import signal
from typing import NamedTuple

STOP_SECONDS = 2.0  # a second for the streams, and what the server itself takes

UVICORN = ("uvicorn", "app:app", "--port", "{port}", "--log-level", "warning")
GUNICORN = ("gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--no-control-socket")
HYPERCORN = ("hypercorn", "app:app", "--bind", "127.0.0.1:{port}")
GRANIAN = ("granian", "--interface", "asgi", "app:app", "--port", "{port}")

BY_SIGNAL = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
CLEAN = {signal.SIGTERM: 0, signal.SIGINT: 0}


class Kind(NamedTuple):
    """One way to run a server.

    Attributes:
        name: What people write to run it.
        command: A module and its arguments.
        exits: The exit code for each signal.
        lifespan: Which signals it tells the application of.
        ready: What it says, and how often, when all its processes serve; None where the first answer says it.
    """

    name: str
    command: tuple[str, ...]
    exits: dict[signal.Signals, int] = CLEAN
    lifespan: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    ready: tuple[str, int] | None = None


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
        Kind("gunicorn -k asgi", (*GUNICORN, "-k", "asgi"), lifespan=(signal.SIGTERM,)),
        Kind("hypercorn", HYPERCORN),
        Kind("hypercorn --workers 0", (*HYPERCORN, "--workers", "0")),
        Kind("hypercorn -k uvloop", (*HYPERCORN, "-k", "uvloop")),
        Kind("hypercorn -k trio", (*HYPERCORN, "-k", "trio")),
        Kind("hypercorn -k trio --workers 0", (*HYPERCORN, "-k", "trio", "--workers", "0"), BY_SIGNAL, lifespan=()),
        Kind("granian", GRANIAN),
        Kind("granian --workers 2", (*GRANIAN, "--workers", "2"), ready=("Started worker", 2)),
        Kind("daphne", ("daphne", "--port", "{port}", "app:app"), lifespan=()),
    )
}
