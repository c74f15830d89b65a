"""Telling an EventSource from other clients."""

from typing import Any

import pytest

from sse_asgi._stream.event_source import is_event_source, may_be_event_source


def scope_of(*headers: tuple[str, str], method: str = "GET") -> dict[str, Any]:
    return {"method": method, "headers": [(name.encode(), value.encode()) for name, value in headers]}


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
    """The headers of browsers, npm packages and httpx-sse, and those of curl and axios."""
    headers = [("accept", value) for value in accept]
    assert may_be_event_source(scope_of(*headers)) is expected
    assert is_event_source(scope_of(*headers, ("cache-control", "no-cache"))) is expected
    assert not may_be_event_source(scope_of(*headers, method="POST"))


@pytest.mark.parametrize(
    ("value", "expected"), [("no-cache", True), ("No-Store", True), ("max-age=0", False), ("", False), (None, False)]
)
def test_an_event_source_bypasses_caches(value: str | None, expected: bool) -> None:  # noqa: FBT001 - a table
    """A fetch that accepts event streams does not."""
    headers = [("accept", "text/event-stream")] + ([] if value is None else [("cache-control", value)])
    assert is_event_source(scope_of(*headers)) is expected
    assert may_be_event_source(scope_of(*headers))
