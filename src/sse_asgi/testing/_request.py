"""The request of a test: its options become the scope and the body that an application receives."""

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict
from urllib.parse import unquote, urlencode, urlsplit

from starlette.types import Scope

from .._hub.options import check_known
from .._log.event import to_json
from ._cookies import Cookies

# The headers of a browser's EventSource, which bypasses caches.
HEADERS = {"host": "testserver", "accept": "text/event-stream", "cache-control": "no-cache"}

Value = str | int | float | None
Params = Mapping[str, Value | list[Value]] | list[tuple[str, Value]]


class ScopeOptions(TypedDict, total=False):
    """Keys of the ASGI scope that a request can replace or add: those of the specification and of Starlette."""

    type: str
    asgi: dict[str, str]
    http_version: str
    scheme: str
    path: str
    raw_path: bytes
    root_path: str
    query_string: bytes
    client: tuple[str, int] | None
    server: tuple[str, int | None] | None
    extensions: dict[str, dict[str, Any]]
    state: dict[str, Any]
    app: Any
    app_root_path: str
    auth: Any
    endpoint: Any
    path_params: dict[str, Any]
    route: Any
    router: Any
    session: dict[str, Any]
    user: Any


class RequestOptions(ScopeOptions, total=False):
    """Options of a request; EventStreamClient.stream describes them."""

    headers: Mapping[str, str] | None
    params: Params | None
    cookies: Mapping[str, str] | None
    last_event_id: str | None
    body: bytes
    json: Any
    data: Mapping[str, Value | list[Value]] | None


OWN_OPTIONS = ("headers", "params", "cookies", "last_event_id", "body", "json", "data")
OPTIONS = (*OWN_OPTIONS, *ScopeOptions.__annotations__)
ADVICE = {
    "content": "did you mean body=?",
    "query": "did you mean params=?",
    "timeout": "give it to next_event(), read() or received()",
    "auth": "give headers={'authorization': ...} instead",
    "files": "give the encoded form as body=, and its Content-Type in headers=",
    "follow_redirects": "a redirect is an answer like any other; request its Location",
    "base_url": "give a path as the URL",
}
"""Names that httpx and Starlette's TestClient have, and what to do instead."""


def check_options(what: str, options: Iterable[str]) -> None:
    """Accept known options only.

    Args:
        what: The method, for the error.
        options: The names to check.

    Raises:
        TypeError: A name is not known; the message says what may be meant.
    """
    for name in options:
        if name in ADVICE:
            msg = f"{what} has no option {name}=: {ADVICE[name]}"
            raise TypeError(msg)
    check_known(what, options, ("method", *OPTIONS))


def url_of(path: str, options: RequestOptions) -> str:
    """Return the URL of a request, which decides which cookies it has."""
    return f"{options.get('scheme', 'http')}://testserver{urlsplit(path).path or '/'}"


def scope_of(
    path: str, method: str, headers: Mapping[str, str], options: RequestOptions, cookies: Cookies
) -> tuple[Scope, bytes]:
    """Return the scope and the body of a request.

    Args:
        path: The path, with or without a query.
        method: The method.
        headers: Headers of the client, with names in lower case.
        options: Checked options.
        cookies: Cookies of the client.

    Raises:
        TypeError: An option has the wrong type, or there is more than one body.
    """
    parts = urlsplit(path)
    given = {**headers, **{name.lower(): value for name, value in (options.get("headers") or {}).items()}}
    last_event_id = options.get("last_event_id")
    if last_event_id is not None:
        given["last-event-id"] = last_event_id
    if "cookie" not in given and (cookie := cookies.header(url_of(path, options), options.get("cookies"))):
        given["cookie"] = cookie
    body = _body(options, given)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "root_path": "",
        "query_string": "&".join(filter(None, (parts.query, _encoded(options.get("params") or {})))).encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
    }
    return {**scope, **{name: value for name, value in options.items() if name not in OWN_OPTIONS}}, body


def _encoded(values: Params) -> str:
    pairs = values.items() if isinstance(values, Mapping) else values
    return urlencode(
        [(name, [*map(_text, value)] if isinstance(value, list) else _text(value)) for name, value in pairs], doseq=True
    )


def _text(value: Value) -> str:
    """Return a value as httpx writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _body(options: RequestOptions, headers: dict[str, str]) -> bytes:
    """Return the body, and say in the headers what it is."""
    body, json, data = options.get("body", b""), options.get("json"), options.get("data")
    given = [f"{name}=" for name, is_given in (("body", body), ("json", json is not None), ("data", data)) if is_given]
    if len(given) > 1:
        msg = f"a request has one body (got {' and '.join(given)}): give one of them"
        raise TypeError(msg)
    if not isinstance(body, bytes):
        msg = f"body must be bytes (got {type(body).__name__}): encode it, or give json= or data= instead"
        raise TypeError(msg)
    if data is not None:
        if not isinstance(data, Mapping):
            msg = f"data must be the fields of a form (got {type(data).__name__}): give a dict, or bytes as body="
            raise TypeError(msg)
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
        return _encoded(data).encode()
    if json is not None:
        headers.setdefault("content-type", "application/json")
        return to_json(json).encode()
    return body
