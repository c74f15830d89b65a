"""`python -m sse_asgi`: the demo, a chat in the browser."""

import argparse
import contextlib
import importlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

MAX_PORT = 65535
ANYWHERE = {"0.0.0.0": "localhost", "::": "localhost"}  # noqa: S104 - addresses to compare with, not to bind


def main() -> None:
    """Run the chat until Ctrl-C or SIGTERM."""
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the demo the same way, with exit code 0
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn, app = _load()
        with _listen(options.host, options.port) as listener:
            print(f"The chat is at {_url(listener, options.host)} (Ctrl-C ends it)", flush=True)  # noqa: T201
            uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sse_asgi", description="Run the demo of sse_asgi: a chat.")
    parser.add_argument("command", nargs="?", choices=["demo"], default="demo", help="what to run (default: demo)")
    host, port = os.environ.get("HOST") or "127.0.0.1", os.environ.get("PORT") or "8000"
    parser.add_argument("--host", default=host, help="where to listen (default: HOST, else 127.0.0.1)")
    parser.add_argument("--port", default=port, type=_port, help="0 is any free one (default: PORT, else 8000)")
    return parser


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= MAX_PORT:
        return int(text)
    msg = f"{text!r} is no port: PORT or --port must be a number from 0 to {MAX_PORT}"
    raise argparse.ArgumentTypeError(msg)


def _load() -> tuple[Any, Any]:
    """Import uvicorn and the chat, from the installed package or from the checkout around it."""
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
    except ValueError as error:  # from create_hub, about a variable of the environment
        sys.exit(str(error))


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything is promised: the address that is printed is one that answers."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, os.name == "posix")
        listener.bind(address)
        listener.listen()
    except OSError as error:
        sys.exit(f"Cannot listen on {host}, port {port}: {error.strerror}. Choose others with --host and --port.")
    return listener


def _url(listener: socket.socket, host: str) -> str:
    name = ANYWHERE.get(host, host)
    return f"http://{f'[{name}]' if ':' in name else name}:{listener.getsockname()[1]}/"


if __name__ == "__main__":
    main()
