"""Starlette's own wrappers of a server's `send` and `receive`: how to find the server's function behind them."""

from types import FunctionType
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
RECEIVE = (
    "starlette.middleware.base",
    "BaseHTTPMiddleware.__call__.<locals>.call_next.<locals>.receive_or_disconnect",
)


def behind_send(send: Any) -> Any:
    """Return the `send` to which Starlette's functions pass every message on unchanged; any other `send` as it is."""
    while isinstance(send, FunctionType) and (send.__module__, send.__qualname__) in SENDS:
        send = _variable(send, "send")
    return send


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
