"""A real uvicorn: recycled, with workers, with a reload, and with clients that leave and resume."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from servers.kinds import KINDS, STOP_SECONDS
from servers.processes import HERE, Server, clock

Start = Callable[..., Server]


def test_a_recycled_worker_stops(uvicorn_server: Start) -> None:
    """With --limit-max-requests no signal is sent, and streams end all the same."""
    server = uvicorn_server("--limit-max-requests", "4")
    stream = server.open("/hub/")
    stream.until(b"\n\n")
    began, latest = clock(), time.monotonic() + 10
    while server.process.poll() is None and time.monotonic() < latest:
        try:
            server.get("/publish?data=x")
        except OSError:
            break
    assert b"retry: " in stream.rest()
    assert server.ended(began)[0] < 2 * STOP_SECONDS  # for the requests, and for stopping


def test_workers_stop(uvicorn_server: Start) -> None:
    """Several processes stop. The memory backend has warned about them."""
    server = uvicorn_server("--workers", "2")
    streams = [server.open("/busy") for _ in range(6)]
    for stream in streams:
        stream.until(b"\n\n")
    took, log = server.stop()
    assert took < KINDS["uvicorn --workers 2"].stop_seconds
    assert all(b"retry: " in stream.rest() for stream in streams)
    assert "MemoryBackend with 2 workers" in log


def test_a_reload_does_not_wait_for_streams(uvicorn_server: Start, tmp_path: Path) -> None:
    """After a file was edited, the streams end, and the new process answers."""
    shutil.copy(HERE / "app.py", tmp_path / "app.py")
    server = uvicorn_server("--reload", "--reload-dir", str(tmp_path), "--app-dir", str(tmp_path))
    stream = server.open("/hub/")
    stream.until(b"\n\n")
    with (tmp_path / "app.py").open("a") as file:
        file.write("\n# edited\n")
    later = time.time() + 10  # file times may have a resolution of a second
    os.utime(tmp_path / "app.py", (later, later))
    assert b"retry: " in stream.rest()
    server.wait_until_it_answers()
    server.stop()


def test_resuming_after_a_disconnect(uvicorn_server: Start) -> None:
    """Over real sockets, the events that were published meanwhile arrive once, in order."""
    server = uvicorn_server()
    stream = server.open("/hub/")
    stream.until(b"\n\n")
    server.get("/publish?data=1")
    last_event_id = stream.until(b"data: 1\n\n").split(b"id: ")[-1].split(b"\n")[0].decode()
    stream.close()
    for number in range(2, 5):
        server.get(f"/publish?data={number}")
    again = server.open("/hub/", **{"Last-Event-ID": last_event_id})
    content = again.until(b"data: 4\n\n")
    assert [line for line in content.splitlines() if line.startswith(b"data")] == [b"data: 2", b"data: 3", b"data: 4"]
    again.close()
    server.stop()


def test_events_over_http2_arrive_once_and_in_order(uvicorn_server: Start) -> None:
    """The publisher sends them itself, in no task of theirs, as it does over HTTP/1.1."""
    server = uvicorn_server("--http", "zttp", "--http2")
    streams = [server.open_http2("/hub/") for _ in range(3)]
    for stream in streams:
        stream.until(b"\n\n")
    for number in range(20):
        server.get(f"/publish?data={number}")
    for stream in streams:
        content = stream.until(b"data: 19\n\n")
        found = [line for line in content.splitlines() if line.startswith(b"data: ") and line != b"data: {}"]
        assert found == [b"data: %d" % number for number in range(20)]
        stream.close()
    server.stop()


def test_a_client_that_leaves_is_noticed(uvicorn_server: Start) -> None:
    """The content is cleaned up, and the background task runs, while the server goes on."""
    server = uvicorn_server()
    stream = server.open("/idle")
    stream.until(b"\n\n")
    stream.close()
    server.wait_for("job cleaned\nreason client\n")
    server.stop()
