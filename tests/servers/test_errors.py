"""A stream that fails, on every server: a real status before its first event, and no lost event after it."""

import http.client
import re
import subprocess
from contextlib import closing

import pytest

from servers.processes import EVENT_SOURCE, PATIENCE, Server, wait_until

ERROR = r"event: sse\.error\ndata: \{\}\n\n"
RETRY = r"retry: \d+\n"
END = 'id: sse.end\nevent: sse.end\ndata: {"state":"finished"}\n\n'
STACKS = ("none", "five")
HTTP2 = ("uvicorn --http zttp --http2", "hypercorn", "hypercorn -k trio", "granian")


def ask(server: Server, path: str, **headers: str) -> tuple[int, str]:
    """Return the status and the body, which must be complete."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("GET", path, headers={"Accept": "text/event-stream", "Cache-Control": "no-cache", **headers})
        with connection.getresponse() as response:
            return response.status, response.read().decode()


def ask_with_http2(server: Server, path: str) -> tuple[int, str]:
    """Do the same over HTTP/2."""
    command = ["curl", "--silent", "--fail-early", "--http2-prior-knowledge", "--write-out", "%{http_code}"]
    url = f"http://127.0.0.1:{server.port}{path}"
    body = subprocess.run([*command, *EVENT_SOURCE, url], check=True, stdout=subprocess.PIPE)
    return int(body.stdout[-3:]), body.stdout[:-3].decode()


def events(count: int) -> str:
    return "".join(f"data: {number}\n\n" for number in range(count))


def assert_recorded_once(server: Server, record: str, reason: str) -> None:
    """Check that the log has a record and its reason once."""
    wait_until(lambda: record in server.log(), seconds=5)
    server.get("/none/answer")
    assert server.log().count(record) == 1
    assert server.log().count(reason) == 1


# Before the first event

BEFORE = {
    "HTTPException": ("fail/{name}?error=forbidden", 403, '{{"detail":"not for {name}"}}'),
    "HTTPException in a thread": ("fail-in-thread/{name}?error=forbidden", 403, '{{"detail":"not for {name}"}}'),
    "validation error": (
        "fail/{name}?error=validation",
        422,
        '{{"detail":[{{"type":"missing","loc":["query","{name}"],"msg":"m"}}]}}',
    ),
    "ValueError": ("fail/{name}?error=value", 500, "Internal Server Error"),
    "ValueError in a thread": ("fail-in-thread/{name}?error=value", 500, "Internal Server Error"),
    "a first event that cannot be written": ("unwritable/{name}", 500, "Internal Server Error"),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("case", BEFORE)
def test_an_error_before_the_first_event_is_a_response(server: Server, name: str, stack: str, case: str) -> None:
    """With its own status, as from any endpoint."""
    path, status, body = BEFORE[case]
    assert ask(server, f"/{stack}/{path.format(name=name)}") == (status, body.format(name=name))


def test_a_validation_error_of_the_endpoint_is_a_response(server: Server, name: str) -> None:
    """FastAPI makes it before there is a stream."""
    status, body = ask(server, f"/five/fail/{name}?after=x")
    assert status == 422
    assert "int_parsing" in body


# After the first event

AFTER = {
    "ValueError": ("fail/{name}?error=value&after={after}"),
    "ValueError in a thread": ("fail-in-thread/{name}?error=value&after={after}"),
    "HTTPException": ("fail/{name}?error=forbidden&after={after}"),
    "an event that cannot be written": ("unwritable/{name}?after={after}"),
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("case", AFTER)
@pytest.mark.parametrize("after", [1, 3])
def test_an_error_after_events_loses_none(server: Server, name: str, stack: str, case: str, after: int) -> None:
    """They arrive, then an event without details, a retry, and the end of the body."""
    status, body = ask(server, f"/{stack}/{AFTER[case].format(name=name, after=after)}")
    assert status == 200
    assert re.fullmatch(re.escape(events(after)) + ERROR + RETRY, body), body


@pytest.mark.parametrize("stack", STACKS)
def test_an_error_is_recorded_once(server: Server, name: str, stack: str) -> None:
    """With the route and the reason. The background task runs."""
    ask(server, f"/{stack}/fail/{name}?after=3")
    reason = f"ValueError('secret of {name}')"
    assert_recorded_once(server, f"the content of the stream GET /{stack}/fail/{name} failed: {reason}", reason)
    assert server.log().count(f"ValueError: secret of {name}") <= 1  # gunicorn's own worker does not log it
    assert server.log().count(f"{name}: background done") == 1


ON_ERROR = {
    "tell": re.escape('data: {"told":"ValueError"}\n\n'),
    "tell_nothing": "",
    "fail_to_tell": ERROR,
}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("on_error", ON_ERROR)
def test_on_error_chooses_the_last_event(server: Server, name: str, stack: str, on_error: str) -> None:
    """Another event, or none. The default is sent where `on_error` fails itself."""
    _, body = ask(server, f"/{stack}/fail/{name}?after=3&on_error={on_error}")
    assert re.fullmatch(re.escape(events(3)) + ON_ERROR[on_error] + RETRY, body), body


def test_an_on_error_that_fails_is_recorded(server: Server, name: str) -> None:
    """With its route."""
    ask(server, f"/none/fail/{name}?after=3&on_error=fail_to_tell")
    server.wait_for(f"on_error of the stream GET /none/fail/{name} failed")


# At the end


@pytest.mark.parametrize("stack", STACKS)
def test_an_error_of_the_cleanup_cuts_nothing_off(server: Server, name: str, stack: str) -> None:
    """The body ends properly, one record is logged, and the background task runs."""
    _, body = ask(server, f"/{stack}/untidy/{name}?lifetime=0.1")
    assert re.fullmatch(r"data: x\n\n" + RETRY, body), body
    server.wait_for(f"{name}: background done")
    assert_recorded_once(
        server, f"the content of the stream GET /{stack}/untidy/{name} failed", f"ValueError: secret of {name}"
    )


@pytest.mark.parametrize("stack", STACKS)
def test_an_error_of_the_cleanup_is_recorded_when_the_client_has_left(server: Server, name: str, stack: str) -> None:
    """One record is logged, and the background task runs."""
    stream = server.open(f"/{stack}/untidy/{name}")
    stream.until(b"data: x\n\n")
    stream.close()
    server.wait_for(f"{name}: background done")
    assert_recorded_once(
        server, f"the content of the stream GET /{stack}/untidy/{name} failed", f"ValueError: secret of {name}"
    )


@pytest.mark.parametrize("stack", STACKS)
def test_a_background_task_that_fails_is_recorded_once(server: Server, name: str, stack: str) -> None:
    """The stream is complete before that."""
    assert ask(server, f"/{stack}/failing-background/{name}") == (200, "data: x\n\n" + END)
    assert_recorded_once(
        server,
        f"the background task of the stream GET /{stack}/failing-background/{name}",
        f"ValueError: secret of {name}",
    )


@pytest.mark.parametrize("stack", STACKS)
def test_a_finished_stream_is_not_run_again(server: Server, name: str, stack: str) -> None:
    """It ends with an id. A client that comes back with that id gets a 204, and the content does not run."""
    path = f"/{stack}/job/{name}"
    assert ask(server, path) == (200, "data: 1\n\ndata: 2\n\n" + END)
    assert ask(server, path, **{"Last-Event-ID": "sse.end"}) == (204, "")
    assert server.log().count(f"{name}: began") == 1


# HTTP/2


@pytest.mark.parametrize("which", HTTP2, indirect=True)
def test_errors_over_http2(server: Server, name: str) -> None:
    """Statuses and bytes are the same, and the stream ends."""
    assert ask_with_http2(server, f"/five/fail/{name}?error=forbidden") == (403, f'{{"detail":"not for {name}"}}')
    assert ask_with_http2(server, f"/five/fail/{name}") == (500, "Internal Server Error")
    status, body = ask_with_http2(server, f"/five/fail/{name}?after=3")
    assert status == 200
    assert re.fullmatch(re.escape(events(3)) + ERROR + RETRY, body), body
    assert ask_with_http2(server, f"/five/job/{name}") == (200, "data: 1\n\ndata: 2\n\n" + END)
