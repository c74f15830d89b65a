"""Starlette's own functions around a server's `send` and `receive`, behind which the server is looked for."""

from types import FunctionType
from typing import Any

from starlette.types import Receive

from .server import Look

# These only look at the response's head.
SENDS = {
    ("starlette.middleware.errors", "ServerErrorMiddleware.__call__.<locals>._send"),
    ("starlette._exception_handler", "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"),
}
RECEIVE = (
    "starlette.middleware.base",
    "BaseHTTPMiddleware.__call__.<locals>.call_next.<locals>.receive_or_disconnect",
)


def behind_send(send: Any) -> Any:
    """Return the `send` that Starlette's functions pass messages on to as they are; the same if it is another's."""
    while isinstance(send, FunctionType) and (send.__module__, send.__qualname__) in SENDS:
        send = _variable(send, "send")
    return send


def request_behind(receive: Receive) -> Any:
    """Return the request of the BaseHTTPMiddleware whose `receive` this is, else None."""
    if isinstance(receive, FunctionType) and (receive.__module__, receive.__qualname__) == RECEIVE:
        return _variable(receive, "wrapped_receive").__self__
    return None


def look_behind(request: Any, below: Look | None) -> bool | None:
    """Look at the request of a BaseHTTPMiddleware, which may keep the body for the application."""
    if getattr(request, "_wrapped_rcv_consumed", False):
        return False
    return (below is not None and below()) or None


def _variable(function: FunctionType, name: str) -> Any:
    """Return what a function has of the one that it was defined in."""
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))[name].cell_contents
