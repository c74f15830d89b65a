"""Event streams of other libraries in an application with our middleware behave as well as ours."""

import http.client
import signal
from collections.abc import Callable
from contextlib import closing

import pytest

from servers.kinds import KINDS
from servers.processes import Server

Serve = Callable[..., Server]

FOREIGN = {"/foreign?pause=3600": b"data: x\n\n", "/fastapi/stream": b'data: "x"\n\n', "/sse_starlette": b"data: x"}


@pytest.fixture(params=["uvicorn", "hypercorn", "granian", "gunicorn -k asgi"])
def name(request: pytest.FixtureRequest) -> str:
    value: str = request.param
    return value


def test_they_end_at_shutdown(serve: Serve, name: str) -> None:
    """Streams of Starlette, FastAPI and sse-starlette end with a `retry:`. The server stops too."""
    server = serve(KINDS[name])
    streams = [server.open(path) for path in FOREIGN]
    for stream in streams:
        stream.until(FOREIGN[stream.path])
    server.send(signal.SIGTERM)
    assert all(stream.rest().splitlines()[-1].startswith(b"retry: ") for stream in streams)
    server.process.wait(KINDS[name].stop_seconds)


def test_they_are_pinged_in_silence_and_end_with_their_lifetime(serve: Serve, name: str) -> None:
    """No ping comes in the middle of a frame. The end has a `retry:`, unless it is in the middle of a frame."""
    server = serve(KINDS[name], PING_INTERVAL="0.2", MAX_LIFETIME="1")
    streams = [server.open(path) for path in FOREIGN]
    half = server.open("/foreign?half=1&pause=3600")
    for stream in streams:
        content = stream.rest()
        assert content.count(b"\n:\n") >= 2
        assert content.splitlines()[-1].startswith(b"retry: ")
    assert half.rest() == b"data: half"


def test_their_heads_keep_proxies_from_holding_them_back(serve: Serve, name: str) -> None:
    """Our middleware adds the headers that they do not set."""
    server = serve(KINDS[name])
    for path in FOREIGN:
        with closing(server.open(path)) as stream:
            headers = stream.response.headers
            assert headers["X-Accel-Buffering"] == "no"
            assert "no-" in headers["Cache-Control"]


def test_the_newest_are_refused_above_a_limit(serve: Serve, name: str) -> None:
    """Ours and theirs get an empty stream with a `retry:`. A place that becomes free is given to the next stream."""
    server = serve(KINDS[name], MAX_CONNECTIONS="2")
    first, second = server.open("/idle"), server.open("/foreign")
    for stream in (first, second):
        stream.until(b"\n\n")
    for path in ("/idle", "/foreign", "/hub/", *FOREIGN):
        refused = server.open(path)
        assert refused.response.status == http.client.OK
        assert refused.response.headers["Content-Type"].startswith("text/event-stream")
        body = refused.rest()
        assert 2000 <= int(body.removeprefix(b"retry: ")) <= 6000
    assert "Traceback" not in server.log()
    assert server.get("/census")
    first.close()
    server.wait_for("reason client")
    server.open("/hub/").until(b"id: ")
