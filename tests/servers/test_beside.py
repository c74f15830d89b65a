"""Servers that share an event loop stop independently, and hypercorn stops by any `shutdown_trigger`."""

import http.client
import signal
from collections.abc import Callable
from contextlib import closing

import pytest

from servers.kinds import STOP_SECONDS
from servers.processes import PATIENCE, Server, Stream, clock, free_port, wait_until

Serve = Callable[..., Server]
PAIRS = (("uvicorn", "uvicorn"), ("uvicorn", "hypercorn"), ("hypercorn", "uvicorn"), ("hypercorn", "hypercorn"))
KINDS = [pytest.param(pair, id=" and ".join(pair)) for pair in PAIRS]


class Pair:
    """Two servers in the event loop of one process."""

    def __init__(self, serve: Serve, kinds: tuple[str, str], **environment: str) -> None:
        second = free_port()
        self.server = serve(("beside", f"{kinds[0]}:{{port}}", f"{kinds[1]}:{second}"), **environment)
        self.ports = self.server.port, second
        self.names = tuple(f"{kind}:{port}" for kind, port in zip(kinds, self.ports, strict=True))
        wait_until(lambda: self.get(1, "/publish?data=x"))

    def open(self, which: int, path: str) -> Stream:
        stream = Stream(self.ports[which], path, {})
        self.server.streams.append(stream)
        stream.until(b"\n\n")
        return stream

    def get(self, which: int, path: str) -> bool:
        """Return True if a server answers."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.ports[which], timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", path, headers={"Connection": "close"})
            except OSError:
                return False
            with connection.getresponse() as response:
                return response.status == 200

    def wait_until_stopped(self, which: int) -> None:
        self.server.wait_for(f"lifespan of {self.names[which]} ended")


def retried(stream: Stream) -> bool:
    """Read a body to its proper end; return True if it ends with a `retry:`."""
    return stream.rest().splitlines()[-1].startswith(b"retry: ")


@pytest.mark.parametrize("bare", ["", "1"], ids=["", "without the middleware"])
@pytest.mark.parametrize("kinds", KINDS)
def test_both_stop(serve: Serve, kinds: tuple[str, str], bare: str) -> None:
    """By SIGTERM, with streams on both: each within the time of one, and with complete bodies."""
    pair = Pair(serve, kinds, BARE=bare)
    paths = ("/own", "/hub/") if bare else ("/own", "/hub/", "/foreign")
    streams = [pair.open(which, path) for which in (0, 1) for path in paths]
    took, log = pair.server.stop(signal.SIGTERM)
    assert took < 2 * STOP_SECONDS  # uvicorn passes the signal on after it has stopped
    assert all(retried(stream) for stream in streams)
    assert log.count("ended") == 2
    assert "Traceback" not in log


@pytest.mark.parametrize("first", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("kinds", KINDS)
def test_one_stops_alone(serve: Serve, kinds: tuple[str, str], first: int) -> None:
    """Its streams end. Those of the other server go on, and new ones begin there, until it stops too."""
    pair, second = Pair(serve, kinds), 1 - first
    stopped = [pair.open(first, path) for path in ("/own", "/hub/", "/foreign")]
    going_on = [pair.open(second, path) for path in ("/hub/", "/own", "/foreign")]
    began = clock()
    assert pair.get(first, "/stop")
    assert all(retried(stream) for stream in stopped)
    pair.wait_until_stopped(first)
    assert clock() - began < STOP_SECONDS
    later = pair.open(second, "/hub/")
    assert pair.get(second, "/publish?data=later")
    for stream in (going_on[0], later):
        stream.until(b"data: later\n\n")
    began = clock()
    assert pair.get(second, "/stop")
    assert all(retried(stream) for stream in (*going_on, later))
    took, log = pair.server.ended(began)
    assert took < STOP_SECONDS
    assert "Traceback" not in log


@pytest.mark.parametrize("trigger", ["Event.wait", "function", "lambda", "future", "partial"])
def test_hypercorn_stops_by_any_trigger(serve: Serve, trigger: str) -> None:
    """With any `shutdown_trigger`, streams end at once, complete, and hypercorn does not abort them after 3 s."""
    server = serve(("beside", "hypercorn:{port}"), TRIGGER=trigger)
    streams = [server.open(path) for path in ("/own", "/hub/", "/foreign")]
    for stream in streams:
        stream.until(b"\n\n")
    began = clock()
    server.get("/stop")
    assert all(retried(stream) for stream in streams)
    took, log = server.ended(began)
    assert took < STOP_SECONDS
    assert "Traceback" not in log
