"""Telling an EventSource from other clients."""

from typing import Any

import pytest

from sse_asgi._stream.event_source import is_event_source


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (["text/event-stream"], True),
        (["Text/Event-Stream; charset=utf-8"], True),
        (["text/event-stream, */*"], True),
        (["text/event-stream", "*/*;q=0.1"], True),
        (["*/*"], False),
        (["*/*, text/event-stream"], False),
        (["text/event-stream, text/html, application/json"], False),
        (["application/json, text/plain, */*"], False),
        ([""], False),
        ([], False),
    ],
)
def test_an_event_source_accepts_event_streams_first_and_nothing_else(accept: list[str], expected: bool) -> None:  # noqa: FBT001 - a table
    """The headers of browsers, npm packages and httpx-sse, and those of curl, axios and Datastar."""
    scope: dict[str, Any] = {"method": "GET", "headers": [(b"accept", value.encode()) for value in accept]}
    assert is_event_source(scope) is expected
    assert not is_event_source({**scope, "method": "POST"})
