"""Every server stops with open streams: bodies are complete, content has cleaned up, and no process is left."""

import signal
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException

import pytest

from servers.kinds import KINDS, Kind
from servers.processes import Server, Stream, clock, wait_until

Serve = Callable[..., Server]
Record = Callable[[str, str, str, float], None]
PATHS = ("/idle", "/busy", "/sync", "/hub/", "/foreign?pause=3600")
STREAMS = 50
WAYS: dict[str, tuple[signal.Signals, Callable[[Server], None]]] = {
    "SIGTERM": (signal.SIGTERM, lambda server: server.send(signal.SIGTERM)),
    "SIGTERM twice": (signal.SIGTERM, lambda server: server.send(signal.SIGTERM, times=2)),
    "SIGTERM to all": (signal.SIGTERM, lambda server: server.send_to_all(signal.SIGTERM)),
    "Ctrl-C": (signal.SIGINT, lambda server: server.send_to_all(signal.SIGINT)),
}


def retry_of(body: bytes) -> int:
    """Return the value of the last line, which must be a `retry:`."""
    name, value = body.splitlines()[-1].split(b": ")
    assert name == b"retry", body[-100:]
    return int(value)


def assert_complete(server: Server, streams: list[Stream], *, others: int = 0) -> None:
    """Check that every body ends properly, and that the retries are spread over a time that grows with their number.

    Args:
        server: The server that stops.
        streams: The streams to check.
        others: The number of other streams.
    """
    waits = [retry_of(stream.rest()) for stream in streams]
    assert all(500 <= wait <= 1500 + 2 * (len(streams) + others) for wait in waits), waits
    assert len(set(waits)) > len(waits) / 2
    wait_until(lambda: server.process.poll() is not None)
    wait_until(lambda: not server.running())


def assert_clean(log: str, *, lifespan: bool, **times: int) -> None:
    """Check that everything was cleaned up, before the lifespan ended."""
    assert "Traceback" not in log, log
    assert "Task was destroyed" not in log, log
    counted = {name: log.count(name.replace("_", " ")) for name in times}
    assert counted == times, log
    if lifespan:
        assert max(log.rindex(name.replace("_", " ")) for name in times) < log.rindex("lifespan ended"), log


def stop_with_fifty_streams(server: Server, way: str) -> tuple[Server, float]:
    streams = [server.open(PATHS[number % len(PATHS)]) for number in range(STREAMS)]
    for stream in streams:
        stream.until(b"\n\n")
    began = clock()
    WAYS[way][1](server)
    assert_complete(server, streams)
    return server, clock() - began


@pytest.mark.parametrize("way", WAYS)
def test_it_stops_with_fifty_streams(serve: Serve, record: Record, kind: Kind, way: str) -> None:
    """Idle, busy, in threads, of a hub and of Starlette. Each gets a retry of its own."""
    server, took = stop_with_fifty_streams(serve(kind), way)
    if "panicked at" in server.log():  # granian's extension does this rarely, see docs/shutdown.md
        server, took = stop_with_fifty_streams(serve(kind), way)
    number, each = WAYS[way][0], STREAMS // len(PATHS)
    assert took < kind.stop_seconds
    record("stopping", kind.name, way, took)
    assert server.process.returncode == kind.exits[number]
    assert_clean(
        server.log(),
        lifespan=number in kind.lifespan,
        job_cleaned=2 * each,
        reason_shutdown=each,
        sync_closed=each,
        foreign_cleaned=each,
    )


def test_it_stops_with_stalled_readers(serve: Serve, record: Record, kind: Kind) -> None:
    """Their connections are aborted, so that they hold up neither the server nor other streams."""
    server = serve(kind)
    for path in ("/flood", "/foreign_flood"):
        server.open(path).until(b"\n\n")
    other = server.open("/idle")
    other.until(b"\n\n")
    server.wait_until_full()
    took, log = server.stop()
    assert took < kind.stop_seconds
    record("stopping", kind.name, "SIGTERM, stalled readers", took)
    assert_complete(server, [other], others=2)
    assert_clean(log, lifespan=signal.SIGTERM in kind.lifespan, job_cleaned=1, flood_closed=1)


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn", "granian", "gunicorn -k asgi", "daphne"])
@pytest.mark.parametrize("passing", ["", "5"], ids=["plain", "behind five BaseHTTPMiddlewares"])
def test_it_stops_without_the_middleware(serve: Serve, name: str, passing: str) -> None:
    """An EventSourceResponse alone is enough."""
    server = serve(KINDS[name], BARE="1", PASSING=passing or "0")
    streams = [server.open(path) for path in ("/idle", "/busy", "/sync")]
    for stream in streams:
        stream.until(b"\n\n")
    took, log = server.stop()
    assert took < KINDS[name].stop_seconds
    assert_complete(server, streams)
    assert "Traceback" not in log


@pytest.mark.parametrize("name", ["uvicorn --http zttp --http2", "hypercorn", "granian"])
def test_it_stops_with_streams_over_http2(serve: Serve, name: str) -> None:
    """They end as over HTTP/1.1."""
    server = serve(KINDS[name])
    streams = [server.open_http2(path) for path in PATHS]
    for stream in streams:
        stream.until(b"\n\n")
    server.send(signal.SIGTERM)
    began = clock()
    for stream in streams:
        assert retry_of(stream.rest())
    took, log = server.ended(began)
    assert took < KINDS[name].stop_seconds
    assert_clean(log, lifespan=True, job_cleaned=2, reason_shutdown=1, sync_closed=1, foreign_cleaned=1)


RECYCLED = {
    "uvicorn": ("--limit-max-requests", "4"),
    "gunicorn -k uvicorn_worker.UvicornWorker": ("--max-requests", "4"),
    "gunicorn -k asgi": ("--max-requests", "4"),
    "hypercorn": ("--max-requests", "4"),
    "hypercorn -k trio": ("--max-requests", "4"),
}


@pytest.mark.parametrize("name", RECYCLED)
def test_a_recycled_worker_stops(serve: Serve, name: str) -> None:
    """A server whose limit of requests is reached stops by itself, without a signal."""
    server = serve(KINDS[name], *RECYCLED[name])
    stream = server.open("/hub/")
    stream.until(b"\n\n")
    for _ in range(5):
        with suppress(OSError, HTTPException):  # it may have stopped
            server.get("/publish?data=x")
    assert retry_of(stream.rest())
    server.wait_for("lifespan ended")
