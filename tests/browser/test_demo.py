"""`python -m sse_asgi` as a process: its output, and its end."""

import importlib
import os
import signal
import socket
import subprocess
import sys

import pytest

from browser.peers import DEMO, PATIENCE, Demo, free_port

BLOCKED = """
import runpy, sys
sys.modules[sys.argv.pop(1)] = None
runpy.run_module("sse_asgi", run_name="__main__", alter_sys=True)
"""


def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    env = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=env, check=False)


def test_the_url_is_printed_on_one_line() -> None:
    """The only line of output has the URL, and the server answers there."""
    with Demo() as demo:
        demo.get("rooms")
        output, _ = demo.stop()
    assert output == f"The chat is at {demo.url} (Ctrl-C ends it)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_at_once(number: int) -> None:
    """With open and just closed tabs, a stop takes less than two seconds; streams end properly; the exit code is 0."""
    with Demo() as demo, demo.stream(room="lobby", name="Ada") as stream:
        stream.next("snapshot")
        with demo.stream(room="lobby", name="Bob") as gone:
            gone.next("snapshot")
        _, seconds = demo.stop(number)
        stream.read_to_end()
    assert seconds < 2


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


HOSTS = {"0.0.0.0": "localhost", "localhost": "localhost"} | ({"::1": "[::1]"} if has_ipv6() else {})


@pytest.mark.parametrize(("host", "shown"), HOSTS.items())
def test_host_and_port_come_from_the_environment(host: str, shown: str) -> None:
    """Without arguments the demo listens on HOST and PORT, and a browser can open the printed URL."""
    port = free_port()
    command = (sys.executable, "-m", "sse_asgi")
    env = {**os.environ, "HOST": host, "PORT": str(port)}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
    assert f" http://{shown}:{port}/ " in line
    assert process.returncode == 0


def test_port_0_is_any_free_one() -> None:
    """The URL has the free port, which answers from the moment that the URL is printed."""
    with subprocess.Popen([*DEMO, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/")[2].split(":")[1])
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0


@pytest.mark.parametrize("port", ["abc", "-1", "65536", "8000.5"])
def test_a_wrong_port_is_refused(port: str) -> None:
    """A wrong PORT is one line of error, without a traceback."""
    result = run(sys.executable, "-m", "sse_asgi", PORT=port)
    assert result.returncode == 2
    assert f"PORT or --port must be a number from 0 to 65535 (got {port!r})" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_port_in_use_is_said() -> None:
    """If the port is in use, the error is one line, without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run(*DEMO, "--port", str(port))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Cannot listen on 127.0.0.1, port {port}: Address already in use.")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["uvicorn", "fastapi"])
def test_a_missing_extra_is_named(module: str) -> None:
    """Without the demo's requirements, one line says what to install."""
    result = run(sys.executable, "-c", BLOCKED, module)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f'The demo needs {module}: pip install "sse-asgi[demo]"\n'


def test_a_wrong_setting_is_said() -> None:
    """If create_hub refuses a variable, its message is one line, without a traceback."""
    result = run(*DEMO, SSE_BACKEND_URL="nonsense://")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("SSE_BACKEND_URL='nonsense://'")
    assert result.stderr.count("\n") == 1


def test_an_unknown_command_is_refused() -> None:
    """An unknown command is an error, and --help lists the known ones."""
    assert run(sys.executable, "-m", "sse_asgi", "serve").returncode == 2
    assert "demo" in run(sys.executable, "-m", "sse_asgi", "--help").stdout


def test_importing_runs_nothing() -> None:
    """Importing `__main__` does not run it, which matters to tools that import every module."""
    assert callable(importlib.import_module("sse_asgi.__main__").main)
