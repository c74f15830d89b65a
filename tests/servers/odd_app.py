"""The application for the tests of errors, of middleware and of sync generators.

The same endpoints are mounted behind each of several stacks of middleware: `/none/fail/x`, `/five/fail/x`. A name in
the path identifies each request in the log.
"""

import os
import queue
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

from anyio import CancelScope, Event, sleep, sleep_forever
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.httpsredirect import HTTPSRedirectMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from sse_asgi import EventSourceMiddleware, EventSourceResponse

router = APIRouter()


def log(line: str) -> None:
    """Write a line to the log that the test reads; the order of lines is the order of events."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())


@router.get("/answer")
def answer() -> str:
    """Answer from a thread of the framework."""
    return "answer"


# Errors

ERRORS: dict[str, Callable[[str], Exception]] = {
    "forbidden": lambda name: HTTPException(403, f"not for {name}"),
    "validation": lambda name: RequestValidationError([{"type": "missing", "loc": ["query", name], "msg": "m"}]),
    "value": lambda name: ValueError(f"secret of {name}"),
}


def tell(error: Exception) -> dict[str, str]:
    """Tell the client the type of the error."""
    return {"told": type(error).__name__}


def tell_nothing(_: Exception) -> None:
    """Tell the client nothing."""


def fail_to_tell(error: Exception) -> None:
    """Fail too."""
    raise RuntimeError(str(error))


TELLERS: dict[str, Callable[[Exception], Any] | None] = {
    "": None,
    "tell": tell,
    "tell_nothing": tell_nothing,
    "fail_to_tell": fail_to_tell,
}


async def failing(error: Exception, after: int) -> AsyncIterator[int]:
    """Yield a number of events, then fail."""
    for number in range(after):
        yield number
    raise error


def failing_in_thread(error: Exception, after: int) -> Iterator[int]:
    """Do the same in a thread."""
    yield from range(after)
    raise error


@router.get("/fail/{name}")
async def fail(name: str, error: str = "value", after: int = 0, on_error: str = "") -> Response:
    """Stream a number of events, then fail."""
    content = failing(ERRORS[error](name), after)
    background = BackgroundTask(log, f"{name}: background done")
    return EventSourceResponse(content, on_error=TELLERS[on_error], background=background)


@router.get("/fail-in-thread/{name}")
async def fail_in_thread(name: str, error: str = "value", after: int = 0) -> Response:
    """Do the same from a sync generator."""
    return EventSourceResponse(failing_in_thread(ERRORS[error](name), after))


@router.get("/unwritable/{name}")
async def unwritable(name: str, after: int = 0) -> Response:
    """Stream a number of events, then one that cannot be written."""
    return EventSourceResponse([*range(after), type(name, (), {})()])


@router.get("/untidy/{name}")
async def be_untidy(name: str, lifetime: float | None = None) -> Response:
    """Stream content whose cleanup fails."""

    async def untidy() -> AsyncIterator[str]:
        try:
            yield "x"
            await sleep_forever()
        finally:
            raise ERRORS["value"](name)

    background = BackgroundTask(log, f"{name}: background done")
    return EventSourceResponse(untidy(), max_lifetime=lifetime, background=background)


@router.get("/failing-background/{name}")
async def failing_background(name: str) -> Response:
    """Stream to the end; the background task fails."""

    def run() -> None:
        raise ERRORS["value"](name)

    return EventSourceResponse(["x"], background=BackgroundTask(run))


@router.get("/job/{name}")
async def job(name: str) -> Response:
    """Stream a job that must run once."""

    async def run() -> AsyncIterator[int]:
        log(f"{name}: began")
        yield 1
        yield 2

    return EventSourceResponse(run())


# Middleware

plain: ContextVar[str] = ContextVar("plain", default="")
dispatched: ContextVar[str] = ContextVar("dispatched", default="")
depended: ContextVar[str] = ContextVar("depended", default="")

turns: dict[str, Event] = {}


@router.api_route("/turns/{name}", methods=["GET", "POST"])
async def take_turns(name: str, request: Request) -> Response:
    """Stream an event, and the next one only after a request to `/go`; read no body."""
    if "session" in request.scope:
        request.session["turns"] = name

    async def events() -> AsyncIterator[str]:
        turns[name] = asked = Event()
        yield "first"
        await asked.wait()
        yield "second"

    return EventSourceResponse(events())


@router.get("/go/{name}")
async def go(name: str) -> None:
    """Let the next event be sent."""
    turns.pop(name).set()


async def endless(name: str) -> AsyncIterator[str]:
    """Yield once, then wait, and clean up with an await, which needs a shield on trio."""
    log(f"{name}: began")
    try:
        yield "x"
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await sleep(0.05)
        log(f"{name}: closed")


@router.api_route("/endless/{name}", methods=["GET", "HEAD", "POST"])
async def stream_endlessly(name: str) -> Response:
    """Stream until the client leaves; read no body."""
    response = EventSourceResponse(endless(name), background=BackgroundTask(lambda: log(f"{name}: {response.reason}")))
    return response


@router.post("/echo")
async def echo(request: Request) -> Response:
    """Stream the size of the request's body."""
    return EventSourceResponse([len(await request.body())])


async def request_scope(request: Request) -> AsyncIterator[None]:
    """Log when FastAPI closes a dependency of the default scope, and the error that it gets."""
    depended.set("depended")
    heard = "nothing"
    try:
        yield
    except ValueError:
        heard = "of the error"
        raise
    finally:
        log(f"{request.path_params.get('name')}: request scope hears {heard}")


async def function_scope(request: Request) -> AsyncIterator[None]:
    """Log when FastAPI closes a dependency that lives as long as the endpoint runs."""
    yield
    log(f"{request.path_params.get('name')}: function scope")


@router.get(
    "/dependent/{kind}/{name}", dependencies=[Depends(request_scope), Depends(function_scope, scope="function")]
)
async def depend(kind: str, name: str) -> Response:
    """Stream until the client leaves, or three events with an end or an error; there is a dependency of each scope."""

    async def three() -> AsyncIterator[int]:
        log(f"{name}: began")
        for number in range(3):
            yield number
        log(f"{name}: closed")
        if kind == "fails":
            raise ERRORS["value"](name)

    content = endless(name) if kind == "endless" else three()
    return EventSourceResponse(content, background=BackgroundTask(log, f"{name}: background"))


def context() -> list[str]:
    """Return the values that middleware and a dependency have set."""
    return [plain.get(), dispatched.get(), depended.get()]


@router.get("/context", dependencies=[Depends(request_scope)])
async def see_context() -> Response:
    """Stream the context variables that an async generator sees."""

    async def events() -> AsyncIterator[list[str]]:
        yield context()

    return EventSourceResponse(events())


@router.get("/context-in-thread", dependencies=[Depends(request_scope)])
async def see_context_in_thread() -> Response:
    """Stream the context variables that a sync generator sees."""

    def events() -> Iterator[list[str]]:
        yield context()

    return EventSourceResponse(events())


# Sync generators

items: queue.Queue[str] = queue.Queue()
blocked: list[EventSourceResponse] = []


@router.get("/blocking")
async def block() -> Response:
    """Stream from a generator that blocks until an item is there."""

    def blocking() -> Iterator[str]:
        try:
            yield "blocks"
            while True:
                yield items.get()
        finally:
            log("blocking closed")

    blocked.append(EventSourceResponse(blocking()))
    return blocked[-1]


@router.get("/polling")
async def poll() -> Response:
    """Stream from a generator that blocks for short times, and yields None in between, where it can be closed."""

    def polling() -> Iterator[str | None]:
        nothing: queue.Queue[str] = queue.Queue()
        try:
            yield "polls"
            while True:
                try:
                    yield nothing.get(timeout=0.5)
                except queue.Empty:
                    yield None
        finally:
            log("polling closed")

    return EventSourceResponse(polling())


@router.get("/put")
async def put(times: int) -> None:
    """Unblock a number of generators."""
    for _ in range(times):
        items.put("x")


@router.get("/threads")
async def threads() -> dict[str, int]:
    """Count all threads, those that run sync generators, and the clients that have left blocked generators."""
    names = [thread.name for thread in threading.enumerate()]
    left = sum(response.disconnected for response in blocked)
    return {"all": len(names), "sources": names.count("sse_asgi source"), "left": left}


# The stacks


class Base(BaseHTTPMiddleware):
    """A BaseHTTPMiddleware."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Pass the request on."""
        dispatched.set("dispatched")
        return await call_next(request)


BASE = Middleware(Base)
GZIP = Middleware(GZipMiddleware, minimum_size=1)
SESSION = Middleware(SessionMiddleware, secret_key="not secret")
CORS = Middleware(CORSMiddleware, allow_origins=["https://friend.example"])
HTTPS = Middleware(HTTPSRedirectMiddleware)

STACKS: dict[str, list[Middleware]] = {
    "none": [],
    "one": [BASE],
    "two": [BASE] * 2,
    "five": [BASE] * 5,
    "gzip": [GZIP],
    "session": [SESSION],
    "cors": [CORS],
    "https": [HTTPS],
    "all": [HTTPS, CORS, SESSION, GZIP, *[BASE] * 5],
}


class Forwarded:
    """A plain ASGI middleware that trusts X-Forwarded-Proto, as behind a proxy, and sets a context variable."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        plain.set("plain")
        if (b"x-forwarded-proto", b"https") in scope.get("headers", ()):
            scope["scheme"] = "https"
        await self.app(scope, receive, send)


def behind(stack: list[Middleware]) -> FastAPI:
    """Return an application with all endpoints behind this middleware."""
    application = FastAPI(middleware=stack)
    application.include_router(router)
    return application


app = EventSourceMiddleware(Forwarded(Router([Mount(f"/{name}", behind(stack)) for name, stack in STACKS.items()])))
