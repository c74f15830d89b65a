"""Starlette and FastAPI between a stream and its server.

They wrap `send` and `receive`: how to find the server's function behind these. Their routers and their exception
handling await the response: which of them do nothing more when it has ended.
"""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import FrameType, FunctionType
from typing import Any

from starlette.types import Receive

from .server import Look

# These functions only look at the response's head.
SENDS = frozenset(
    {
        ("starlette.middleware.errors", "ServerErrorMiddleware.__call__.<locals>._send"),
        ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"),
    }
)
# These coroutines end with the one that they await. They handle an exception only until the response has started.
PASSAGES = frozenset(
    {
        ("sse_asgi._mount.app", "EventSourceApp.__call__"),
        ("starlette.routing", "Router.__call__"),
        ("starlette.routing", "Router.app"),
        ("starlette.routing", "Route.handle"),
        ("starlette.routing", "Mount.handle"),
        ("starlette.routing", "Host.handle"),
        ("starlette.routing", "request_response.<locals>.app"),
        ("starlette.routing", "request_response.<locals>.app.<locals>.app"),
        ("starlette.endpoints", "HTTPEndpoint.dispatch"),
        ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app"),
        ("starlette.middleware.exceptions", "ExceptionMiddleware.__call__"),
        ("starlette.middleware.cors", "CORSMiddleware.__call__"),
        ("starlette.middleware.cors", "CORSMiddleware.simple_response"),
        ("starlette.middleware.sessions", "SessionMiddleware.__call__"),
        ("starlette.middleware.trustedhost", "TrustedHostMiddleware.__call__"),
        ("fastapi.routing", "APIRouter.app"),
        ("fastapi.routing", "APIRouter.handle"),
        ("fastapi.routing", "APIRoute.handle"),
        ("fastapi.routing", "_IncludedRouter.handle"),
        ("fastapi.routing", "_IncludedRouter._handle_selected"),
        ("fastapi.routing", "request_response.<locals>.app"),
        ("fastapi.routing", "request_response.<locals>.app.<locals>.app"),
        ("fastapi.middleware.asyncexitstack", "AsyncExitStackMiddleware.__call__"),
    }
)
RECEIVE = (
    "starlette.middleware.base",
    "BaseHTTPMiddleware.__call__.<locals>.call_next.<locals>.receive_or_disconnect",
)


def behind_send(send: Any) -> Any:
    """Return the `send` to which Starlette's functions pass every message on unchanged; any other `send` as it is."""
    while isinstance(send, FunctionType) and (send.__module__, send.__qualname__) in SENDS:
        send = _variable(send, "send")
    return send


def is_passage(frame: FrameType) -> bool:
    """Return True if this is a known coroutine that does nothing more when the response that it awaits has ended.

    Those of FastAPI close the stacks of the request, see `stacks_of`.
    """
    return (frame.f_globals.get("__name__"), frame.f_code.co_qualname) in PASSAGES


def stacks_of(scope: Mapping[str, Any]) -> dict[str, AsyncExitStack]:
    """Return the stacks of a request in FastAPI, which close its dependencies and files, by their keys in the scope."""
    # isinstance would ask a metaclass about every value
    return {key: one for key, one in scope.items() if type(one) is AsyncExitStack and key.startswith("fastapi")}


def has_callbacks(stack: AsyncExitStack) -> bool:
    """Return True if a stack has anything to close."""
    return bool(stack._exit_callbacks)  # type: ignore[attr-defined]  # noqa: SLF001 - only pop_all() is public


def request_behind(receive: Receive) -> Any:
    """Return the request of the BaseHTTPMiddleware that made this `receive`, else None."""
    if isinstance(receive, FunctionType) and (receive.__module__, receive.__qualname__) == RECEIVE:
        return _variable(receive, "wrapped_receive").__self__
    return None


def look_behind(request: Any, below: Look | None) -> bool | None:
    """Look at the request of a BaseHTTPMiddleware, which may still hold the body for the application."""
    if getattr(request, "_wrapped_rcv_consumed", False):
        return False
    return (below is not None and below()) or None


def _variable(function: FunctionType, name: str) -> Any:
    """Return the value of a variable that the function uses from the function around it."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))[name].cell_contents
