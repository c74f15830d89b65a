"""Which origins may use a mounted app, and what browsers are told."""

from typing import Any

import pytest

from mounting import mounted, status

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
    """Host and port are the request's; a proxy may have taken the TLS off."""
    async with mounted() as (_, client):
        assert await status(client, headers={"origin": origin, "host": host}) == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://testserver:81", "http://testserver.evil", "http://x:y", "x"]
)
async def test_a_foreign_origin_gets_no_stream(origin: str) -> None:
    """403 before anything is subscribed, without CORS headers."""
    called: list[Any] = []
    async with mounted(authorize=lambda *a: called.append(a)) as (_, client):
        async with client.stream("/events/", headers={"origin": origin}) as stream:
            assert stream.status_code == 403
            assert "access-control-allow-origin" not in stream.headers
    assert not called


async def test_a_listed_origin_may_read_with_credentials() -> None:
    """It is named in the answer, which caches must not mix up."""
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
    """Never a reflected unknown origin."""
    async with mounted(cors_origins=origins) as (_, client):
        async with client.stream("/events/", headers={"origin": "https://other.example"}) as stream:
            assert stream.headers["access-control-allow-origin"] == "*"
            assert "access-control-allow-credentials" not in stream.headers


async def test_preflight_is_answered() -> None:
    """Methods and the headers that clients send, for origins that may read; 403 for others."""
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
