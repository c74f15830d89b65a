"""Runs in the memory of one server, when it is told to stop."""

import signal
import time
from collections.abc import Callable

import pytest

from servers.processes import PATIENCE, Server, clock

APP = ("uvicorn", "run_app:app", "--port", "{port}", "--log-level", "warning")


def frames(count: int, content: bytes) -> bool:
    """Return True if the content has the frames of so many tokens, in order, and no other one."""
    found = [line for line in content.split(b"\n") if line.startswith(b"data: ") and line[6:].isdigit()]
    return found == [b"data: %d" % number for number in range(count)]


def test_a_run_ends_by_itself_while_the_server_drains(serve: Callable[..., Server]) -> None:
    """Its follower gets every event and the end, and the server stops at once then."""
    server = serve(APP, DRAIN="10")
    server.get("/start?key=a&count=20&pause=0.05")
    stream = server.open("/follow?key=a")
    stream.until(b"data: 3\n")
    seconds, log = server.stop()
    assert frames(20, stream.rest())
    assert stream.content.endswith(b'event: sse.end\ndata: {"state":"finished"}\n\n')
    assert seconds < 5
    assert "cleaned a" in log
    assert "lost" not in log


def test_a_run_that_nobody_follows_ends_while_the_server_drains(serve: Callable[..., Server]) -> None:
    """A run needs no open stream for that."""
    server = serve(APP, DRAIN="10")
    server.get("/start?key=a&count=10&pause=0.05")
    seconds, log = server.stop()
    assert seconds < 5
    assert "cleaned a" in log
    assert "lost" not in log


@pytest.mark.parametrize(("drain", "signals"), [("0", 1), ("60", 2)])
def test_a_run_is_lost_without_draining(serve: Callable[..., Server], drain: str, signals: int) -> None:
    """Or at the second signal. Its source has cleaned up before the server ends, and its stream is complete."""
    server = serve(APP, DRAIN=drain)
    server.get("/start?key=a&count=2000&pause=0.05")
    stream = server.open("/follow?key=a")
    stream.until(b"data: 3\n")
    began = clock()
    server.send(signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while signals == 2 and "cleaned a" not in server.log() and time.monotonic() < deadline:
        time.sleep(1.2)  # a signal that comes sooner is the same one, and a loaded machine may have heard late
        server.send(signal.SIGTERM)
    seconds, log = server.ended(began)
    assert seconds < 6
    assert "cleaned a" in log
    assert "the run a is lost: its hub was closed" in log
    assert b"\nretry: " in stream.rest()


def test_a_reconnect_after_the_end(serve: Callable[..., Server]) -> None:
    """It is a 204, with the id of the last event."""
    server = serve(APP)
    server.get("/start?key=a&count=3&pause=0.01")
    content = server.open("/follow?key=a").rest()
    assert frames(3, content)
    last = content.rpartition(b"id: ")[2].partition(b"\n")[0].decode()
    again = server.open("/follow?key=a", **{"Last-Event-ID": last})
    assert again.response.status == 204
