"""HealthApp: answers to probes, with an open, a closed and a cut-off hub, and while the server stops."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sse_asgi import EventSourceMiddleware, HealthApp, Hub
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio

OTHERS = [("/lvie", "GET", 404), ("/live", "POST", 405), ("/", "HEAD", 200)]


@pytest.fixture(autouse=True)
async def notice() -> AsyncIterator[None]:
    """Leave the event loop's notice as it was."""
    yield
    current_notice().heard = False


def application(hub: Hub | None = None) -> Starlette:
    app = Starlette(routes=[Mount("/health", HealthApp(hub))])
    app.add_middleware(EventSourceMiddleware, hub=hub)
    return app


async def probe(client: EventStreamClient, path: str, method: str = "GET") -> tuple[int, Any]:
    async with client.stream(f"/health{path}", method=method) as answer:
        body = await answer.read()
    return answer.status_code, json.loads(body)["status"] if body else None


@pytest.mark.parametrize("path", ["/", "/live", "/ready", "/ready/"])
async def test_an_open_hub_is_ready(path: str) -> None:
    """With its backend there, both probes are answered 200."""
    async with EventStreamClient(application(Hub())) as client:
        assert await probe(client, path) == (200, "up")


async def test_a_hub_without_its_backend_is_alive_and_not_ready() -> None:
    """A restart of the process would not bring the backend back; other requests are sent elsewhere meanwhile."""
    hub = Hub()
    async with EventStreamClient(application(hub)) as client:
        assert hub._registry is not None
        hub._registry.state(up=False)
        assert [await probe(client, path) for path in ("/live", "/ready")] == [(200, "up"), (503, "down")]
        hub._registry.state(up=True)
        assert await probe(client, "/ready") == (200, "up")


async def test_a_process_that_stops_is_alive_and_not_ready() -> None:
    """From the moment at which the server was told to stop, while its streams drain."""
    async with EventStreamClient(application(Hub())) as client:
        current_notice().hear()
        assert [await probe(client, path) for path in ("/live", "/ready")] == [(200, "up"), (503, "draining")]


async def test_an_application_without_a_hub_is_ready_until_it_stops() -> None:
    """The guard of the middleware is enough."""
    async with EventStreamClient(application()) as client:
        assert await probe(client, "/ready") == (200, "up")
        current_notice().hear()
        assert await probe(client, "/ready") == (503, "draining")


async def test_a_closed_hub_is_not_ready() -> None:
    """The application was not started, or has another hub."""
    async with EventStreamClient(HealthApp(Hub())).stream("/ready") as answer:
        assert (answer.status_code, await answer.read()) == (503, b'{"status":"closed"}')


async def test_answers_are_not_kept() -> None:
    """A cache must not answer a probe."""
    async with EventStreamClient(application(Hub())) as client:
        for path in ("/live", "/ready"):
            async with client.stream(f"/health{path}") as answer:
                assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("path", "method", "status"), OTHERS)
async def test_other_requests_are_refused(path: str, method: str, status: int) -> None:
    """A misspelt path must not pass as a probe."""
    async with EventStreamClient(application(Hub())) as client:
        assert (await probe(client, path, method))[0] == status


async def test_a_websocket_is_refused() -> None:
    """It is closed before it is accepted."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await HealthApp()({"type": "websocket"}, send, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


async def test_a_hub_must_be_a_hub() -> None:
    """A URL, for example, is refused where it is given."""
    with pytest.raises(TypeError, match=r"hub must be a Hub, as create_hub\(\) makes one \(got str\)"):
        HealthApp("redis://localhost")  # type: ignore[arg-type]
