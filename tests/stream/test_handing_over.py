"""A stream that the middleware goes on with: what is between them is freed, and nobody sees a difference."""

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any
from weakref import ref

import anyio
import pytest
from fastapi import APIRouter, Depends, FastAPI, UploadFile
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_asgi import ConnectionLimit, EventSourceApp, EventSourceMiddleware, EventSourceResponse, Hub, HubClosedError
from sse_asgi._servers.known import _running
from sse_asgi.fastapi import LATE_EXIT, _version
from sse_asgi.testing import EventStream, EventStreamClient
from stream.foreigners import Telemetry
from stream.helpers import SCOPE, numbers, shut_down

pytestmark = [
    pytest.mark.anyio,
    # Starlette before 0.47 leaves it to the garbage collector behind BaseHTTPMiddleware, and trio warns.
    pytest.mark.filterwarnings("ignore:Async generator 'starlette.requests.Request.stream':ResourceWarning"),
]
late_exit = pytest.mark.skipif(_version() < LATE_EXIT, reason="this FastAPI closes dependencies before the response")
Apply = Callable[[Hub], ASGIApp]
GUARDED = Middleware(EventSourceMiddleware)


def waiting() -> set[str]:
    """Return the names of the coroutines that wait in the tasks of this event loop."""
    return {coroutine.cr_code.co_qualname for coroutine in _running()}


def inside() -> set[str]:
    """Return those of Starlette that wait between the middleware and a stream."""
    return {"ExceptionMiddleware.__call__", "wrap_app_handling_exceptions.<locals>.wrapped_app"} & waiting()


# The applications


def endpoint(hub: Hub, **options: Any) -> Callable[[Request], Any]:
    async def stream(_: Request) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe("default"), **options)

    return stream


def mounted(hub: Hub) -> ASGIApp:
    return Starlette(routes=[Mount("/", EventSourceApp(hub))], middleware=[GUARDED])


def routed(hub: Hub) -> ASGIApp:
    return Starlette(
        routes=[Host("x", Router([Mount("/a", routes=[Route("/", endpoint(hub))])]))], middleware=[GUARDED]
    )


def by_class(hub: Hub) -> ASGIApp:
    class Endpoint(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            response: Response = await endpoint(hub)(request)
            return response

    return Starlette(routes=[Route("/", Endpoint)], middleware=[GUARDED])


def behind_starlettes_middleware(hub: Hub) -> ASGIApp:
    middleware = [
        GUARDED,
        Middleware(CORSMiddleware, allow_origins=["*"]),
        Middleware(TrustedHostMiddleware, allowed_hosts=["*"]),
    ]
    return Starlette(routes=[Route("/", endpoint(hub))], middleware=middleware)


def guarded_twice(hub: Hub) -> ASGIApp:
    return Starlette(routes=[Route("/", endpoint(hub))], middleware=[GUARDED, GUARDED])


def fastapi(hub: Hub) -> FastAPI:
    app = FastAPI(middleware=[GUARDED])
    app.get("/")(endpoint(hub))
    return app


def included(hub: Hub) -> ASGIApp:
    app, router = FastAPI(middleware=[GUARDED]), APIRouter()
    router.get("/")(endpoint(hub))
    app.include_router(router)
    return app


def mounted_in_fastapi(hub: Hub) -> ASGIApp:
    app = FastAPI(middleware=[GUARDED])
    app.mount("/", EventSourceApp(hub))
    return app


MOVED: list[Apply] = [
    mounted,
    routed,
    by_class,
    behind_starlettes_middleware,
    guarded_twice,
    fastapi,
    included,
    mounted_in_fastapi,
]


@asynccontextmanager
async def stream_of(app: ASGIApp, path: str = "/") -> AsyncIterator[EventStream]:
    """Open a stream, and wait until it is idle."""
    async with EventStreamClient(app).stream(path, headers={"host": "x"}) as stream:
        await anyio.wait_all_tasks_blocked()
        yield stream


@pytest.mark.parametrize("make", MOVED)
async def test_nothing_between_the_middleware_and_an_idle_stream_waits(make: Apply) -> None:
    """The stream goes on: it gets events, and sees that its client disconnects."""
    async with Hub() as hub:
        async with stream_of(make(hub), "/a/" if make is routed else "/") as stream:
            assert not inside()
            await hub.publish("default", "x")
            assert (await stream.next_event()).data == "x"
            stream.disconnect()
            await stream.ended()
        assert len(hub.subscriptions()) == 0


async def test_the_stacks_of_fastapi_are_freed() -> None:
    """The scope does not keep them, and the endpoint's own keys stay."""
    seen, requests = [], []
    app = FastAPI(middleware=[GUARDED])

    async with Hub() as hub:

        @app.get("/")
        async def stream(request: Request) -> EventSourceResponse:
            seen.append(request.scope)
            requests.append(ref(request))
            request.scope["mine"] = "kept"
            return EventSourceResponse(hub.subscribe("default"))

        async with stream_of(app):
            (scope,) = seen
            assert scope["mine"] == "kept"
            assert scope["endpoint"] is stream
            assert not [name for name in scope if name.endswith("astack")]
            gc.collect()
            assert [one() for one in requests] == [None]


# Strangers


class Closing:
    """A middleware that does something when the response has ended, and does not touch `send`."""

    def __init__(self, app: ASGIApp, log: list[str]) -> None:
        self.app = app
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        self.log.append("closed")


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        return response


class Awaiting:
    """An endpoint that awaits its response, and then does more."""

    def __init__(self, hub: Hub, log: list[str]) -> None:
        self.hub = hub
        self.log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await EventSourceResponse(self.hub.subscribe("default"))(scope, receive, send)
        self.log.append("closed")


def with_stranger(hub: Hub, log: list[str]) -> ASGIApp:
    return Starlette(routes=[Route("/", endpoint(hub))], middleware=[GUARDED, Middleware(Closing, log)])


def with_base_middleware(hub: Hub, log: list[str]) -> ASGIApp:
    closing = Middleware(Closing, log)
    return Starlette(routes=[Route("/", endpoint(hub))], middleware=[GUARDED, closing, Middleware(Passing)])


def awaited(hub: Hub, log: list[str]) -> ASGIApp:
    return Starlette(routes=[Route("/", Awaiting(hub, log))], middleware=[GUARDED])


def outermost(hub: Hub, log: list[str]) -> ASGIApp:
    """Between the middleware and the stream is the handling of errors, whose handler is called at any time."""
    return EventSourceMiddleware(Starlette(routes=[Route("/", endpoint(hub, background=closed(log)))]))


def iterated(_: Hub, log: list[str]) -> ASGIApp:
    async def stream(_: Request) -> EventSourceResponse:
        async def events() -> AsyncIterator[str]:
            try:
                yield "x"
                await anyio.sleep_forever()
            finally:
                log.append("closed")

        return EventSourceResponse(events())

    return Starlette(routes=[Route("/", stream)], middleware=[GUARDED])


def allow(request: Request, channels: tuple[str, ...]) -> None:
    """Let everybody read."""


def revalidated(hub: Hub, log: list[str]) -> ASGIApp:
    app = EventSourceApp(hub, authorize=allow, revalidate=60, background=closed(log))
    return Starlette(routes=[Mount("/", app)], middleware=[GUARDED])


def with_open_dependency(hub: Hub, log: list[str]) -> ASGIApp:
    def session() -> Iterator[str]:
        yield "session"
        log.append("closed")

    app = FastAPI(middleware=[GUARDED])

    @app.get("/")
    async def stream(_: Annotated[str, Depends(session)]) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe("default"))

    return app


def closed(log: list[str]) -> BackgroundTask:
    return BackgroundTask(log.append, "closed")


STAYS: list[Any] = [
    with_stranger,
    with_base_middleware,
    awaited,
    outermost,
    iterated,
    revalidated,
    pytest.param(with_open_dependency, marks=late_exit),
]


@pytest.mark.parametrize("make", STAYS)
async def test_where_anything_waits_for_the_end_of_the_stream_nothing_moves(make: Any) -> None:
    """It goes on when the stream has ended, not before."""
    log: list[str] = []
    async with Hub() as hub, stream_of(make(hub, log)) as stream:
        assert inside()
        assert log == []
        stream.disconnect()
        await stream.ended()
        assert log == ["closed"]


@late_exit
async def test_a_file_stays_open_as_long_as_the_stream() -> None:
    """FastAPI closes the files of a form when the response has ended."""
    app, files = FastAPI(middleware=[GUARDED]), []
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\ncontent\r\n--x--\r\n'
    multipart = {"host": "x", "content-type": "multipart/form-data; boundary=x"}

    async with Hub() as hub:

        @app.post("/")
        async def stream(file: UploadFile) -> EventSourceResponse:
            files.append(file)
            return EventSourceResponse(hub.subscribe("default"))

        async with EventStreamClient(app).stream("/", method="POST", headers=multipart, body=part) as opened:
            await anyio.wait_all_tasks_blocked()
            assert not files[0].file.closed
            opened.disconnect()
            await opened.ended()
        assert files[0].file.closed


# What others see


async def test_the_background_task_runs_once_after_the_stream_in_the_same_context() -> None:
    """It sees the context variables that the endpoint has set."""
    user: ContextVar[str] = ContextVar("user")
    log: list[Any] = []

    async with Hub() as hub:

        async def stream(_: Request) -> EventSourceResponse:
            user.set("ada")
            return EventSourceResponse(hub.subscribe("default"), background=BackgroundTask(background))

        async def background() -> None:
            log.append((user.get(), len(hub.subscriptions())))

        app = Starlette(routes=[Route("/", stream)], middleware=[GUARDED])
        async with stream_of(app) as opened:
            assert not inside()
            assert log == []
            opened.disconnect()
            await opened.ended()
    assert log == [("ada", 0)]


async def test_on_disconnect_is_told_the_reason() -> None:
    """The request that it gets is that of the stream."""
    log: list[Any] = []

    def on_disconnect(request: Request, _: Any, reason: str) -> None:
        log.append((request.url.path, reason, request.app is app))

    async with Hub() as hub:
        events = EventSourceApp(hub, on_disconnect=on_disconnect)
        app = Starlette(routes=[Mount("/", events)], middleware=[GUARDED])
        async with stream_of(app) as stream:
            assert not inside()
            await hub.drain()
            await stream.ended()
    assert log == [("/", "shutdown", True)]


def failing(hub: Hub) -> Callable[[Request], Any]:
    """Return an endpoint whose snapshot fails when it is taken again, after a loss."""
    taken: list[str] = []

    async def snapshot() -> str:
        taken.append("taken")
        if len(taken) > 1:
            msg = "the state is out of reach"
            raise LookupError(msg)
        return "state"

    async def stream(_: Request) -> EventSourceResponse:
        return EventSourceResponse(hub.subscribe("default", snapshot=snapshot))

    return stream


async def test_an_exception_reaches_the_error_handling_around_the_middleware(caplog: pytest.LogCaptureFixture) -> None:
    """The handler of server errors is called once, no other handler is, and the server gets the exception itself."""
    errors: list[Exception] = []

    async def on_error(_: Request, error: Exception) -> Response:
        errors.append(error)
        return PlainTextResponse("error", 500)

    async def never(_: Request, error: Exception) -> Response:
        raise AssertionError from error

    async with Hub() as hub:
        handlers = {Exception: on_error, LookupError: never}
        app = Starlette(routes=[Route("/", failing(hub))], middleware=[GUARDED], exception_handlers=handlers)
        with pytest.raises(LookupError):
            async with stream_of(app) as stream:
                assert not inside()
                (subscription,) = hub.subscriptions()
                subscription.lose("evicted")
                assert b"event: sse.error" in await stream.read()
    assert [str(error) for error in errors] == ["the state is out of reach"]
    assert caplog.messages == ["the content of the stream GET / failed: LookupError('the state is out of reach')"]


async def test_an_exception_before_the_head_is_handled_by_the_application() -> None:
    """Nothing has moved before the stream waits for the first time."""

    async def on_closed(_: Request, error: Exception) -> Response:
        return PlainTextResponse(type(error).__name__, 503)

    hub = Hub()
    async with hub:
        subscription = hub.subscribe("default")

    async def stream(_: Request) -> EventSourceResponse:
        return EventSourceResponse(subscription)

    handlers: Any = {HubClosedError: on_closed}
    app = Starlette(routes=[Route("/", stream)], middleware=[GUARDED], exception_handlers=handlers)
    async with EventStreamClient(app).stream("/") as answer:
        assert answer.status_code == 503
        assert await answer.read() == b"HubClosedError"


async def test_the_stream_counts_until_it_has_ended() -> None:
    """For the limit and for telemetry."""
    limit, telemetry = ConnectionLimit(1), Telemetry()
    guarded = Middleware(EventSourceMiddleware, max_connections=limit, telemetry=telemetry)
    async with Hub() as hub:
        app = Starlette(routes=[Route("/", endpoint(hub))], middleware=[guarded])
        async with stream_of(app) as stream:
            assert not inside()
            assert (limit.open, telemetry.told) == (1, ["subscription", "started"])
            stream.disconnect()
            await stream.ended()
    assert (limit.open, telemetry.told) == (0, ["subscription", "started", "client"])


@pytest.mark.usefixtures("notice")
async def test_a_shutdown_ends_the_stream() -> None:
    """With a farewell, as any other stream."""
    async with Hub() as hub, stream_of(mounted(hub)) as stream:
        assert not inside()
        await shut_down()
        assert b"retry: " in await stream.read()


async def test_a_server_that_cancels_the_request_cancels_the_stream() -> None:
    """The stream runs in the server's own task, and cleans up."""
    log: list[str] = []

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(_: Any) -> None:
        """Take every message."""

    async with Hub() as hub:
        app = Starlette(routes=[Route("/", endpoint(hub, background=closed(log)))], middleware=[GUARDED])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: app(dict(SCOPE), receive, send))
            await anyio.wait_all_tasks_blocked()
            assert not inside()
            assert len(hub.subscriptions()) == 1
            tasks.cancel_scope.cancel()
        assert len(hub.subscriptions()) == 0
    assert log == ["closed"]


async def test_a_stream_that_ends_before_it_waits_does_not_move() -> None:
    """It is over before there is anything to free."""
    app = Starlette(routes=[Route("/", lambda _: EventSourceResponse(numbers()))], middleware=[GUARDED])
    async with EventStreamClient(app).stream("/") as stream:
        assert b"data: 2" in await stream.read()
