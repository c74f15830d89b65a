"""The known servers: finding those that run, and looking at their `send` and `receive`."""

import asyncio
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from servers.local import Unstarted, idle_app, in_task
from sse_asgi._servers.known import (
    FUNCTIONS,
    SERVERS,
    STEPPABLE,
    behind_receive,
    look_at,
    may_be_stepped,
    running_servers,
)
from sse_asgi._servers.server import Look

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@ASYNCIO
@pytest.mark.anyio
async def test_functions_with_the_names_of_servers_are_not_servers() -> None:
    """Only those of uvicorn, hypercorn and gunicorn are."""

    async def serve() -> None:
        await anyio.sleep_forever()

    async def worker_serve() -> None:
        await anyio.sleep_forever()

    async with in_task(serve), in_task(worker_serve):
        assert list(running_servers()) == []


@ASYNCIO
@pytest.mark.anyio
async def test_a_server_is_found_once() -> None:
    """Uvicorn runs in `serve` and in `_serve`, and both are on the way to the await."""
    server = Unstarted(uvicorn.Config(idle_app, log_level="error"))
    async with in_task(server.serve):
        names = [coroutine.cr_frame.f_code.co_name for coroutine in chain_of(server)]
        assert {"serve", "_serve"} <= set(names)
        assert [one.key for one in running_servers()] == [server]


def chain_of(server: uvicorn.Server) -> list[Any]:
    """Return the coroutines of the task that runs a server."""
    for task in asyncio.all_tasks():
        chain, inner = [], task.get_coro()
        while getattr(inner, "cr_frame", None) is not None:
            chain.append(inner)
            inner = inner.cr_await  # type: ignore[union-attr]
        if any(one.cr_frame.f_locals.get("self") is server for one in chain):  # type: ignore[union-attr]
            return chain
    return []


def test_each_server_is_listed_once() -> None:
    """The tables are made of the list."""
    kinds = [type(server) for server in SERVERS]
    assert len(set(kinds)) == len(kinds)
    assert {name for server in SERVERS for name in server.functions} == FUNCTIONS
    assert {name for server in SERVERS for name in server.steppable} == STEPPABLE


def test_a_method_may_be_stepped_where_its_module_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The class of the object decides; a plain function has no object."""

    class Request:
        async def receive(self) -> Any:
            """Be a method."""

    assert not may_be_stepped(Request().receive)
    monkeypatch.setattr("sse_asgi._servers.known.STEPPABLE", {Request.__module__})
    assert may_be_stepped(Request().receive)
    assert not may_be_stepped(idle_app)


class Stream:
    """A request as EventStreamClient has it."""

    def __init__(self, *, body_taken: bool) -> None:
        self.body_taken = body_taken
        self.disconnected = False

    async def receive(self) -> Any:
        self.body_taken = True
        return {"type": "http.request", "body": b"", "more_body": False}


@pytest.mark.parametrize(("body_taken", "seen"), [(False, None), (True, False)])
def test_a_request_is_looked_at_by_its_server(body_taken: bool, seen: bool | None) -> None:  # noqa: FBT001 - a table
    """The first server that knows the `receive` answers."""
    look = look_at(Stream(body_taken=body_taken).receive)
    assert look is not None
    assert look() is seen


def test_an_unknown_receive_is_not_looked_at() -> None:
    """No server knows it."""

    async def receive() -> Any:
        """Belong to no object."""

    assert look_at(receive) is None


@pytest.mark.anyio
async def test_a_request_is_looked_at_through_middleware() -> None:
    """A BaseHTTPMiddleware's own `receive` leads to the server's."""
    looks: list[Look | None] = []

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        looks.append(look_at(receive))
        await PlainTextResponse("x")(scope, receive, send)

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def send(_: Any) -> None:
        """Take every message."""

    stream = Stream(body_taken=False)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await Passing(endpoint)(scope, stream.receive, send)
    (look,) = looks
    assert look is not None
    assert look() is None
    stream.disconnected = True
    assert look() is True


@pytest.mark.anyio
async def test_the_receive_behind_middleware_is_the_servers() -> None:
    """However many of them are in between. Any other `receive` is returned as it is."""
    found: list[Any] = []

    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        found.append(behind_receive(receive))
        await PlainTextResponse("x")(scope, receive, send)

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            return await call_next(request)

    async def send(_: Any) -> None:
        """Take every message."""

    stream = Stream(body_taken=False)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await Passing(Passing(endpoint))(scope, stream.receive, send)
    assert found == [stream.receive]
    assert behind_receive(stream.receive) == stream.receive
