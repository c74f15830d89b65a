"""Several workers with the backend for one process: on each real server, the log has a warning."""

from collections.abc import Callable

import pytest

from servers.kinds import GRANIAN, GUNICORN, HYPERCORN, UVICORN
from servers.processes import Server

COMMANDS = {
    "uvicorn": UVICORN,
    "gunicorn -k asgi": (*GUNICORN, "-k", "asgi"),
    "gunicorn -k uvicorn_worker.UvicornWorker": (*GUNICORN, "-k", "uvicorn_worker.UvicornWorker"),
    "hypercorn": HYPERCORN,
    "hypercorn -k trio": (*HYPERCORN, "-k", "trio"),
    "granian": GRANIAN,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_several_workers_are_warned(serve: Callable[..., Server], name: str) -> None:
    """Each worker reads the configuration of its server."""
    server = serve(COMMANDS[name], "--workers", "2")
    server.wait_for("MemoryBackend with 2 workers", 2)


@pytest.mark.parametrize("name", COMMANDS)
def test_one_worker_is_not_warned(serve: Callable[..., Server], name: str) -> None:
    """One process has every reader."""
    server = serve(COMMANDS[name])
    server.open("/hub/").until(b"\n\n")
    assert "MemoryBackend with" not in server.log()
