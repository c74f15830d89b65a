"""Answers that run when the server is told to stop go on to their own end, for the `drain_timeout`, on every server."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from servers.clients import COMPLETE, CUT_OFF, Clients, curl
from servers.kinds import KINDS, STOP_SECONDS
from servers.processes import Server, clock, wait_until

Serve = Callable[..., Server]

# hypercorn's own grace is 3 s, and gunicorn's 30 s.
NAMES = {
    "uvicorn": (),
    "hypercorn": ("--graceful-timeout", "15"),
    "granian": (),
    "gunicorn -k asgi": (),
    "gunicorn -k uvicorn_worker.UvicornWorker": (),
}
FOR_3_SECONDS = "?count=30"


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def start(serve: Serve, name: str, **environment: str) -> Server:
    command = tuple(word.replace("app:app", "cut_app:app") for word in KINDS[name].command)
    return serve(command, *NAMES[name], **environment)


def test_twenty_answers_are_complete(serve: Serve, name: str) -> None:
    """They have 3 s each. The server ends right after the last one. A subscription ends at once."""
    server = start(serve, name, DRAIN="30")
    clients = Clients(server)
    for number in range(7):
        for path in ("/ours", "/sync", "/foreign")[: 2 if number == 6 else 3]:
            clients.ask(curl, f"{path}{FOR_3_SECONDS}&{number}")
    event_source, subscription = server.open(f"/ours{FOR_3_SECONDS}"), server.open("/subscription")
    subscription.until(b"\n\n")
    clients.wait(0, 2)
    began = clock()
    server.send(signal.SIGTERM)
    assert subscription.rest().splitlines()[-1].startswith(b"retry: ")
    assert clock() - began < STOP_SECONDS
    assert set(clients.answers().values()) == {COMPLETE}
    assert event_source.rest().endswith(b'event: sse.end\ndata: {"state":"finished"}\n\n')
    server.process.wait(KINDS[name].stop_seconds)
    assert "Traceback" not in server.log()


def test_the_rest_is_cut_off_at_the_timeout(serve: Serve, name: str) -> None:
    """The option of a response comes before that of the middleware."""
    server = start(serve, name, DRAIN="2")
    clients = Clients(server)
    for path in ("/ours?drain_timeout=1", "/sync", "/foreign"):
        clients.ask(curl, path)
    at_once = server.open("/ours?drain_timeout=0")
    clients.wait(0, 1)
    began, signalled = clock(), time.monotonic()
    server.send(signal.SIGTERM)
    assert at_once.rest().splitlines()[-1].startswith(b"retry: ")
    assert clock() - began < 1
    clients.wait(1, 1)
    assert time.monotonic() - signalled >= 1
    assert clients.running() == 2
    assert set(clients.answers().values()) == {CUT_OFF}
    assert time.monotonic() - signalled >= 2
    server.process.wait(KINDS[name].stop_seconds)


def test_a_second_signal_cuts_them_off(serve: Serve, name: str) -> None:
    """It is one that comes a second later or more, because a process may get the first one twice.

    Not granian's: its own handler of the second of two signals at once may wait for ever (`WorkerSignal.set`).
    """
    server = start(serve, name, DRAIN="30")
    clients = Clients(server)
    for path in ("/ours", "/sync", "/foreign"):
        clients.ask(curl, path)
    clients.wait(0)
    workers = server.workers()
    for worker in workers:
        for _ in range(1 if name == "granian" else 2):
            os.kill(worker, signal.SIGTERM)
    time.sleep(1.5)
    assert clients.running() == 3
    deadline = time.monotonic() + 10
    while clients.running() and time.monotonic() < deadline:  # a worker on a loaded machine may have heard late
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)
        time.sleep(1)
    assert set(clients.answers().values()) == {CUT_OFF}


def test_new_streams_are_refused_meanwhile(serve: Serve) -> None:
    """An EventSource gets a `retry:` and the end, any other client a 503, if the connection was there before."""
    server = start(serve, "granian", DRAIN="30")
    clients = Clients(server)
    clients.ask(curl, f"/ours{FOR_3_SECONDS}")
    clients.wait(0)
    server.send(signal.SIGTERM)
    assert clients.answers() == {f"curl POST /ours{FOR_3_SECONDS}": COMPLETE}
    wait_until(lambda: server.process.poll() is not None)
