"""EventSourceMiddleware: the hub's life, get_hub, and clients that have seen the end."""

import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sse_asgi import (
    EventSourceApp,
    EventSourceMiddleware,
    EventSourceResponse,
    Hub,
    HubClosedError,
    MemoryBackend,
    get_hub,
)
from sse_asgi._servers.known import _running
from sse_asgi._servers.shutdown import current_notice
from sse_asgi.testing import EventStreamClient

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def notice() -> AsyncIterator[None]:
    """Leave the event loop's notice as it was."""
    yield
    current_notice().heard = False


def application(hub: Hub | None, endpoint: Any, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(EventSourceMiddleware, hub=hub, **options)
    return app


def plain(_: Request) -> StreamingResponse:
    async def frames() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await anyio.sleep_forever()

    return StreamingResponse(frames(), media_type="text/event-stream")


# The hub


async def test_the_hub_lives_as_long_as_the_application() -> None:
    """It is open before the application starts, and closed after it has stopped and before the server is told."""
    hub, states = Hub(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        states.append(hub.state)
        await hub.publish("a", "at start-up")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        states.append(hub.state)
        await send({"type": "lifespan.shutdown.complete"})

    async with EventStreamClient(EventSourceMiddleware(app, hub=hub)):
        states.append(hub.state)
    states.append(hub.state)
    assert states == ["up", "up", "up", "closed"]


async def test_a_subscription_needs_the_application_no_more_once_it_waits() -> None:
    """The middleware goes on with it; see tests/stream/test_handing_over.py."""
    hub = Hub()

    async def endpoint(_: Request) -> Response:
        return EventSourceResponse(hub.subscribe("a"))

    async with EventStreamClient(application(hub, endpoint)) as client, client.stream("/") as stream:
        await anyio.wait_all_tasks_blocked()
        assert not any(
            one.cr_code.co_qualname == "wrap_app_handling_exceptions.<locals>.wrapped_app" for one in _running()
        )
        await hub.publish("a", "x")
        assert (await stream.next_event()).data == "x"


async def test_an_exception_of_the_application_is_raised_on() -> None:
    """The server, and what is around the middleware, get it."""

    async def endpoint(_: Request) -> Response:
        raise LookupError

    with pytest.raises(LookupError):
        async with EventStreamClient(application(None, endpoint)).stream("/"):
            pass


@pytest.mark.parametrize("interrupted", [False, True])
async def test_a_shutdown_waits_for_the_runs(interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """They go on to their own end, or until a signal comes again; without a `drain_timeout` nothing waits."""
    monkeypatch.setattr("sse_asgi._servers.shutdown.SAME_SECONDS", 0.0)
    go_on = anyio.Event()

    async def source() -> AsyncIterator[str]:
        yield "1"
        await go_on.wait()

    async def go() -> None:
        await anyio.wait_all_tasks_blocked()
        assert hub.stats().runs == 1
        if interrupted:
            current_notice().hear_signal()
        else:
            go_on.set()

    hub = Hub()
    async with anyio.create_task_group() as tasks:
        async with EventStreamClient(EventSourceMiddleware(Starlette(), hub=hub, drain_timeout=60)):
            run = await hub.start_run("a", source)
            current_notice().hear()
            tasks.start_soon(go)
    assert hub.state == "closed"
    assert run.state == ("lost" if interrupted else "finished")


async def test_get_hub_finds_it_from_a_request() -> None:
    """It works as a function, and as a FastAPI dependency, whose annotations exist at run time."""
    hub = Hub()
    app = FastAPI()
    app.add_middleware(EventSourceMiddleware, hub=hub)

    @app.get("/")
    async def endpoint(request: Request, dependency: Annotated[Hub, Depends(get_hub)]) -> bool:
        return dependency is hub and get_hub(request) is hub

    async with EventStreamClient(app) as client, client.stream("/") as stream:
        assert await stream.read() == b"true"


async def test_get_hub_finds_the_hub_of_a_lifespan() -> None:
    """`FastAPI(lifespan=hub.lifespan)` needs no middleware."""
    hub = Hub()
    app = FastAPI(lifespan=hub.lifespan)

    @app.get("/")
    async def endpoint(dependency: Annotated[Hub, Depends(get_hub)]) -> EventSourceResponse:
        return EventSourceResponse(dependency.subscribe("a"))

    async with EventStreamClient(app) as client, client.stream("/") as stream:
        await hub.publish("a", "x")
        assert (await stream.next_event()).data == "x"


async def test_get_hub_without_a_hub_says_what_to_do() -> None:
    """The error names the ways to give an application a hub, and does not say that a hub is not open."""
    with pytest.raises(HubClosedError, match=r"^get_hub found no hub: .*EventSourceMiddleware.*lifespan") as caught:
        get_hub(HTTPConnection({"type": "http", "headers": []}))
    assert "not open" not in str(caught.value)


async def test_a_server_without_lifespan_opens_the_hub_at_the_first_request() -> None:
    """A task of its own opens it, once for concurrent first requests."""
    hub = Hub()

    async def endpoint(_: Request) -> Response:
        return PlainTextResponse(str(await hub.publish("a", "x")))

    client = EventStreamClient(application(hub, endpoint))

    async def visit() -> None:
        async with client.stream("/") as stream:
            assert await stream.read()

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(visit)
    assert hub.state == "up"
    assert len(await hub.history("a")) == 3


async def test_concurrent_first_requests_open_the_hub_once() -> None:
    """They do, even if opening takes time."""
    connected = []

    class Slow(MemoryBackend):
        def connect(self, sink: Any) -> Any:
            return self._slowly(super().connect(sink))

        @asynccontextmanager
        async def _slowly(self, inner: Any) -> AsyncIterator[None]:
            connected.append(1)
            await anyio.sleep(0.01)
            async with inner:
                yield

    async def endpoint(_: Request) -> Response:
        return PlainTextResponse(str(await hub.publish("a", "x")))

    hub = Hub(Slow())
    client = EventStreamClient(application(hub, endpoint))

    async def visit() -> None:
        async with client.stream("/") as stream:
            assert stream.status_code == 200

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(visit)
    assert connected == [1]


async def test_websockets_see_the_hub_too() -> None:
    """Connections other than http and lifespan are passed on as they are."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["state"]["hub"], receive, send))

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    hub = Hub()
    async with hub:
        await EventSourceMiddleware(app, hub=hub)({"type": "websocket"}, nothing, nothing)
    assert seen == [(hub, nothing, nothing)]


async def test_a_failing_start_closes_the_hub() -> None:
    """The application's error is raised on."""
    hub = Hub()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="no database"):
        async with EventStreamClient(EventSourceMiddleware(app, hub=hub)):
            pass
    assert hub.state == "closed"


async def test_something_that_is_no_hub_is_refused() -> None:
    """Passing create_hub without calling it is a TypeError that says so."""
    with pytest.raises(TypeError, match=r"create_hub\(\)"):
        EventSourceMiddleware(plain, hub=lambda: None)  # type: ignore[arg-type]


async def test_a_hub_that_cannot_be_opened_fails_the_start() -> None:
    """The server gets the reason, instead of serving without a hub."""

    class Broken(MemoryBackend):
        def connect(self, sink: Any) -> Any:
            msg = "no such backend"
            raise LookupError(msg)

    async def app(*_: Any) -> None:
        raise AssertionError

    with pytest.raises(RuntimeError, match="the hub cannot be opened: no such backend"):
        async with EventStreamClient(EventSourceMiddleware(app, hub=Hub(Broken()))):
            pass


async def test_two_middlewares_share_an_event_loop() -> None:
    """There may be one with a hub and one that only guards, or two applications."""
    hub = Hub()
    app = application(hub, plain)
    app.add_middleware(EventSourceMiddleware)
    async with EventStreamClient(app):
        assert current_notice()._watchers == 2
    assert current_notice()._watchers == 0


async def test_uvicorn_recognises_an_asgi_3_application() -> None:
    """Uvicorn calls an app with the scope alone unless its `__call__` is a coroutine function."""
    app = Starlette()
    for outermost in (EventSourceMiddleware(app), EventSourceApp(Hub())):
        assert inspect.iscoroutinefunction(outermost.__call__)


# Clients that have seen the end


@pytest.mark.parametrize("query", ["", "?lastEventId=sse.end"])
@pytest.mark.parametrize("origin", [None, "https://other.example"])
async def test_a_client_that_has_seen_the_end_does_not_reach_the_application(query: str, origin: str | None) -> None:
    """The endpoint would begin the job again.

    A page of another origin must be able to read the answer, or it asks again.
    """
    reached: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope["method"])
        await EventSourceResponse(["x"])(scope, receive, send)

    client = EventStreamClient(EventSourceMiddleware(app), headers={"origin": origin} if origin else {})
    async with client.stream(f"/{query}", last_event_id=None if query else "sse.end") as stream:
        assert (stream.status_code, await stream.read()) == (204, b"")
        assert stream.headers["cache-control"] == "no-store"
        assert stream.headers.get("access-control-allow-origin") == origin
    assert reached == []
    async with client.stream("/", method="POST", last_event_id="sse.end") as stream:
        assert (stream.status_code, reached) == (200, ["POST"])


# Telemetry


class Telemetry:
    """Notes whether the hub is open while it is observed."""

    def __init__(self) -> None:
        self.states: list[str] = []

    @contextmanager
    def observe(self, hub: Hub) -> Iterator[None]:
        self.states.append(hub.state)
        yield
        self.states.append(hub.state)

    def opened(self, *_: Any) -> Any:
        raise AssertionError


async def test_telemetry_observes_the_hub_from_its_opening_to_its_end() -> None:
    """So that it sees the last events too, which closing the hub publishes."""
    telemetry = Telemetry()
    app = EventSourceMiddleware(Starlette(), hub=Hub(), telemetry=telemetry)
    async with EventStreamClient(app):
        assert telemetry.states == ["up"]
    assert telemetry.states == ["up", "closed"]


async def test_telemetry_must_be_a_telemetry() -> None:
    """The error shows what to write."""
    with pytest.raises(TypeError, match=r"telemetry must be a sse_asgi.telemetry.Telemetry \(got True\)"):
        EventSourceMiddleware(Starlette(), telemetry=True)  # type: ignore[arg-type]


# FastAPI


async def test_an_application_of_fastapi_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it starts, also behind the middleware as a plain wrapper; one without FastAPI needs nothing of that."""
    app = FastAPI()
    make = app.openapi
    async with EventStreamClient(EventSourceMiddleware(app)):
        assert app.openapi != make
    monkeypatch.delitem(sys.modules, "fastapi")
    async with EventStreamClient(application(None, PlainTextResponse("x"))):
        pass
