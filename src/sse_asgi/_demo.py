"""The demo: a chat in the browser, run by uvicorn."""

import contextlib
import importlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

SHOWN_AS = {"0.0.0.0": "localhost", "::": "localhost"}  # noqa: S104 - compared with, not bound


def run(host: str, port: int) -> None:
    """Run the chat until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C: exit code 0
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn, app = _load()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        with _listen(host, port) as listener:
            print(f"The chat is at {_url(listener, host)} (Ctrl-C ends it)", flush=True)  # noqa: T201
            server.run(sockets=[listener])


def _load() -> tuple[Any, Any]:
    """Return uvicorn and the chat's application, which an installed package contains and a checkout has beside it."""
    package = Path(__file__).parent
    installed = package / "examples"
    sys.path.insert(0, str(installed if installed.exists() else package.parents[1] / "examples"))
    try:
        uvicorn = importlib.import_module("uvicorn")
        importlib.import_module("fastapi")
    except ImportError as error:
        sys.exit(f'The demo needs {error.name}: pip install "sse-asgi[demo]"')
    try:
        return uvicorn, importlib.import_module("fastapi_chat.chat").app
    except ValueError as error:  # create_hub raised it for a wrong variable
        sys.exit(str(error))


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that the address answers before it is printed."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as if_it_fails:
            listener = if_it_fails.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
            listener.bind(address)
            listener.listen()
            if_it_fails.pop_all()
    except OSError as error:
        sys.exit(f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port.")
    return listener


def _url(listener: socket.socket, host: str) -> str:
    name = SHOWN_AS.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"
