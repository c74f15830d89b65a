"""Starlette's own wrappers of `send` and `receive`, as they are made in real applications."""

import inspect
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from sse_asgi._servers.starlette import (
    behind_send,
    has_callbacks,
    is_passage,
    look_behind,
    request_behind,
    stacks_of,
)

pytestmark = pytest.mark.anyio
SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b"", "root_path": ""}


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


class Recorded(PlainTextResponse):
    """A response that notes the functions that it gets."""

    seen: tuple[Receive, Send]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen = receive, send
        await super().__call__(scope, receive, send)


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_: Message) -> None:
    """Take every message."""


async def seen_by_a_response(*middleware: Middleware) -> tuple[Receive, Send]:
    response = Recorded("x")

    async def endpoint(_: Request) -> Response:
        return response

    await Starlette(routes=[Route("/", endpoint)], middleware=middleware)(dict(SCOPE), receive, send)
    return response.seen


async def test_the_servers_send_is_behind_starlettes_functions() -> None:
    """A response in an application of Starlette gets a wrapper of a wrapper."""
    _, wrapped = await seen_by_a_response()
    assert wrapped is not send
    assert behind_send(wrapped) is send
    assert behind_send(send) is send


async def test_nothing_is_looked_for_behind_the_send_of_other_middleware() -> None:
    """A BaseHTTPMiddleware has a queue there, not the server's function."""
    _, wrapped = await seen_by_a_response(Middleware(Passing))
    assert behind_send(wrapped) is not send


async def test_coroutines_of_starlette_that_do_nothing_more_are_known() -> None:
    """Those between a response and ExceptionMiddleware are; ServerErrorMiddleware, which calls its handler, is not."""
    known: dict[str, bool] = {}

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        frame = inspect.currentframe()
        while frame is not None and frame.f_code.co_qualname != "Starlette.__call__":
            known[frame.f_code.co_qualname] = is_passage(frame)
            frame = frame.f_back
        await PlainTextResponse("x")(scope, receive, send)

    await Starlette(routes=[Mount("/", endpoint)])(dict(SCOPE), receive, send)
    assert {name for name, is_known in known.items() if not is_known} == {
        endpoint.__qualname__,
        "ServerErrorMiddleware.__call__",
    }
    assert known["ExceptionMiddleware.__call__"]


async def test_the_stacks_of_fastapi_are_found_in_the_scope() -> None:
    """Those of others are not, and an empty one has nothing to close."""
    empty, full = AsyncExitStack(), AsyncExitStack()
    full.callback(list)
    scope = {**SCOPE, "fastapi_inner_astack": empty, "fastapi_middleware_astack": full, "mine": full, "fastapi": {}}
    assert stacks_of(scope) == {"fastapi_inner_astack": empty, "fastapi_middleware_astack": full}
    assert not has_callbacks(empty)
    assert has_callbacks(full)
    await full.aclose()


async def test_the_request_is_behind_the_receive_of_a_base_middleware() -> None:
    """Its own `receive` is the server's."""
    wrapped, _ = await seen_by_a_response(Middleware(Passing))
    request = request_behind(wrapped)
    assert isinstance(request, Request)
    assert request.receive is receive
    assert request_behind(receive) is None


class Kept:
    """A request of a BaseHTTPMiddleware, which holds the body until the application takes it."""

    def __init__(self, *, consumed: bool) -> None:
        self._wrapped_rcv_consumed = consumed


@pytest.mark.parametrize(
    ("consumed", "below", "seen"),
    [
        (True, None, False),
        (False, None, None),
        (False, lambda: None, None),
        (False, lambda: False, None),
        (False, lambda: True, True),
    ],
)
async def test_a_middleware_may_still_hold_the_body(consumed: bool, below: Any, seen: bool | None) -> None:  # noqa: FBT001 - a table
    """That the server has given the body away says nothing; a disconnect is one; a taken body is taken."""
    assert look_behind(Kept(consumed=consumed), below) is seen
