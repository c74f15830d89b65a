"""The demo's server: its imports, its address and its end; tests/browser/test_demo.py runs it in a process."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sse_asgi import _demo


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore what the demo changes in its process: the import path, the imported chat and the handler of SIGTERM."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
    for name in [name for name in sys.modules if name.partition(".")[0] == "fastapi_chat"]:
        del sys.modules[name]


@pytest.mark.parametrize("interrupted", [False, True])
def test_it_serves_the_chat_at_the_printed_url(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, interrupted: bool
) -> None:
    """Uvicorn gets the chat and a socket that listens at the printed URL; Ctrl-C ends the demo without an error."""
    served: list[Any] = []

    def serve(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        served.extend([server.config.app, sockets[0].getsockname()])
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", serve)
    _demo.run("127.0.0.1", 0)
    app, (_, port) = served
    assert app.title == "Chat"
    assert capsys.readouterr().out == f"The chat is at http://127.0.0.1:{port}/ (Ctrl-C ends it)\n"
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_an_installed_package_has_the_chat_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel has `examples` in the package; it comes before the folder of a checkout."""
    (tmp_path / "examples" / "fastapi_chat").mkdir(parents=True)
    (tmp_path / "examples" / "fastapi_chat" / "chat.py").write_text("app = 'of the wheel'")
    monkeypatch.setattr(_demo, "__file__", str(tmp_path / "_demo.py"))
    assert _demo._load()[1] == "of the wheel"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FastAPI the demo says how to install it."""
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(SystemExit, match=r'The demo needs fastapi: pip install "sse-asgi\[demo\]"'):
        _demo._load()


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that the hub refuses ends the demo with its message."""
    monkeypatch.setenv("SSE_BUFFER_SIZE", "none")
    with pytest.raises(SystemExit, match="SSE_BUFFER_SIZE='none': must be"):
        _demo._load()


def test_an_address_in_use_is_an_error() -> None:
    """The message names the address, the reason and the options to change."""
    with _demo._listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        message = rf"Cannot listen on 127\.0\.0\.1, port {port}: .*\. Choose others with --host and --port\."
        with pytest.raises(SystemExit, match=message):
            _demo._listen("127.0.0.1", port)


def test_the_address_can_be_used_again_at_once() -> None:
    """On POSIX, an address in TIME_WAIT does not keep a restarted demo from listening."""
    with _demo._listen("127.0.0.1", 0) as listener:
        reuse = listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert bool(reuse) == (os.name == "posix")


@pytest.mark.parametrize(
    ("host", "shown"),
    [("0.0.0.0", "localhost"), ("::", "localhost"), ("::1", "[::1]"), ("example.org", "example.org")],
)
def test_the_url_is_one_that_a_browser_opens(host: str, shown: str) -> None:
    """An address for all interfaces is shown as localhost, and an IPv6 address in brackets."""
    with _demo._listen("127.0.0.1", 0) as listener:
        assert _demo._url(listener, host) == f"http://{shown}:{listener.getsockname()[1]}/"
