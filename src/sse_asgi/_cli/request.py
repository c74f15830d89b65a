"""One request for an event stream, as the command line gives it, and the pieces of its answer."""

import os
import ssl
import sys
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx

EVENT_STREAM = "text/event-stream"
CONNECT_SECONDS = 10.0
# What a failed exchange with a server raises; the rest of httpx's errors are mistakes in the request.
FAILURES = (httpx.TransportError, zlib.error)


@dataclass(frozen=True)
class StreamRequest:
    """A request that asks for an event stream.

    Attributes:
        url: The address, with http or https.
        method: The method.
        headers: Headers in addition to those that every EventSource sends.
        body: The body, or None.
        insecure: Accept any certificate.
    """

    url: str
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    insecure: bool = False

    @classmethod
    def of(
        cls, url: str, *, headers: Iterable[str] = (), data: str | None = None, method: str = "", insecure: bool = False
    ) -> Self:
        """Return the request that these arguments of a command line describe.

        Args:
            url: The address.
            headers: Lines such as `Authorization: Bearer ...`.
            data: The body; `@file` reads a file, `@-` standard input. JSON gets the Content-Type of JSON.
            method: "" is POST with a body, else GET.
            insecure: Accept any certificate.

        Raises:
            ValueError: An argument is not understood; the message says what it must be.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = f"the URL must begin with http:// or https:// and name a host (got {url!r})"
            raise ValueError(msg)
        given = dict(map(_header, headers))
        body = None if data is None else _body(data)
        if body is not None and "content-type" not in map(str.lower, given) and body.lstrip()[:1] in (b"{", b"["):
            given["Content-Type"] = "application/json"
        return cls(url, method.upper() or ("GET" if body is None else "POST"), given, body, insecure)

    def client(self, *, http2: bool = True) -> httpx.AsyncClient:
        """Return a client for this request, with connections of its own and without a limit of their number.

        Args:
            http2: Use HTTP/2 if the server offers it.
        """
        return httpx.AsyncClient(
            http2=http2,
            verify=self._context,
            follow_redirects=True,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    @cached_property
    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    @asynccontextmanager
    async def open(
        self, client: httpx.AsyncClient, *, last_event_id: str = "", encoding: str = "identity", silence: float | None
    ) -> AsyncIterator[httpx.Response]:
        """Send the request, and return the answer when its head is there; leaving the block disconnects.

        Args:
            client: Sends it.
            last_event_id: The Last-Event-ID header; "" sends none.
            encoding: The Accept-Encoding header.
            silence: How many seconds the server may send nothing; None waits without a limit.

        Raises:
            httpx.TransportError: There was no answer.
        """
        base = {"Accept": EVENT_STREAM, "Cache-Control": "no-cache", "Accept-Encoding": encoding}
        headers = httpx.Headers({**base, **self.headers})
        raw = [(name, value) for name, value in headers.raw if not last_event_id or name.lower() != b"last-event-id"]
        if last_event_id:
            raw.append((b"Last-Event-ID", last_event_id.encode()))
        timeout = httpx.Timeout(silence, connect=CONNECT_SECONDS)
        async with client.stream(self.method, self.url, headers=raw, content=self.body, timeout=timeout) as response:
            yield response


async def pieces(response: httpx.Response) -> AsyncIterator[bytes]:
    """Return the body's pieces as they arrive, decompressed.

    Raises:
        httpx.TransportError: The connection broke, or the body ended before its end.
        zlib.error: The body is not compressed as its head says.
    """
    encoding = response.headers.get("Content-Encoding", "identity")
    decode = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress if encoding in ("gzip", "deflate") else bytes
    async for piece in response.aiter_raw():
        yield decode(piece)


def explain(error: Exception) -> str:
    """Return what went wrong between a client and a server, in plain words, without a full stop."""
    text = _reason(error)
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, httpx.ConnectError):
        return f"no connection ({text})"
    if isinstance(error, httpx.ReadTimeout):
        return "the server sent nothing for too long"
    if isinstance(error, zlib.error):
        return f"the body is not compressed as its Content-Encoding says ({text})"
    return f"the connection was cut off ({text})"


def media_type(response: httpx.Response) -> str:
    """Return the media type of a response, in lower case, without parameters."""
    content_type: str = response.headers.get("Content-Type", "")
    return content_type.partition(";")[0].strip().lower()


def _reason(error: BaseException) -> str:
    """Return the message of the first cause, which httpx's own errors often hide."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    if isinstance(error, ConnectionError):
        return os.strerror(error.errno or 0)
    return str(error).strip() or type(error).__name__


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name.strip().replace("-", "").isalnum() or not line.isprintable():
        msg = f"a header must be 'Name: value' (got {line!r})"
        raise ValueError(msg)
    return name.strip(), value.strip()


def _body(data: str) -> bytes:
    if not data.startswith("@"):
        return data.encode()
    if data == "@-":
        return sys.stdin.buffer.read()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        msg = f"the body's file {data[1:]!r} must be readable ({error.strerror}): give another one after @"
        raise ValueError(msg) from error
