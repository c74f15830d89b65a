"""Publisher: publishing from where no event loop runs, to a real Redis."""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from real_redis.launcher import RedisServer
from servers.processes import ENVIRONMENT, Server, free_port
from sse_asgi import Backend, BackendError, Hub, Publisher, ServerSentEvent, Settings, SSEError, create_hub, publisher
from sse_asgi.backends.base import Sink
from sse_asgi.publisher import _leave

REAL_REDIS = Path(__file__).parent / "real_redis"
PATIENCE = 15.0
SCRIPT_SECONDS = 60.0


@pytest.fixture
def settings(shared_redis: RedisServer) -> Settings:
    """Tell a hub of its own on the server that tests share."""
    return Settings(backend_url=shared_redis.url, hub_name=secrets.token_hex(8))


@pytest.fixture
def new_publisher(settings: Settings) -> Iterator[Callable[..., Publisher]]:
    """Return a function that makes a Publisher, which is closed in the end."""
    publishers: list[Publisher] = []

    def make(url: str | None = None) -> Publisher:
        publishers.append(Publisher(url, settings=settings))
        return publishers[-1]

    yield make
    for one in publishers:
        one.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Start a server for a test that does it harm."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


def kept(settings: Settings, channel: str = "a") -> list[ServerSentEvent]:
    """Read what a hub keeps of a channel."""

    async def read() -> list[ServerSentEvent]:
        async with create_hub(settings) as hub:
            return await hub.history(channel, limit=1000)

    return anyio.run(read)


def texts(settings: Settings) -> list[str | None]:
    return [event.data for event in kept(settings)]


def threads() -> list[threading.Thread]:
    """Find the threads of all Publishers of this process."""
    return [one for one in threading.enumerate() if one.name == "sse_asgi publisher"]


def until(fact: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def waits(thread: int) -> bool:
    """Tell whether a thread waits for a Publisher's."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_back is not None and frame.f_back.f_code.co_name == "result"


@contextmanager
def interrupted() -> Iterator[None]:
    """Send Ctrl-C once this thread waits, and expect it to be raised at once."""
    main, sent = threading.get_ident(), []

    def interrupt() -> None:
        until(lambda: waits(main))
        sent.append(time.monotonic())
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    assert time.monotonic() - sent[0] < 3
    thread.join()


# Publishing


def test_an_event_is_stored_when_publish_returns(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    """What it returns is the id of the event, which has everything that was given."""
    position = new_publisher().publish(["a", "b"], {"n": 1}, event="count", retry=5, key="k", idempotency_key="once")
    events = kept(settings, "b")
    assert [(one.id, one.event, one.data, one.retry) for one in events] == [(position, "count", '{"n":1}', 5)]


def test_a_repeated_idempotency_key_stores_nothing(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    """The key reaches the hub: the first id is returned again."""
    one = new_publisher()
    first, second = (one.publish("a", text, idempotency_key="same") for text in "12")
    assert (first == second, texts(settings)) == (True, ["1"])


@pytest.mark.parametrize(
    ("channel", "data", "error"),
    [("a", None, ValueError), ("", "x", ValueError), ("a", object(), TypeError), ("a", lambda _: "x", TypeError)],
)
def test_mistakes_are_those_of_the_hub(
    new_publisher: Callable[..., Publisher], channel: str, data: Any, error: type[Exception]
) -> None:
    """Wrong arguments raise here what they raise there, and the Publisher works on."""
    one = new_publisher()
    with pytest.raises(error):
        one.publish(channel, data)
    assert one.publish("a", "x")


def test_fifty_threads_share_one(
    new_publisher: Callable[..., Publisher], settings: Settings, shared_redis: RedisServer
) -> None:
    """The first publishes of fifty threads at once are all stored, by one thread more and its two connections."""
    one, gate = new_publisher(f"{shared_redis.url}?client_name={settings.hub_name}"), threading.Barrier(50)

    def publish(number: int) -> str | None:
        gate.wait(PATIENCE)
        return one.publish("a", str(number))

    with ThreadPoolExecutor(50) as pool:
        ids = list(pool.map(publish, range(50)))
    assert sorted(ids, key=str) == [event.id for event in kept(settings)]
    assert sorted(map(str, range(50))) == sorted(map(str, texts(settings)))
    assert len(threads()) == 1
    assert shared_redis.cli("CLIENT", "LIST").count(f"name={settings.hub_name} ") == 2


def test_it_needs_no_url(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any argument it publishes where the environment says."""
    monkeypatch.setenv("SSE_BACKEND_URL", settings.backend_url)
    monkeypatch.setenv("SSE_HUB_NAME", settings.hub_name)
    with Publisher() as one:
        one.publish("a", "x")
    assert texts(settings) == ["x"]


def test_a_url_replaces_that_of_the_environment(
    settings: Settings, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other settings stay those of the environment."""
    monkeypatch.setenv("SSE_BACKEND_URL", "redis://nowhere.invalid")
    monkeypatch.setenv("SSE_HUB_NAME", settings.hub_name)
    with Publisher(shared_redis.url) as one:
        one.publish("a", "x")
    assert texts(settings) == ["x"]


def test_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would see the events: an error says why, whether memory was asked for or is only the default."""
    monkeypatch.delenv("SSE_BACKEND_URL", raising=False)
    with pytest.raises(ValueError, match=r"stay in their process.* set SSE_BACKEND_URL"):
        Publisher("memory://")
    with pytest.raises(ValueError, match="stay in their process"):
        Publisher()


def test_a_wrong_url_is_refused_at_once() -> None:
    """As by create_hub, when the Publisher is made."""
    with pytest.raises(ValueError, match="SSE_BACKEND_URL='pigeon://': no backend is installed"):
        Publisher("pigeon://", settings=Settings())


# Beside an event loop


@pytest.mark.anyio
async def test_in_an_event_loop_the_error_names_the_fix(new_publisher: Callable[..., Publisher]) -> None:
    """Where a loop runs, waiting would hold it up: a RuntimeError says what to write, and nothing is connected."""
    with pytest.raises(RuntimeError, match=r"`await hub\.publish\(\.\.\.\)`"):
        new_publisher().publish("a", "x")
    assert threads() == []


def test_a_callback_of_an_event_loop_is_in_it(new_publisher: Callable[..., Publisher]) -> None:
    """It runs in no task, so that anyio knows nothing of it; waiting there would hold up the loop as well."""
    problems: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, problem: problems.append(problem["exception"]))
    loop.call_soon(new_publisher().publish, "a", "x")
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    assert [type(problem) for problem in problems] == [RuntimeError]
    assert threads() == []


@pytest.mark.anyio
async def test_in_a_worker_thread_of_an_event_loop_it_works(
    new_publisher: Callable[..., Publisher], settings: Settings
) -> None:
    """A `def` endpoint runs in a thread that has no loop."""
    one = new_publisher()
    await anyio.to_thread.run_sync(one.publish, "a", "x")
    assert await anyio.to_thread.run_sync(texts, settings) == ["x"]


# Redis away


def test_while_redis_is_away_publishing_fails(own_redis: RedisServer, settings: Settings) -> None:
    """A publish waits for so long, then raises BackendError; one with Redis there again is stored."""
    own_redis.kill()
    with Publisher(f"{own_redis.url}?timeout=1", settings=settings) as one:
        began = time.monotonic()
        with pytest.raises(BackendError, match="the event was not published: Redis was away for 1 s"):
            one.publish("a", "lost")
        assert 0.5 < time.monotonic() - began < 5
        own_redis.start()
        assert one.publish("a", "stored")
        own_redis.restart()
        assert one.publish("a", "stored again")


def test_a_frozen_redis_is_not_waited_for_for_ever(own_redis: RedisServer, settings: Settings) -> None:
    """Where connections are accepted and nothing is answered, the first publish also waits for connecting."""
    own_redis.stop()
    with Publisher(f"{own_redis.url}?timeout=1", settings=settings) as one:
        with pytest.raises(BackendError):
            one.publish("a", "lost")
        own_redis.cont()
        assert one.publish("a", "stored")


def test_an_interrupt_ends_the_wait(own_redis: RedisServer, settings: Settings) -> None:
    """Ctrl-C is raised at once where Redis is waited for, and what was waited with is not published later."""
    with Publisher(own_redis.url, settings=settings) as one:
        one.publish("a", "before")
        own_redis.save()
        with interrupted():
            one.publish("a", "interrupted")
        own_redis.start()
        one.publish("a", "after")
    elsewhere = Settings(backend_url=own_redis.url, hub_name=settings.hub_name)
    assert texts(elsewhere) == ["before", "after"]


def test_an_interrupt_while_connecting_leaves_it_usable(own_redis: RedisServer, settings: Settings) -> None:
    """Ctrl-C in the first publish does not keep the second from using what was begun."""
    own_redis.stop()
    with Publisher(own_redis.url, settings=settings) as one:
        with interrupted():
            one.publish("a", "interrupted")
        own_redis.cont()
        assert one.publish("a", "after")
        assert len(threads()) == 1


# The end


def test_closing_ends_everything(settings: Settings, shared_redis: RedisServer) -> None:
    """Its thread and its connections are gone when close returns, and closing again does nothing."""
    one = Publisher(f"{shared_redis.url}?client_name={settings.hub_name}", settings=settings)
    one.publish("a", "x")
    one.close()
    one.close()
    assert threads() == []
    until(lambda: f"name={settings.hub_name} " not in shared_redis.cli("CLIENT", "LIST"))


@pytest.mark.parametrize("used", [True, False])
def test_a_closed_one_refuses(settings: Settings, used: object) -> None:
    """Publishing after the `with` block is a RuntimeError that says what to do, and starts no thread."""
    with Publisher(settings=settings) as one:
        if used:
            one.publish("a", "x")
    with pytest.raises(RuntimeError, match="this Publisher is closed: make another one"):
        one.publish("a", "y")
    assert threads() == []


def test_closing_lets_others_finish(own_redis: RedisServer, settings: Settings) -> None:
    """What another thread is publishing is stored before the connections end."""
    one = Publisher(own_redis.url, settings=settings)
    one.publish("a", "before")
    own_redis.stop()
    idents: list[int] = []

    def publish() -> str | None:
        idents.append(threading.get_ident())
        return one.publish("a", "under way")

    with ThreadPoolExecutor() as pool:
        stored = pool.submit(publish)
        until(lambda: idents and waits(idents[0]))
        closed = pool.submit(one.close)
        until(lambda: one._worker()._closed)
        assert not stored.done()
        own_redis.cont()
        assert stored.result(PATIENCE)
        closed.result(PATIENCE)
    assert threads() == []


def test_closing_does_not_wait_for_ever(own_redis: RedisServer, settings: Settings) -> None:
    """What is still under way when the time is over is stored later."""
    one = Publisher(f"{own_redis.url}?timeout=60", settings=settings)
    one.publish("a", "before")
    own_redis.stop()
    idents: list[int] = []

    def publish() -> str | None:
        idents.append(threading.get_ident())
        return one.publish("a", "under way")

    with ThreadPoolExecutor() as pool:
        stored = pool.submit(publish)
        until(lambda: idents and waits(idents[0]))
        pool.submit(one.close, timeout=0.01).result(PATIENCE)
        assert not stored.done()
        own_redis.cont()
        assert stored.result(PATIENCE)
    until(lambda: not threads())


def test_closing_while_it_connects_ends_the_waits(own_redis: RedisServer, settings: Settings) -> None:
    """Who waits for the first connection is told that it is closed."""
    own_redis.stop()
    one = Publisher(own_redis.url, settings=settings)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(one.publish, "a", "x")
        until(threads)
        one._worker().stop()
        with pytest.raises(RuntimeError, match="this Publisher is closed"):
            waiting.result(PATIENCE)
        own_redis.cont()
        one.close()
    assert threads() == []


def test_a_collected_one_is_closed(settings: Settings, shared_redis: RedisServer) -> None:
    """Nobody has to close it: it ends when nobody has it any more."""
    one = Publisher(f"{shared_redis.url}?client_name={settings.hub_name}", settings=settings)
    one.publish("a", "x")
    assert len(threads()) == 1
    del one
    gc.collect()
    until(lambda: not threads())
    until(lambda: f"name={settings.hub_name} " not in shared_redis.cli("CLIENT", "LIST"))


def test_an_unused_one_is_collected(settings: Settings) -> None:
    """There is nothing to end."""
    one = Publisher(settings=settings)
    del one
    gc.collect()
    assert threads() == []


def test_it_can_be_collected_in_its_own_thread(settings: Settings) -> None:
    """The collector runs in any thread; in this one nothing can be waited for, and the thread ends after it."""
    one = Publisher(settings=settings)
    one.publish("a", "x")
    (thread,) = threads()
    one._worker()._opened.result().portal.call(_leave, one._first)
    thread.join(PATIENCE)
    assert not thread.is_alive()


# What fails


def test_without_a_thread_it_says_so_and_goes_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no more threads, publishing fails, and the next one tries again."""

    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    with Publisher(settings=settings) as one:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                one.publish("a", "x")
        assert one.publish("a", "x")


class Failing(Backend):
    """Fails where it connects, or where it disconnects."""

    def __init__(self, where: str) -> None:
        self.where = where

    @asynccontextmanager
    async def connect(self, sink: Sink) -> AsyncIterator[None]:
        if self.where == "connecting":
            raise OSError(self.where)
        yield
        raise OSError(self.where)

    async def publish(self, *args: Any, **options: Any) -> None:
        raise BackendError

    async def subscribe(self, *args: Any) -> None: ...
    async def unsubscribe(self, *args: Any) -> None: ...
    async def history(self, *args: Any) -> Any: ...


def test_a_backend_that_cannot_be_opened_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opening the hub raises is raised by each publish, and closing works."""
    monkeypatch.setattr(publisher, "create_hub", lambda _: Hub(Failing("connecting")))
    with Publisher(settings=Settings()) as one:
        for _ in range(2):
            with pytest.raises(OSError, match="connecting"):
                one.publish("a", "x")
    assert threads() == []


def test_a_failure_at_the_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What closing the hub raises ends its thread, which reports it as threads do."""
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    monkeypatch.setattr(publisher, "create_hub", lambda _: Hub(Failing("disconnecting")))
    with Publisher(settings=Settings()) as one:
        with pytest.raises(SSEError):
            one.publish("a", "x")
    assert [str(report.exc_value) for report in reported] == ["disconnecting"]


# Processes

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
    """Run a program on the settings' hub; a warning, of what is left open for instance, is an error."""
    env = {**environment, "SSE_BACKEND_URL": settings.backend_url, "SSE_HUB_NAME": settings.hub_name}
    # Later Pythons deprecate forking a process that has threads, which is what is tried here.
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
    """It ends at once, with nothing on stderr, although the Publisher was never closed."""
    settings = Settings(backend_url=settings.backend_url.replace("127.0.0.1", host), hub_name=settings.hub_name)
    with start(script, settings) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        began = time.monotonic()
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
        assert time.monotonic() - began < 3
    assert process.returncode == 0


def test_forked_processes_publish_on_their_own(settings: Settings) -> None:
    """A child connects anew, however it ends, and the parent's connections stay what they were."""
    with start(FORK, settings) as process:
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    children = [text for number in range(3) for text in (f"child {number}", f"child {number}", "parent", "parent")]
    assert texts(settings) == ["parent", *children]


def test_a_child_may_have_the_number_of_a_process_that_has_ended(settings: Settings) -> None:
    """It connects anew all the same."""
    with start(FORK_WITH_A_NUMBER_AGAIN, settings) as process:
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    assert texts(settings) == ["parent", "child"]


# The interpreter's own locks are copied by a fork in C, so the thread must not be about to run.
SETTLE = """
import sys, threading, time
for thread in threading.enumerate():
    while thread is not threading.main_thread() and sys._current_frames()[thread.ident].f_code.co_name != "select":
        time.sleep(0.05)
time.sleep(0.2)
"""

FORK_IN_C = f"""
import ctypes, os, signal
from sse_asgi import Publisher

publisher = Publisher()
publisher.publish("a", "parent")
{SETTLE}
if not (child := ctypes.PyDLL(None).fork()):  # as uWSGI does: no hook of os.register_at_fork runs
    signal.alarm(30)
    publisher.publish("a", "child")
    publisher.publish("a", "child again")
    publisher.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
publisher.publish("a", "parent again")
"""


def test_a_process_that_is_forked_in_c_publishes_on_its_own(settings: Settings) -> None:
    """Where the server forks without Python's hooks, the child connects anew as well."""
    with start(FORK_IN_C, settings, ENVIRONMENT) as process:  # coverage has threads and locks of its own
        assert process.communicate(timeout=SCRIPT_SECONDS) == ("", "")
    assert process.returncode == 0
    assert texts(settings) == ["parent", "child", "child again", "parent again"]


def test_it_leaves_no_hook_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What os.register_at_fork is given stays as long as the process, so it is given nothing."""
    hooks: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given))
    with Publisher(settings=settings) as one:
        one.publish("a", "x")
    assert hooks == []


def test_a_thread_that_broke_off_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the thread ended on its own account, the next publish starts another one, instead of waiting for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with Publisher(settings=settings) as one:
        one.publish("a", "before")
        (thread,) = threads()

        opened = one._worker()._opened.result()
        opened.portal.start_task_soon(opened.stop)
        until(lambda: not thread.is_alive())
        assert one.publish("a", "after")
    assert texts(settings) == ["before", "after"]


# Servers of WSGI

WSGI = """
from sse_asgi import Publisher

publisher = Publisher()
if {publishes_before_the_fork}:
    publisher.publish("a", "before the fork")
    exec({settle!r})

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
    """Run the application above in a server that has forked two workers; yield a function that asks one of them."""
    (tmp_path / "published.py").write_text(
        WSGI.format(publishes_before_the_fork=publishes_before_the_fork, settle=SETTLE)
    )
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
    """They were forked in C, from a process that had published."""
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
    """With `-k gthread`, also where the application was loaded, and published, before the fork."""
    command = (*GUNICORN, "gthread", *(["--preload"] if preload else []))
    with serving(tmp_path, settings, *command, publishes_before_the_fork=preload) as ask:
        ids = [ask() for _ in range(5)]
    assert [event.id for event in kept(settings)][int(preload) :] == ids


def test_greenlets_of_gunicorn_are_told_what_to_do(tmp_path: Path, settings: Settings) -> None:
    """With `-k gevent` the first publish raises at once where the Publisher was made before; it says what works."""
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
    """Where threads are greenlets already, the Publisher is not made; the error says what works."""
    with start(GEVENT, settings) as process:
        output, errors = process.communicate(timeout=SCRIPT_SECONDS)
    assert "a Publisher needs threads" in output, errors
    assert "EventSourceApp(hub, publish=...)" in output


def test_a_web_process_hands_on_what_a_script_published(settings: Settings) -> None:
    """A browser at another process's server gets the event, with the id that the script was given."""
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
