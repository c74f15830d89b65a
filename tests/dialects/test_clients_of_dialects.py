"""Each protocol's own clients, of PyPI and npm, read a dialect's streams from a real uvicorn."""

import pytest

from dialects.conftest import Run
from servers.processes import Server

TEXT = "Grüße, 世界 😀\n\ndata: [DONE]\n\n[DONE]\r\nevent: error\r\n\u2028."
ERRORS = {
    "openai of PyPI": "APIError",
    "anthropic of PyPI": "APIStatusError",
    "openai of npm": "APIError",
    "anthropic of npm": "APIError",
    "AI SDK": "Error",
    "AG-UI": "RUN_ERROR",
}
# npm's anthropic takes a stream without a message for an error of its own.
EMPTY = {"anthropic of npm": ("AnthropicError", "request ended without sending any chunks")}


@pytest.mark.parametrize("client", ERRORS)
def test_a_text_streams_and_ends(seen: Run, client: str) -> None:
    """With pings in between; what a model says is neither a frame nor an end."""
    assert seen[client, "text"] == (TEXT, None, None)


@pytest.mark.parametrize("scenario", ["error", "unfinished"])
@pytest.mark.parametrize("client", ERRORS)
def test_an_error_raises_the_clients_own(seen: Run, client: str, scenario: str) -> None:
    """After the text, with our words and no detail; also where a stream that is passed on breaks off inside a frame."""
    text, error, message = seen[client, scenario]
    assert (text != "", TEXT.startswith(text), error) == (True, True, ERRORS[client])
    assert "The server failed while it wrote this answer." in (message or "")
    assert "secret" not in (message or "")


@pytest.mark.parametrize("client", ERRORS)
def test_an_interruption_is_an_error(seen: Run, client: str) -> None:
    """A stream that is cut off is not taken for a finished one."""
    text, error, message = seen[client, "interruption"]
    assert (text != "", TEXT.startswith(text), error) == (True, True, ERRORS[client])
    assert "This answer took longer than the server allows." in (message or "")


@pytest.mark.parametrize("client", ERRORS)
def test_an_empty_stream_is_empty(seen: Run, client: str) -> None:
    """Nothing but the end is sent, if the protocol has one."""
    assert seen[client, "empty"] == ("", *EMPTY.get(client, (None, None)))


@pytest.mark.parametrize("client", ERRORS)
def test_a_subscription_streams_and_ends(seen: Run, client: str) -> None:
    """Its events, with their ids, and nothing of the library's own."""
    assert seen[client, "published"] == (TEXT, None, None)


@pytest.mark.parametrize("client", ERRORS)
def test_a_stream_is_passed_on(seen: Run, client: str) -> None:
    """Frames of ag-ui-protocol, pydantic-ai and two services, cut into single bytes, letters included."""
    assert seen[client, "passed_on"] == (TEXT, None, None)


def test_the_errors_are_in_the_servers_log(seen: Run, dialect_server: Server) -> None:
    """The details that no client gets."""
    assert seen
    assert "ZeroDivisionError('a secret')" in dialect_server.log()
