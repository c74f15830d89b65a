"""Content that yields after the end keeps neither its place in a limit nor the server."""

import signal
from collections.abc import Callable

import pytest

from servers.kinds import UVICORN
from servers.processes import Server, clock, wait_until

SOON = 3.0  # less than `cleanup_timeout`, which is 5 s
COMMAND = tuple(word.replace("app:app", "yielding_app:app") for word in UVICORN)


@pytest.fixture(params=["in_finally", "when_cancelled", "in_a_thread", "iterated"])
def content(request: pytest.FixtureRequest) -> str:
    """Return the name of each content."""
    name: str = request.param
    return name


def test_a_client_that_leaves_frees_its_place(serve: Callable[..., Server], content: str) -> None:
    """At the next yield. The content's own `finally` runs, and no error is logged."""
    server = serve(COMMAND)
    stream = server.open(f"/content/{content}")
    stream.until(b"data: x\n\ndata: x\n\n")
    assert server.get("/open") == "1"
    stream.close()
    wait_until(lambda: server.get("/open") == "0", seconds=SOON)
    assert server.log() == "closed\n"


def test_the_server_stops(serve: Callable[..., Server], content: str) -> None:
    """After Ctrl-C, and the body is complete."""
    server = serve(COMMAND)
    stream = server.open(f"/content/{content}")
    stream.until(b"data: x\n\ndata: x\n\n")
    began = clock()
    server.send_to_all(signal.SIGINT)
    assert b"retry: " in stream.rest()
    took, log = server.ended(began)
    assert took < SOON
    assert "closed" in log
    assert "Traceback" not in log
    assert "clean up" not in log
