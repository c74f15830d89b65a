"""Text that others wrote, in a line of the log."""

import pytest

from sse_asgi._log.logged import named, one_line


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
