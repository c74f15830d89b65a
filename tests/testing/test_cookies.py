"""Cookies: what is kept between requests."""

import pytest
from starlette.datastructures import Headers

from sse_asgi.testing import Cookies

URL = "http://testserver/a/b"


def received(*lines: str, url: str = URL) -> Cookies:
    cookies = Cookies()
    cookies.keep(url, Headers(raw=[(b"set-cookie", line.encode()) for line in lines]))
    return cookies


def test_cookies_are_a_mapping() -> None:
    """They can be read, set and removed by name."""
    cookies = Cookies({"a": "1", "b": "2"})
    cookies["c"] = "3"
    del cookies["a"]
    assert dict(cookies) == {"b": "2", "c": "3"}
    assert (len(cookies), repr(cookies)) == (2, "Cookies({'b': '2', 'c': '3'})")


def test_an_unknown_name_is_a_key_error() -> None:
    """As in a dict."""
    cookies = Cookies()
    with pytest.raises(KeyError):
        cookies["a"]
    with pytest.raises(KeyError):
        del cookies["a"]


def test_every_cookie_of_a_response_is_kept() -> None:
    """A response has one header for each cookie."""
    cookies = received("a=1; Path=/", "b=2; Path=/; HttpOnly")
    assert cookies.header(URL, None) == "a=1; b=2"


@pytest.mark.parametrize(
    ("attributes", "url", "sent"),
    [
        ("Path=/a", "http://testserver/a/c", "x=1"),
        ("Path=/a", "http://testserver/", None),
        ("", "http://testserver/a/c", "x=1"),
        ("", "http://testserver/c", None),
        ("Path=/; Secure", "http://testserver/", None),
        ("Path=/; Secure", "https://testserver/", "x=1"),
        ("Path=/; Max-Age=0", "http://testserver/", None),
        ("Path=/; Max-Age=60", "http://testserver/", "x=1"),
        ("Path=/; Domain=elsewhere.test", "http://testserver/", None),
    ],
)
def test_a_cookie_is_sent_where_it_belongs(attributes: str, url: str, sent: str | None) -> None:
    """Path, scheme, age and domain are those of the standard."""
    assert received(f"x=1; {attributes}").header(url, None) == sent


def test_a_response_ends_a_cookie() -> None:
    """A cookie without an age that is left is removed."""
    cookies = received("x=1; Path=/", "y=2; Path=/")
    cookies.keep(URL, Headers({"set-cookie": "x=; Path=/; Max-Age=0"}))
    assert dict(cookies) == {"y": "2"}
