"""The page's client, `sse-asgi.js`, as a response.

Its text is public, so every page may import it, without authorisation. Browsers name the page's origin when they import
a module, also from the page's own server.
"""

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

SCRIPT = ("client", "sse-asgi.js")
FOR_EVERYONE = {"Access-Control-Allow-Origin": "*"}


class ClientScript:
    """Sends the file. A browser asks each time whether its copy is the current one, so upgrades reach every page."""

    def __init__(self) -> None:
        """Read the file."""
        self._body = files("sse_asgi").joinpath(*SCRIPT).read_bytes()
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'

    async def respond(self, request: Request, headers: dict[str, str]) -> ASGIApp:
        """Return the response; it has these headers."""
        headers = {**headers, "Cache-Control": "no-cache", "ETag": self._tag}
        if self._is_current(request.headers.get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        body = b"" if request.method == "HEAD" else self._body
        return Response(body, media_type="text/javascript", headers={**headers, "Content-Length": str(len(self._body))})

    def _is_current(self, tags: str) -> bool:
        """Compare the tags as https://www.rfc-editor.org/rfc/rfc9110#field.if-none-match says; a proxy weakens them."""
        return any(one.strip().removeprefix("W/") in (self._tag, "*") for one in tags.split(","))
