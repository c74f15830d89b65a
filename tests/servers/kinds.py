"""Every server that the tests run, and what is known of it."""

import signal
from typing import NamedTuple

UVICORN = ("uvicorn", "app:app", "--port", "{port}", "--log-level", "warning")
GUNICORN = ("gunicorn", "app:app", "--bind", "127.0.0.1:{port}", "--no-control-socket")
HYPERCORN = ("hypercorn", "app:app", "--bind", "127.0.0.1:{port}")
GRANIAN = ("granian", "--interface", "asgi", "app:app", "--port", "{port}")

BY_SIGNAL = {signal.SIGTERM: -signal.SIGTERM, signal.SIGINT: 0}
CLEAN = {signal.SIGTERM: 0, signal.SIGINT: 0}


class Kind(NamedTuple):
    """One way to run a server.

    Attributes:
        command: A module and its arguments.
        exits: The exit code for each signal.
        lifespan: Which signals it tells the application of.
        processes: How many processes serve.
    """

    command: tuple[str, ...]
    exits: dict[signal.Signals, int] = CLEAN
    lifespan: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    processes: int = 1


KINDS = {
    "uvicorn": Kind(UVICORN, BY_SIGNAL),
    "uvicorn --http h11 --loop asyncio": Kind((*UVICORN, "--http", "h11", "--loop", "asyncio"), BY_SIGNAL),
    "uvicorn --http zttp --http2": Kind((*UVICORN, "--http", "zttp", "--http2"), BY_SIGNAL),
    "uvicorn --workers 2": Kind((*UVICORN, "--workers", "2"), processes=2),
    "uvicorn --reload": Kind((*UVICORN, "--reload")),
    "uvicorn.Server in a thread": Kind(("in_thread", "{port}")),
    "gunicorn -k uvicorn_worker.UvicornWorker": Kind((*GUNICORN, "-k", "uvicorn_worker.UvicornWorker")),
    "gunicorn -k asgi": Kind((*GUNICORN, "-k", "asgi"), lifespan=(signal.SIGTERM,)),
    "hypercorn": Kind(HYPERCORN),
    "hypercorn --workers 0": Kind((*HYPERCORN, "--workers", "0")),
    "hypercorn -k uvloop": Kind((*HYPERCORN, "-k", "uvloop")),
    "hypercorn -k trio": Kind((*HYPERCORN, "-k", "trio")),
    "hypercorn -k trio --workers 0": Kind((*HYPERCORN, "-k", "trio", "--workers", "0"), BY_SIGNAL, lifespan=()),
    "granian": Kind(GRANIAN),
    "granian --workers 2": Kind((*GRANIAN, "--workers", "2"), processes=2),
    "daphne": Kind(("daphne", "--port", "{port}", "app:app"), lifespan=()),
}
