"""Headers: the value of a header, as the scope has it."""

from sse_asgi._stream.headers import header, value_of

SCOPE = {"headers": ((b"accept", b"text/html"), (b"host", b"x"), (b"accept", b"\xe9"))}


def test_the_lines_of_a_header_are_joined() -> None:
    """With commas, as HTTP allows it; the scope is not changed."""
    assert header(SCOPE, b"accept") == "text/html,\xe9"
    assert header(SCOPE, b"host") == "x"
    assert isinstance(SCOPE["headers"], tuple)


def test_a_missing_header_is_none() -> None:
    """An empty one is empty."""
    assert header(SCOPE, b"origin") is None
    assert header({"headers": [(b"origin", b"")]}, b"origin") == ""


def test_the_first_value_of_a_response_counts() -> None:
    """Applications write names in any case."""
    headers = [(b"Vary", b"x"), (b"Content-Type", b"text/plain"), (b"content-type", b"text/html")]
    assert value_of(headers, b"content-type") == b"text/plain"
    assert value_of(headers, b"etag") == b""
