"""CORS: the origins that may use a mounted app, and the headers that tell a browser so.

Starlette's CORSMiddleware does not refuse a request: it only leaves headers out, and a stream would begin. So an app
checks origins itself, and those that CORSMiddleware allows are to be given to it too. A log line says so once.
"""

import logging
import re
from collections.abc import Collection, Iterator
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope, Send

from .._log.logged import about, one_line
from .._servers.starlette import behind_send
from .._stream.headers import header

logger = logging.getLogger("sse_asgi.mount")

REQUEST_HEADERS = (
    "Authorization",
    "Cache-Control",
    "Content-Type",
    "Idempotency-Key",
    "Last-Event-ID",
    "X-Requested-With",
)
MAX_AGE = "600"
MAX_LAYERS = 64  # of middleware; each names the next one as its `app`
PORTS = {"http": 80, "https": 443}
# https://www.rfc-editor.org/rfc/rfc9110#name-tokens, without the star
NAME = re.compile(r"[\w!#$%&'+.^`|~-]+", re.ASCII)


class Origin(NamedTuple):
    """The origin of a page; a port that is not written is the default of the scheme."""

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "Origin | None":
        """Read `https://example.com:8443`; return None for a text that has less or more than an origin."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:  # a port that is not a number, or half an IPv6 address
            return None
        if not parts.scheme or not parts.hostname or text.lower() != f"{parts.scheme}://{parts.netloc.lower()}":
            return None
        if parts.username is not None:
            return None
        return cls(parts.scheme, parts.hostname, PORTS.get(parts.scheme) if port is None else port)


class CrossOrigin:
    """The other origins that may use an app."""

    def __init__(self, origins: Collection[str], headers: Collection[str] = ()) -> None:
        """Check `cors_origins` and `cors_headers`.

        Raises:
            ValueError: An origin that no browser sends, or a text that cannot be the name of a header.
        """
        entries = (origins,) if isinstance(origins, str) else tuple(origins)
        self._any = "*" in entries
        self._listed = {_checked(entry) for entry in entries if entry != "*"}
        names = (headers,) if isinstance(headers, str) else headers
        self._headers = ", ".join([*REQUEST_HEADERS, *map(_checked_header, names)])
        self._warned = False

    def headers(self, request: Request, send: Send) -> dict[str, str]:
        """Return the headers of the response.

        Args:
            request: The request.
            send: The way of its response, on which a CORSMiddleware may be found.

        Raises:
            HTTPException: 403, the origin may not use the app.
        """
        text = header(request.scope, b"origin")
        vary = {"Vary": "Origin"} if self._any or self._listed else {}
        if text is None:
            return vary
        origin = Origin.parse(text)
        if origin in self._listed:
            return {**vary, "Access-Control-Allow-Origin": text, "Access-Control-Allow-Credentials": "true"}
        if origin is not None and _is_own(origin, request.headers.get("host", "")):
            return vary
        if self._any and not _writes(request):
            return {**vary, "Access-Control-Allow-Origin": "*"}
        self._warn(text, request.scope, send)
        raise HTTPException(403, f"the origin {text[:200]!r} is not allowed here", {"Vary": "Origin"})

    def _warn(self, origin: str, scope: Scope, send: Send) -> None:
        """Log, once, that a refused origin is allowed by a CORSMiddleware around this app."""
        for middleware in () if self._warned else _around(scope, send):
            if middleware.is_allowed_origin(origin):
                self._warned = True
                logger.warning(
                    "EventSourceApp refused the origin %s, which CORSMiddleware allows: CORSMiddleware only adds "
                    "headers, so EventSourceApp checks origins itself. Give it the same origins: "
                    "EventSourceApp(..., cors_origins=%r)",
                    one_line(origin[:200]),
                    "*" if middleware.allow_all_origins else [origin[:200]],
                    extra=about("origin_refused", scope),
                )
                return

    def preflight(self, cors: dict[str, str], methods: str) -> Response:
        """Answer OPTIONS, which a browser sends before some requests of a page; other clients may send it too."""
        headers = {**cors, "Allow": methods}
        if "Access-Control-Allow-Origin" in cors:
            headers["Access-Control-Allow-Methods"] = methods
            headers["Access-Control-Allow-Headers"] = self._headers
            headers["Access-Control-Max-Age"] = MAX_AGE
        return Response(status_code=204, headers=headers)


def _around(scope: Scope, send: Send) -> Iterator[CORSMiddleware]:
    """Find the CORSMiddlewares of the application that mounts this app, and others on the way of the response."""
    layer: Any = getattr(scope.get("app"), "middleware_stack", None)
    for _ in range(MAX_LAYERS):
        if isinstance(layer, CORSMiddleware):
            yield layer
        layer = getattr(layer, "app", None)
    passed: Any = behind_send(send)
    while isinstance(passed, partial) and isinstance(
        middleware := getattr(passed.func, "__self__", None), CORSMiddleware
    ):
        yield middleware
        passed = behind_send(passed.keywords["send"])


def _writes(request: Request) -> bool:
    """Return True if a request publishes, or asks to: a browser sends a form, with cookies, to any server."""
    return "POST" in (request.method, request.headers.get("access-control-request-method"))


def _checked(entry: str) -> Origin:
    origin = Origin.parse(entry)
    if origin is None:
        msg = f'cors_origins must be "*" or origins like "https://example.com", without a path or slash (got {entry!r})'
        raise ValueError(msg)
    return origin


def _checked_header(name: str) -> str:
    if not NAME.fullmatch(name):
        hint = 'as in ["X-Api-Key"]; "*" would not allow Authorization'
        msg = f"cors_headers must be names of headers (got {name!r}): {hint}"
        raise ValueError(msg)
    return name


def _is_own(origin: Origin, host: str) -> bool:
    """Compare host and port. The scheme only gives the default port, because a proxy may have ended the TLS."""
    return origin.scheme in PORTS and origin == Origin.parse(f"{origin.scheme}://{host}")
