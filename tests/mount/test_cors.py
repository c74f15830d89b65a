"""CORS: the origins that may use a mounted app, and the headers that tell a browser so."""

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from mount.helpers import mounted, status
from sse_asgi import (
    EventSourceApp,
    Hub,
)
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://testserver", "testserver"),
        ("https://testserver", "testserver"),
        ("https://testserver", "testserver:443"),
        ("http://testserver:8000", "testserver:8000"),
        ("http://TESTSERVER", "testserver"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
async def test_the_own_origin_needs_no_permission(origin: str, host: str) -> None:
    """Host and port are the request's; a proxy may have ended the TLS."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": origin, "host": host}) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://testserver:81", "http://testserver.evil", "http://x:y", "x"]
)
async def test_a_foreign_origin_gets_no_stream(origin: str) -> None:
    """The answer is 403, without CORS headers, before anything is subscribed."""
    called: list[Any] = []
    async with mounted(authorize=lambda *a: called.append(a)) as (_, client):
        async with client.stream("/events/", headers={"origin": origin}) as stream:
            assert stream.status_code == 403
            assert "access-control-allow-origin" not in stream.headers
            assert stream.headers["vary"] == "Origin"
    assert not called


async def test_a_listed_origin_may_read_with_credentials() -> None:
    """The answer names the origin, and tells caches that it depends on it."""
    async with mounted(cors_origins=["https://other.example"]) as (_, client):
        async with client.stream("/events/", headers={"origin": "https://other.example"}) as stream:
            assert stream.headers["access-control-allow-origin"] == "https://other.example"
            assert stream.headers["access-control-allow-credentials"] == "true"
            assert stream.headers["vary"] == "Origin"
        async with client.stream("/events/") as stream:
            assert stream.headers["vary"] == "Origin"
        assert await status(client, headers={"origin": "https://evil.example"}) == 403


@pytest.mark.parametrize("origins", ["*", ["*"]])
async def test_a_star_lets_any_origin_read_without_credentials(origins: Any) -> None:
    """The answer has a star, never the origin of the request."""
    async with mounted(cors_origins=origins) as (_, client):
        async with client.stream("/events/", headers={"origin": "https://other.example"}) as stream:
            assert stream.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in stream.headers


async def test_preflight_is_answered() -> None:
    """Listed origins get the methods and the headers that clients send; others get 403."""
    async with mounted(cors_origins="https://other.example") as (_, client):
        headers = {"origin": "https://other.example", "access-control-request-method": "GET"}
        async with client.stream("/events/", method="OPTIONS", headers=headers) as stream:
            assert stream.status_code == 204
            assert stream.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            assert "Last-Event-ID" in stream.headers["access-control-allow-headers"]
            assert await stream.read() == b""
        assert await status(client, method="OPTIONS", headers={"origin": "https://evil.example"}) == 403
        async with client.stream("/events/", method="OPTIONS") as stream:
            assert (stream.status_code, stream.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


async def test_a_middleware_around_may_allow_more_headers() -> None:
    """The middleware answers preflights, and a stream has each CORS header once."""
    origin = "https://other.example"
    app = CORSMiddleware(
        EventSourceApp(Hub(), cors_origins=origin),
        allow_origins=[origin],
        allow_credentials=True,
        allow_headers=["X-Own"],
    )
    asked = {"origin": origin, "access-control-request-method": "GET", "access-control-request-headers": "X-Own"}
    async with EventStreamClient(app) as client:
        async with client.stream("/", method="OPTIONS", headers=asked) as preflight:
            assert preflight.status_code == 200
            assert "X-Own" in preflight.headers["access-control-allow-headers"]
        async with client.stream("/", headers={"origin": origin, "x-own": "1"}) as stream:
            assert stream.headers.getlist("access-control-allow-origin") == [origin]
            assert stream.headers.getlist("access-control-allow-credentials") == ["true"]


@pytest.mark.parametrize("names", ["X-Api-Key", ["X-Api-Key"]])
async def test_pages_may_send_headers_that_the_application_names(names: Any) -> None:
    """They are allowed besides the headers that the app itself reads."""
    async with mounted(cors_origins="https://other.example", cors_headers=names) as (_, client):
        headers = {"origin": "https://other.example", "access-control-request-headers": "x-api-key"}
        async with client.stream("/events/", method="OPTIONS", headers=headers) as stream:
            allowed = stream.headers["access-control-allow-headers"].split(", ")
            assert {"X-Api-Key", "Authorization"} < set(allowed)


@pytest.mark.parametrize("name", ["", "*", "a b", "a\r\nb", "X: y", "é"])
def test_a_bad_header_name_is_refused(name: str) -> None:
    """The error is raised when the app is made."""
    with pytest.raises(ValueError, match="X-Api-Key"):
        EventSourceApp(Hub(), cors_headers=[name])


async def test_a_route_needs_no_slash() -> None:
    """There is no redirect, which a page of another origin could not follow."""
    hub = Hub()
    app = Starlette(routes=[Route("/news", EventSourceApp(hub, cors_origins=["https://other.example"]))])
    headers = {"origin": "https://other.example", "access-control-request-method": "GET"}
    async with hub:
        client = EventStreamClient(app, headers=headers)
        for method, code in (("OPTIONS", 204), ("GET", 200)):
            async with client.stream("/news", method=method) as stream:
                assert stream.status_code == code
                assert stream.headers["access-control-allow-origin"] == "https://other.example"


@pytest.mark.parametrize(
    "origin", ["ftp://testserver", "//testserver", "http://testserver/", "http://a@testserver", "http://"]
)
async def test_only_a_page_of_the_web_has_the_own_origin(origin: str) -> None:
    """A text with another scheme, or that is not an origin, is foreign although the host is the same."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": origin}) == 403


@pytest.mark.parametrize("host", ["", "[", "testserver:x", "a@testserver"])
async def test_an_odd_host_matches_no_origin(host: str) -> None:
    """The answer is 403, not an error."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": "http://testserver", "host": host}) == 403


async def test_a_forwarded_host_is_not_trusted() -> None:
    """Every client can send the header."""
    async with mounted() as (_, client):
        headers = {"origin": "https://evil.example", "x-forwarded-host": "evil.example"}
        assert await status(client, headers=headers) == 403


@pytest.mark.parametrize("entry", ["https://Other.example", "https://other.example:443"])
async def test_an_origin_is_listed_however_it_is_written(entry: str) -> None:
    """Hosts are compared without case, and a scheme's default port need not be written."""
    async with mounted(cors_origins=[entry]) as (_, client):
        assert await status(client, headers={"origin": "https://other.example"}) == 200
        assert await status(client, headers={"origin": "http://other.example"}) == 403


@pytest.mark.parametrize("origin", ["capacitor://localhost", "chrome-extension://abc"])
async def test_apps_have_origins_of_their_own_schemes(origin: str) -> None:
    """They are listed like others."""
    async with mounted(cors_origins=[origin]) as (_, client):
        async with client.stream("/events/", headers={"origin": origin}) as stream:
            assert stream.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "entry",
    [
        "https://a.example/",
        "https://a.example/x",
        "a.example",
        "null",
        "",
        "https://",
        "https://a.example:x",
        "https://u@a",
    ],
)
def test_an_entry_that_no_browser_sends_is_refused(entry: str) -> None:
    """The error is raised when the app is made, and shows how an origin is written."""
    with pytest.raises(ValueError, match=r"https://example\.com"):
        EventSourceApp(Hub(), cors_origins=[entry])


async def test_the_headers_of_one_origin_do_not_stay_on_an_error() -> None:
    """An exception object that is raised to several requests is answered with each request's own headers."""
    error = HTTPException(403, "no", {"X-Mine": "1"})

    def refuse(*_: Any) -> None:
        raise error

    async with mounted(authorize=refuse, cors_origins=["https://a.example", "https://b.example"]) as (_, client):
        for origin in ("https://a.example", "https://b.example"):
            async with client.stream("/events/", headers={"origin": origin}) as stream:
                assert stream.headers["access-control-allow-origin"] == origin
                assert stream.headers["x-mine"] == "1"


@pytest.mark.parametrize(("path", "method", "code"), [("/events/", "DELETE", 405), ("/events/below", "GET", 404)])
async def test_a_page_that_may_read_sees_every_refusal(path: str, method: str, code: int) -> None:
    """A browser shows the status only if the refusal has the CORS headers too."""
    async with mounted(cors_origins=["https://a.example"]) as (_, client):
        async with client.stream(path, method=method, headers={"origin": "https://a.example"}) as stream:
            assert (stream.status_code, stream.headers["access-control-allow-origin"]) == (code, "https://a.example")


# A CORSMiddleware around


def within(app: Any, nesting: str, **allowed: Any) -> Any:
    """Return an application with EventSourceApp at /events/, and a CORSMiddleware in one of the usual places."""
    if nesting == "around":
        return CORSMiddleware(app, **allowed)
    if nesting == "behind another":
        app.add_middleware(Passing)
    if nesting == "of a mounted application":
        outer = type(app)(routes=[Mount("/", app)])
        outer.add_middleware(CORSMiddleware, **allowed)
        return outer
    app.add_middleware(CORSMiddleware, **allowed)
    return app


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        return await call_next(request)  # type: ignore[no-any-return]


@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize("nesting", ["added", "behind another", "of a mounted application", "around"])
async def test_an_origin_that_only_a_middleware_allows_is_logged_once(
    caplog: pytest.LogCaptureFixture, framework: type[Starlette], nesting: str
) -> None:
    """The line names the option that is missing."""
    inner = framework(routes=[Mount("/events", EventSourceApp(Hub()))])
    async with EventStreamClient(within(inner, nesting, allow_origins=["https://other.example"])) as client:
        assert await status(client, headers={"origin": "https://evil.example"}) == 403
        assert not caplog.records
        for _ in range(2):
            assert await status(client, headers={"origin": "https://other.example"}) == 403
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("sse_asgi.mount", "WARNING")
    assert "EventSourceApp(..., cors_origins=['https://other.example'])" in record.getMessage()


@pytest.mark.parametrize(
    ("allowed", "option"),
    [
        ({"allow_origins": ["*"]}, "cors_origins='*'"),
        ({"allow_origin_regex": r"https://.*\.example"}, "cors_origins=['https://other.example']"),
    ],
)
async def test_the_log_names_the_origins_that_the_middleware_allows(
    caplog: pytest.LogCaptureFixture, allowed: dict[str, Any], option: str
) -> None:
    """A star is a star; a pattern has to be listed."""
    app = CORSMiddleware(EventSourceApp(Hub()), **allowed)
    assert await status(EventStreamClient(app), path="/", headers={"origin": "https://other.example"}) == 403
    assert option in caplog.text


async def test_an_origin_that_is_refused_everywhere_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to change."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": "https://other.example"}) == 403
    assert not caplog.records
