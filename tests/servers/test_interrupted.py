"""A stream that is cut off does not look finished to a client that is not an EventSource, on every server."""

import signal
from collections.abc import Callable

import pytest

from servers.clients import COMPLETE, CUT_OFF, Clients, by_fetch, by_httpx, curl, curl_with_http2
from servers.kinds import KINDS
from servers.processes import Server

Serve = Callable[..., Server]

NAMES = [
    "uvicorn",
    "uvicorn --http h11 --loop asyncio",
    "hypercorn",
    "granian",
    "gunicorn -k asgi",
    "gunicorn -k uvicorn_worker.UvicornWorker",
]
STACKS = {
    "middleware": {},
    "bare": {"BARE": "1"},
    "BaseHTTPMiddleware inside": {"PASSING": "2"},
}
COMPLAINT = "without completing"


def start(serve: Serve, name: str, **environment: str) -> Server:
    command = tuple(word.replace("app:app", "cut_app:app") for word in KINDS[name].command)
    return serve(command, **environment)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_stream_that_is_cut_off_is_seen_as_cut_off(serve: Serve, name: str, stack: str) -> None:
    """A fetch rejects, httpx raises and curl exits with 18. EventSource gets a `retry:` and a complete body."""
    server = start(serve, name, **STACKS[stack])
    clients = Clients(server)
    for client in (curl, by_httpx, by_fetch):
        clients.ask(client, "/ours")
    clients.ask(curl, "/ours", "GET")
    clients.ask(curl, "/subscription", "GET")
    clients.ask(curl, "/sync")
    clients.ask(curl, "/ours?max_lifetime=0.3")
    clients.ask(curl, "/ours?count=2&fail")
    clients.ask(curl, "/ours?count=2")
    if stack != "bare":
        clients.ask(curl, "/foreign")
    event_sources = [server.open(path) for path in ("/ours", "/subscription", "/sync")]
    for stream in event_sources:
        stream.until(b"\n\n")
    clients.wait(3, len(event_sources))
    server.send(signal.SIGTERM)
    answers = clients.answers()
    assert answers.pop("curl POST /ours?count=2") == COMPLETE
    assert set(answers.values()) == {CUT_OFF}, answers
    assert all(stream.rest().splitlines()[-1].startswith(b"retry: ") for stream in event_sources)
    server.process.wait(KINDS[name].stop_seconds + 2)
    assert COMPLAINT not in server.log()


@pytest.mark.parametrize(
    ("name", "outcome"), [("uvicorn", CUT_OFF), ("gunicorn -k asgi", CUT_OFF), ("granian", COMPLETE)]
)
def test_a_basehttpmiddleware_completes_bodies(serve: Serve, name: str, outcome: str) -> None:
    """It does so without EventSourceMiddleware around it, where the server does not let us close the connection."""
    server = start(serve, name, BARE="1", PASSING="2")
    clients = Clients(server)
    clients.ask(curl, "/ours")
    clients.ask(curl, "/ours?max_lifetime=0.3")
    clients.wait(1)
    server.send(signal.SIGTERM)
    assert set(clients.answers().values()) == {outcome}
    server.process.wait(KINDS[name].stop_seconds + 2)
    assert COMPLAINT not in server.log()


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("uvicorn --http zttp --http2", CUT_OFF), ("granian", CUT_OFF), ("hypercorn", COMPLETE)],
)
def test_over_http2_only_the_stream_is_reset(serve: Serve, name: str, outcome: str) -> None:
    """On hypercorn that is impossible, so bodies are completed there."""
    server = start(serve, name)
    clients = Clients(server)
    clients.ask(curl_with_http2, "/ours")
    clients.ask(curl_with_http2, "/ours?max_lifetime=0.3")
    clients.wait(1)
    server.send(signal.SIGTERM)
    assert set(clients.answers().values()) == {outcome}
    assert COMPLAINT not in server.log()


def test_daphne_completes_every_body(serve: Serve) -> None:
    """Its client would wait for ever otherwise."""
    server = start(serve, "daphne", BARE="1")
    clients = Clients(server)
    clients.ask(curl, "/ours?max_lifetime=0.3")
    assert clients.answers() == {"curl POST /ours?max_lifetime=0.3": COMPLETE}
