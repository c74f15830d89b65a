"""Text that others wrote, in a line of the log."""

import pytest
from starlette.routing import Mount, Route, Router

from sse_asgi._log.logged import about, named, one_line, route_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/news/é😀", "/news/é😀"),
        ("a\nERROR forged", r"a\nERROR forged"),
        ("a\r\x00\x1b[2J\x7f", r"a\r\x00\x1b[2J\x7f"),
        ("\x85\x9b\u2028\u2029\u202e", r"\x85\x9b\u2028\u2029\u202e"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_text_stays_on_its_line(text: str, shown: str) -> None:
    """Printable characters stay as they are; all others are escaped."""
    assert one_line(text) == shown
    assert named({"method": "GET", "path": text}) == f"GET {shown}"


@pytest.mark.parametrize(
    ("scope", "route"),
    [
        ({}, None),
        ({"route": Route("/rooms/{room}", print)}, "/rooms/{room}"),
        ({"route": Route("/", print)}, "/"),
        ({"route": Mount("/events", app=Router()), "root_path": "/events"}, "/events"),
        ({"route": Mount("/", app=Router()), "root_path": ""}, "/"),
        (
            {"route": Route("/{n:int}", print), "root_path": "/t/events", "path_params": {"tenant": "t", "n": 7}},
            "/{tenant}/events/{n}",
        ),
    ],
)
def test_a_route_has_no_values(scope: dict[str, object], route: str | None) -> None:
    """It has the names of the parameters, also of those in the path of a Mount."""
    assert route_of(scope) == route


def test_a_line_has_fields() -> None:
    """The event always, the route and the channels if they are known."""
    assert about("stream_failed") == {"sse_event": "stream_failed"}
    scope = {"route": Route("/rooms/{room}", print)}
    assert about("stream_failed", scope, ("a", "b")) == {
        "sse_event": "stream_failed",
        "sse_route": "/rooms/{room}",
        "sse_channels": ["a", "b"],
    }
    assert about("stream_failed", {}) == {"sse_event": "stream_failed"}
