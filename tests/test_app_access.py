"""Who may read a mounted app's streams, and until when."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from mounting import mounted
from sse_asgi import EventSourceApp, Hub, ServerSentEvent
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_authorize_lets_through_and_gives_properties(kind: str) -> None:
    """With it any channel may be asked for; what it returns is the reader's properties."""

    def check(request: Request, channels: tuple[str, ...]) -> dict[str, Any]:
        return {"user": request.headers["x-user"], "channels": channels}

    async def check_later(request: Request, channels: tuple[str, ...]) -> dict[str, Any]:
        return check(request, channels)

    options: dict[str, Any] = {
        "authorize": check if kind == "sync" else check_later,
        "transform": lambda event, properties: ServerSentEvent(properties | {"data": event.data}),
    }
    async with mounted(**options) as (hub, client):
        async with client.stream("/events/?channel=a", headers={"x-user": "ann"}) as stream:
            await hub.publish("a", "x")
            assert (await stream.next_event()).data == '{"user":"ann","channels":["a"],"data":"x"}'


async def test_authorize_refuses_on_resuming_too() -> None:
    """An HTTPException is the answer, with its headers, and nothing was subscribed."""

    def refuse(*_: Any) -> None:
        raise HTTPException(401, "who are you?", {"WWW-Authenticate": "Bearer"})

    async with mounted(authorize=refuse, cors_origins=["https://other.example"]) as (hub, client):
        first = await hub.publish("default", "x")
        headers = {"origin": "https://other.example"}
        async with client.stream("/events/", last_event_id=first, headers=headers) as stream:
            assert stream.status_code == 401
            assert stream.headers["www-authenticate"] == "Bearer"
            assert stream.headers["access-control-allow-origin"] == "https://other.example"
            assert await stream.read() == b"who are you?"
        assert hub._registry is not None
        assert not hub._registry._channels


async def test_the_applications_exception_handlers_answer() -> None:
    """Refusals look like all other errors of the application."""
    hub = Hub()

    async def handler(_: Request, error: Exception) -> PlainTextResponse:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(f"custom {error.status_code}", error.status_code)

    app = Starlette(
        routes=[Mount("/events", EventSourceApp(hub))],
        exception_handlers={HTTPException: handler},
        lifespan=hub.lifespan,
    )
    async with EventStreamClient(app) as client, client.stream("/events/?channel=other") as stream:
        assert await stream.read() == b"custom 403"
