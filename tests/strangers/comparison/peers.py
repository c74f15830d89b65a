"""The peers that run here, each in a process of its own."""

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import aiohttp_sse
import sse_starlette

import sse_asgi
from servers.processes import Server, free_port, wait_until
from strangers.comparison.readers import ACCEPTED, post

APPS = Path(__file__).parent / "apps"
TESTS = APPS.parents[2]
PATH = f"{os.environ['PATH']}:/usr/sbin"

OURS, SSE_STARLETTE, FASTAPI, LITESTAR, AIOHTTP, NCHAN = (
    *("sse_asgi", "sse-starlette", "fastapi.sse"),
    *("Litestar channels", "aiohttp-sse", "nchan"),
)


class Peer(NamedTuple):
    """One library or server.

    Attributes:
        version: The version that runs.
        start: Starts a server with its defaults; keyword arguments are environment variables,
            and an argument is the URL of a Redis for nchan.
        send_timeout: The default of the option that cuts off a client which reads nothing; "" without the option.
    """

    version: str
    start: Callable[..., Server]
    send_timeout: str = ""


def _uvicorn(app: str) -> Callable[..., Server]:
    command = ("uvicorn", "--app-dir", str(TESTS), "--port", "{port}", f"strangers.comparison.apps.{app}:app")
    return lambda **environment: Server.start(command, **environment)


def _aiohttp() -> Server:
    port = free_port()
    command = [sys.executable, "-m", "strangers.comparison.apps.on_aiohttp", str(port)]
    server = Server(command, port, {"PYTHONPATH": str(TESTS)})
    server.wait_until_it_answers()
    return server


def _nchan(folder: Path, redis: str = "") -> Server:
    """Start nginx with nchan, whose channel is in a Redis if there is one."""
    home, port = Path(tempfile.mkdtemp(dir=folder)), free_port()
    text = (APPS / "nginx.conf").read_text().replace("HOME", str(home)).replace("PORT", str(port))
    store = f"upstream store {{ nchan_redis_server {redis}; nchan_redis_connect_timeout 1s; }}" if redis else ""
    text = text.replace("STORE", store).replace("PASS", "nchan_redis_pass store;" if redis else "")
    (home / "nginx.conf").write_text(text)
    server = Server(["nginx", "-p", str(home), "-c", str(home / "nginx.conf")], port, {"PATH": PATH})
    server.wait_until_it_answers()
    wait_until(lambda: not redis or post(port, "/publish", "", patience=1) in ACCEPTED)  # Redis is connected
    return server


def _default(function: Callable[..., object]) -> str:
    """Return the default of `send_timeout` in words."""
    seconds = inspect.signature(function).parameters["send_timeout"].default
    return "off by default" if seconds is None else f"{seconds:g} s by default"


def _debian() -> str:
    """Return the version of nchan, without those of the package."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", "libnginx-mod-nchan"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return text.partition(":")[2].partition("+")[0]


def peers(folder: Path) -> dict[str, Peer]:
    """Return the peers by their columns; nginx has its files in this folder."""
    return {
        OURS: Peer(sse_asgi.__version__, _uvicorn("ours"), _default(sse_asgi.EventSourceResponse)),
        SSE_STARLETTE: Peer(
            version("sse-starlette"), _uvicorn("on_sse_starlette"), _default(sse_starlette.EventSourceResponse)
        ),
        FASTAPI: Peer(version("fastapi"), _uvicorn("on_fastapi")),
        LITESTAR: Peer(version("litestar"), _uvicorn("on_litestar")),
        AIOHTTP: Peer(version("aiohttp-sse"), _aiohttp, _default(aiohttp_sse.sse_response)),
        NCHAN: Peer(_debian(), partial(_nchan, folder), "60 s by default"),
    }
