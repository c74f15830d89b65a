"""LiveServer: a real uvicorn for the application of a test."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from sse_asgi import EventSourceApp, EventSourceMiddleware, Hub
from sse_asgi.testing import LiveServer


def test_a_real_client_reads_a_stream() -> None:
    """The application has started, its stream ends when the server stops, and then its shutdown has run."""
    hub = Hub()
    app = Starlette(routes=[Mount("/events", EventSourceApp(hub))])
    app.add_middleware(EventSourceMiddleware, hub=hub)
    with LiveServer(app) as server:
        assert hub.state == "up"
        with httpx.stream("GET", f"{server.url}/events/") as response:
            lines = response.iter_lines()
            hub.publish_from_thread("default", "hello")
            assert "data: hello" in lines
            server.__exit__()
            assert any(line.startswith("retry: ") for line in lines)
    assert hub.state == "closed"
    assert "uvicorn of a test" not in [thread.name for thread in threading.enumerate()]


def test_a_startup_that_fails_is_an_error() -> None:
    """It names the log that has the reason."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    with pytest.raises(RuntimeError, match=r"has not started: the log of uvicorn\.error says why"):
        with LiveServer(Starlette(lifespan=lifespan)):
            pytest.fail("it has not started")


def test_an_application_that_does_not_stop_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test fails, and does not hang."""
    monkeypatch.setattr("sse_asgi.testing._live.STOP_SECONDS", 0.2)
    ended = threading.Event()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(ended.wait, 5)

    server = LiveServer(Starlette(lifespan=lifespan))
    try:
        with pytest.raises(RuntimeError, match=r"has not stopped in 0\.2 s"):
            with server:
                pass
    finally:
        ended.set()
        server._thread.join()


def test_an_application_must_be_callable() -> None:
    """A hub instead of an application is a TypeError."""
    with pytest.raises(TypeError, match=r"^app must be an ASGI application \(got Hub\)"):
        LiveServer(Hub())  # type: ignore[arg-type]


def test_without_uvicorn_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And how to install it."""
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(RuntimeError, match="pip install uvicorn"):
        LiveServer(Starlette())
