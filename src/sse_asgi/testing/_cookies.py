"""Cookies: the cookies of a client, kept between requests by the rules of the standard library."""

from collections.abc import Iterator, Mapping, MutableMapping
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import Cookie, CookieJar
from typing import cast
from urllib.request import Request

from starlette.datastructures import Headers


class _Answer:
    """The part of a response that a CookieJar reads."""

    def __init__(self, headers: Headers) -> None:
        self._message = Message()
        for value in headers.getlist("set-cookie"):
            self._message["set-cookie"] = value

    def info(self) -> Message:
        return self._message


class Cookies(MutableMapping[str, str]):
    """Names and values. Responses add and remove cookies; each request gets those of its path and scheme."""

    def __init__(self, cookies: Mapping[str, str] | None = None) -> None:
        """Begin with these cookies, which every request gets."""
        self._jar = CookieJar()
        self.update(cookies or {})

    def __getitem__(self, name: str) -> str:
        """Return the value of a cookie; the newest one, if several paths have a cookie of this name."""
        values = [cookie.value for cookie in self._jar if cookie.name == name]
        if not values:
            raise KeyError(name)
        return values[-1] or ""

    def __setitem__(self, name: str, value: str) -> None:
        """Set a cookie for every request."""
        self._jar.set_cookie(
            Cookie(
                version=0,
                name=name,
                value=value,
                port=None,
                port_specified=False,
                domain="",
                domain_specified=False,
                domain_initial_dot=False,
                path="/",
                path_specified=True,
                secure=False,
                expires=None,
                discard=True,
                comment=None,
                comment_url=None,
                rest={},
            )
        )

    def __delitem__(self, name: str) -> None:
        """Remove a cookie from every path."""
        found = [cookie for cookie in self._jar if cookie.name == name]
        if not found:
            raise KeyError(name)
        for cookie in found:
            self._jar.clear(cookie.domain, cookie.path, cookie.name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, each once."""
        return iter(dict.fromkeys(cookie.name for cookie in self._jar))

    def __len__(self) -> int:
        """Return the number of names."""
        return len({cookie.name for cookie in self._jar})

    def __repr__(self) -> str:
        """Show the names and values."""
        return f"Cookies({dict(self)!r})"

    def header(self, url: str, more: Mapping[str, str] | None) -> str | None:
        """Return the Cookie header of a request; None if it has no cookies.

        Args:
            url: The request's.
            more: Cookies of this request alone, which replace others of the same names.
        """
        request = Request(url)  # noqa: S310 - the URL is not opened
        self._jar.add_cookie_header(request)
        kept = [pair for pair in (request.get_header("Cookie") or "").split("; ") if pair]
        given = dict(more or {})
        pairs = [pair for pair in kept if pair.partition("=")[0] not in given]
        return "; ".join([*pairs, *(f"{name}={value}" for name, value in given.items())]) or None

    def keep(self, url: str, headers: Headers) -> None:
        """Keep the cookies that a response sets, and remove those that it ends."""
        request = Request(url)  # noqa: S310 - the URL is not opened
        self._jar.extract_cookies(cast("HTTPResponse", _Answer(headers)), request)
