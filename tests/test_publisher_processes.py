"""Publishers in scripts, in forked processes and in WSGI servers: real processes that publish to a real Redis."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from real_redis.launcher import RedisServer
from redis_hubs import PATIENCE, kept, own_hub, texts, until
from servers.processes import ENVIRONMENT, Server, free_port
from sse_asgi import Settings

REAL_REDIS = Path(__file__).parent / "real_redis"
SCRIPT_SECONDS = 60.0


@pytest.fixture
def settings(shared_redis: RedisServer) -> Settings:
    return own_hub(shared_redis)


# Scripts

EXIT = """
from sse_asgi import Publisher
publisher = Publisher()
print(publisher.publish("a", "x"), flush=True)
"""

EXIT_OF_A_FUNCTION = """
from sse_asgi import Publisher
def main():
    print(Publisher().publish("a", "x"), flush=True)
main()
"""

EXIT_WITH_A_CYCLE = """
import gc
gc.disable()
from sse_asgi import Publisher
publisher = Publisher()
publisher.self = publisher
print(publisher.publish("a", "x"), flush=True)
del publisher
"""

EXIT_WHILE_A_THREAD_WAITS = """
import logging, threading, time
from sse_asgi import Publisher
logging.disable()
publisher = Publisher("redis://127.0.0.1:1")
threading.Thread(target=publisher.publish, args=("a", "x"), daemon=True).start()
while not publisher._worker()._opened.done():
    time.sleep(0.01)
print("end", flush=True)
"""

FORK = """
import gc, os, sys
from sse_asgi import Publisher

publisher = Publisher()
publisher.publish("a", "parent")
for number in range(3):
    if not (child := os.fork()):
        publisher.publish("a", f"child {number}")
        publisher.publish("a", f"child {number}")
        match number:
            case 0:
                os._exit(0)
            case 1:
                publisher.close()
            case 2:
                del publisher
                gc.collect()
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    publisher.publish("a", "parent")
    publisher.publish("a", "parent")
"""


FORK_WITH_A_NUMBER_AGAIN = """
import os, signal
from sse_asgi import Publisher

publisher = Publisher()
publisher.publish("a", "parent")
number = os.getpid()
if not (child := os.fork()):
    os.getpid = lambda: number
    signal.alarm(10)
    publisher.publish("a", "child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def start(script: str, settings: Settings, environment: Mapping[str, str] = os.environ) -> subprocess.Popen[str]:
    """Run a program with the settings' hub; warnings, such as those of open connections, are errors."""
    env = {**environment, "SSE_BACKEND_URL": settings.backend_url, "SSE_HUB_NAME": settings.hub_name}
    # Later Pythons deprecate a fork of a process with threads, which these tests need.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", script]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


EXITS = {
    "module": EXIT,
    "function": EXIT_OF_A_FUNCTION,
    "cycle": EXIT_WITH_A_CYCLE,
    "while a thread waits": EXIT_WHILE_A_THREAD_WAITS,
}


@pytest.mark.parametrize("script", EXITS.values(), ids=EXITS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_script_ends_without_closing(settings: Settings, script: str, host: str) -> None:
    """A script that does not close its Publisher ends within three seconds, and stderr is empty."""
    settings = Settings(backend_url=settings.backend_url.replace("127.0.0.1", host), hub_name=settings.hub_name)
    with start(script, settings) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        began = time.monotonic()
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
        assert time.monotonic() - began < 3
    assert process.returncode == 0


def test_forked_processes_publish_on_their_own(settings: Settings) -> None:
    """A child connects again, however it ends, and the parent's connections still work."""
    with start(FORK, settings) as process:
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    children = [text for number in range(3) for text in (f"child {number}", f"child {number}", "parent", "parent")]
    assert texts(settings) == ["parent", *children]


def test_a_child_may_have_the_number_of_a_process_that_has_ended(settings: Settings) -> None:
    """Such a child connects again too."""
    with start(FORK_WITH_A_NUMBER_AGAIN, settings) as process:
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    assert texts(settings) == ["parent", "child"]


# A fork in C copies the locks of the interpreter as they are. If the Publisher's thread waits for the GIL at that
# moment, the child hands the GIL over to a thread that it does not have, and hangs. Observed: 7 of 55 runs, although
# the thread was in its selector. So the thread is put into a read() that does not return: with a switch interval this
# long, it gives up the GIL only inside the read. Observed: 0 of 60 runs.
PARK = """
import os, sys, time

interval, gate, reads = sys.getswitchinterval(), os.pipe(), []

def park():
    reads.append(True)
    os.read(gate[0], 1)

sys.setswitchinterval(1000)
publisher._worker()._opened.result().portal.start_task_soon(park)
while not reads:
    time.sleep(0.001)
sys.setswitchinterval(interval)
"""

FORK_IN_C = f"""
import ctypes, os, signal
from sse_asgi import Publisher

publisher = Publisher()
publisher.publish("a", "parent")
{PARK}
if not (child := ctypes.PyDLL(None).fork()):  # like uWSGI: the hooks of os.register_at_fork do not run
    signal.alarm(30)
    publisher.publish("a", "child")
    publisher.publish("a", "child again")
    publisher.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os.write(gate[1], b"x")
publisher.publish("a", "parent again")
"""


def test_a_process_that_is_forked_in_c_publishes_on_its_own(settings: Settings) -> None:
    """After a fork that does not run Python's hooks, the child connects again as well."""
    with start(FORK_IN_C, settings, ENVIRONMENT) as process:  # without coverage, which has threads and locks of its own
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    assert texts(settings) == ["parent", "child", "child again", "parent again"]


# WSGI servers

WSGI = """
from sse_asgi import Publisher

publisher = Publisher()
if {publishes_before_the_fork}:
    publisher.publish("a", "before the fork")
    exec({park!r})

def application(environ, start_response):
    try:
        answer = publisher.publish("a", "from a worker")
    except RuntimeError as error:
        answer = str(error)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
"""


@contextmanager
def serving(
    tmp_path: Path, settings: Settings, *command: str, publishes_before_the_fork: bool
) -> Iterator[Callable[[], str]]:
    """Run the application above in a server with two forked workers; yield a function that asks one of them."""
    (tmp_path / "published.py").write_text(WSGI.format(publishes_before_the_fork=publishes_before_the_fork, park=PARK))
    port = free_port()
    env = {**ENVIRONMENT, "SSE_BACKEND_URL": settings.backend_url, "SSE_HUB_NAME": settings.hub_name}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [part.format(port=port) for part in command], cwd=tmp_path, env=env, stdout=log, stderr=log
        )

    def ask() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as answer:
            return str(answer.read().decode())

    try:
        until(lambda: answers(port))
        yield ask
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


UWSGI = (
    str(Path(sys.executable).parent / "pyuwsgi"),
    *("--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2", "--enable-threads", "--die-on-term"),
    *("--wsgi-file", "published.py", "--virtualenv", sys.prefix),
)


def test_the_workers_of_uwsgi_publish(tmp_path: Path, settings: Settings) -> None:
    """UWSGI forks them in C, here from a process that has published."""
    with serving(tmp_path, settings, *UWSGI, publishes_before_the_fork=True) as ask:
        ids = [ask() for _ in range(5)]
    assert [event.id for event in kept(settings)][1:] == ids


GUNICORN = (
    sys.executable,
    "-m",
    "gunicorn",
    "published:application",
    "-b",
    "127.0.0.1:{port}",
    "-w",
    "2",
    "--graceful-timeout",
    "1",
    "-k",
)


@pytest.mark.parametrize("preload", [False, True])
def test_the_threads_of_gunicorn_publish(tmp_path: Path, settings: Settings, *, preload: bool) -> None:
    """With `-k gthread`, also if the application was loaded before the fork and has published there."""
    command = (*GUNICORN, "gthread", *(["--preload"] if preload else []))
    with serving(tmp_path, settings, *command, publishes_before_the_fork=preload) as ask:
        ids = [ask() for _ in range(5)]
    assert [event.id for event in kept(settings)][int(preload) :] == ids


def test_with_gevent_in_gunicorn_the_error_says_what_to_do(tmp_path: Path, settings: Settings) -> None:
    """With `-k gevent` a Publisher made before the patch raises at its first publish; the error says what works."""
    command = (*GUNICORN, "gevent", "--preload")
    with serving(tmp_path, settings, *command, publishes_before_the_fork=False) as ask:
        assert "gunicorn -k gthread" in ask()
        assert "gunicorn -k gthread" in ask()
    assert texts(settings) == []


GEVENT = """
from gevent import monkey
monkey.patch_all()
from sse_asgi import Publisher
try:
    Publisher("redis://localhost")
except RuntimeError as error:
    print(error)
"""


def test_with_gevent_it_is_refused_at_once(settings: Settings) -> None:
    """If threads are greenlets already, the constructor raises; the error says what works."""
    with start(GEVENT, settings) as process:
        output, errors = process.communicate(timeout=SCRIPT_SECONDS)
    assert "a Publisher needs threads" in output, errors
    assert "EventSourceApp(hub, publish=...)" in output


def test_a_web_process_sends_an_event_that_a_script_published(settings: Settings) -> None:
    """A reader at another process's server gets the event, with the id that publish returned to the script."""
    environment = {"SSE_BACKEND_URL": settings.backend_url, "SSE_HUB_NAME": settings.hub_name}
    command = ("uvicorn", "served:app", "--port", "{port}", "--app-dir", str(REAL_REDIS))
    server = Server.start(command, **environment)
    try:
        stream = server.open("/events/?channel=a")
        stream.until(b"id: ")
        with start(EXIT, settings) as process:
            position = process.communicate(timeout=SCRIPT_SECONDS)[0].strip()
        assert b"data: x" in stream.until(b"data: x")
        assert f"id: {position}\n".encode() in stream.until(b"data: x")
    finally:
        server.remove()
