"""A server that forks its workers after it has imported the application."""

import json
from collections.abc import Callable

from servers.processes import Server, wait_until

PRELOADED = ("gunicorn", "preloaded_app:app", "--bind", "127.0.0.1:{port}", "--no-control-socket", "--preload")


def test_each_worker_of_a_preloaded_application_has_an_epoch_of_its_own(serve: Callable[..., Server]) -> None:
    """A browser that reaches the other worker gets a gap, and no events of another log."""
    server = serve(PRELOADED, "--workers", "2", "-k", "asgi")
    epochs: dict[int, str] = {}

    def both_have_answered() -> bool:
        answer = json.loads(server.get("/publish"))
        epochs[answer["process"]] = answer["id"].partition("-")[0]
        return len(epochs) == 2

    wait_until(both_have_answered)
    assert len(set(epochs.values())) == 2
