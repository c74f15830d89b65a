"""Publisher: publishing from code without an event loop, to a real Redis."""

import _thread
import asyncio
import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from real_redis.launcher import RedisServer
from redis_hubs import PATIENCE, kept, own_hub, texts, until
from sse_asgi import Backend, BackendError, Hub, Publisher, Settings, SSEError, create_hub, publisher
from sse_asgi.backends.base import Sink
from sse_asgi.publisher import _leave


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Let SIGINT interrupt this process; one that a shell has started in the background ignores it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture
def settings(shared_redis: RedisServer) -> Settings:
    return own_hub(shared_redis)


@pytest.fixture
def new_publisher(settings: Settings) -> Iterator[Callable[..., Publisher]]:
    """Return a function that makes a Publisher; the fixture closes it."""
    publishers: list[Publisher] = []

    def make(url: str | None = None) -> Publisher:
        publishers.append(Publisher(url, settings=settings))
        return publishers[-1]

    yield make
    for one in publishers:
        one.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """Start a server for a test that stops or kills it."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


def threads() -> list[threading.Thread]:
    """Return the threads of all Publishers of this process."""
    return [one for one in threading.enumerate() if one.name == "sse_asgi publisher"]


def waits(thread: int) -> bool:
    """Return True if a thread waits for the result of a Publisher's thread."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_back is not None and frame.f_back.f_code.co_name == "result"


@contextmanager
def interrupted() -> Iterator[None]:
    """Send Ctrl-C once this thread waits, and expect that it is raised within three seconds."""
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


def test_the_signature_of_publish_is_that_of_a_hub() -> None:
    """The signature is that of Hub.publish."""
    given, wanted = (inspect.signature(one.publish).parameters.values() for one in (Publisher, Hub))
    assert list(given) == list(wanted)


def test_an_event_is_stored_when_publish_returns(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    """Publish returns the id of the event, and the event has all given fields."""
    position = new_publisher().publish(["a", "b"], {"n": 1}, event="count", retry=5, key="k", idempotency_key="once")
    events = kept(settings, "b")
    assert [(one.id, one.event, one.data, one.retry) for one in events] == [(position, "count", '{"n":1}', 5)]


def test_a_repeated_idempotency_key_stores_nothing(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    """The hub gets the key: the second publish returns the first id."""
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
    """Wrong arguments raise the same errors as Hub.publish, and the Publisher can still be used."""
    one = new_publisher()
    with pytest.raises(error):
        one.publish(channel, data)
    assert one.publish("a", "x")


def test_fifty_threads_share_one(
    new_publisher: Callable[..., Publisher], settings: Settings, shared_redis: RedisServer
) -> None:
    """First publishes of fifty threads at once are all stored, by one more thread with two connections."""
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
    """Without arguments the environment says where to publish."""
    monkeypatch.setenv("SSE_BACKEND_URL", settings.backend_url)
    monkeypatch.setenv("SSE_HUB_NAME", settings.hub_name)
    with Publisher() as one:
        one.publish("a", "x")
    assert texts(settings) == ["x"]


def test_a_url_replaces_that_of_the_environment(
    settings: Settings, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other settings are still those of the environment."""
    monkeypatch.setenv("SSE_BACKEND_URL", "redis://nowhere.invalid")
    monkeypatch.setenv("SSE_HUB_NAME", settings.hub_name)
    with Publisher(shared_redis.url) as one:
        one.publish("a", "x")
    assert texts(settings) == ["x"]


def test_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events in memory have no readers elsewhere: an error says so, for the given URL and for the default one."""
    monkeypatch.delenv("SSE_BACKEND_URL", raising=False)
    with pytest.raises(ValueError, match=r"stay in their process.* set SSE_BACKEND_URL"):
        Publisher("memory://")
    with pytest.raises(ValueError, match="stay in their process"):
        Publisher()


def test_a_wrong_url_is_refused_at_once() -> None:
    """The constructor raises, as create_hub does."""
    with pytest.raises(ValueError, match="SSE_BACKEND_URL='pigeon://': no backend is installed"):
        Publisher("pigeon://", settings=Settings())


# Beside an event loop


@pytest.mark.anyio
async def test_in_an_event_loop_the_error_names_the_fix(new_publisher: Callable[..., Publisher]) -> None:
    """Waiting would block the running loop: a RuntimeError says what to write, and nothing connects."""
    with pytest.raises(RuntimeError, match=r"`await hub\.publish\(\.\.\.\)`"):
        new_publisher().publish("a", "x")
    assert threads() == []


def test_a_callback_of_an_event_loop_is_in_it(new_publisher: Callable[..., Publisher]) -> None:
    """A callback does not run in a task, so anyio does not see it; waiting there would block the loop as well."""
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
    """A thread that runs a `def` endpoint has no loop."""
    one = new_publisher()
    await anyio.to_thread.run_sync(one.publish, "a", "x")
    assert await anyio.to_thread.run_sync(texts, settings) == ["x"]


# Redis away


def test_while_redis_is_away_publishing_fails(own_redis: RedisServer, settings: Settings) -> None:
    """A publish raises BackendError after `timeout`; once Redis is back, a publish is stored."""
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


def test_a_frozen_redis_does_not_block_a_publish_for_ever(own_redis: RedisServer, settings: Settings) -> None:
    """If Redis accepts connections and does not answer, the first publish raises BackendError too."""
    own_redis.stop()
    with Publisher(f"{own_redis.url}?timeout=1", settings=settings) as one:
        with pytest.raises(BackendError):
            one.publish("a", "lost")
        own_redis.cont()
        assert one.publish("a", "stored")


def test_an_interrupt_ends_the_wait(own_redis: RedisServer, settings: Settings) -> None:
    """Ctrl-C is raised while publish waits for Redis, and the interrupted event is not published later."""
    with Publisher(own_redis.url, settings=settings) as one:
        one.publish("a", "before")
        own_redis.save()
        with interrupted():
            one.publish("a", "interrupted")
        own_redis.start()
        one.publish("a", "after")
    elsewhere = Settings(backend_url=own_redis.url, hub_name=settings.hub_name)
    assert texts(elsewhere) == ["before", "after"]


def test_an_interrupt_in_the_middle_of_the_start_of_a_call(
    own_redis: RedisServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the hub's thread has the call already, and the caller has nothing yet to wait for."""
    with Publisher(own_redis.url, settings=settings) as one:
        one.publish("a", "before")
        own_redis.save()
        portal = one._worker()._opened.result().portal
        start = portal.start_task_soon

        def interrupted(*arguments: Any) -> None:
            start(*arguments)
            raise KeyboardInterrupt

        monkeypatch.setattr(portal, "start_task_soon", interrupted)
        with pytest.raises(KeyboardInterrupt):
            one.publish("a", "interrupted")
        monkeypatch.undo()
        own_redis.start()
        one.publish("a", "after")
    assert texts(Settings(backend_url=own_redis.url, hub_name=settings.hub_name)) == ["before", "after"]


@pytest.mark.anyio
async def test_a_call_that_was_given_up_early_does_nothing() -> None:
    called: list[Hub] = []

    async def function(hub: Hub) -> None:
        called.append(hub)

    def ended(_: Callable[[], None]) -> None:
        raise RuntimeError

    for soon in (ended, lambda function: function()):
        call = publisher._Call(function, soon)
        call.give_up()
        with pytest.raises(CancelledError):
            await call.run(Hub())
    assert called == []


def test_an_interrupt_while_connecting_leaves_it_usable(own_redis: RedisServer, settings: Settings) -> None:
    """After Ctrl-C in the first publish, the second one uses the thread that the first one started."""
    own_redis.stop()
    with Publisher(own_redis.url, settings=settings) as one:
        with interrupted():
            one.publish("a", "interrupted")
        own_redis.cont()
        assert one.publish("a", "after")
        assert len(threads()) == 1


# The end


def test_closing_ends_everything(settings: Settings, shared_redis: RedisServer) -> None:
    """When close returns, the thread and the connections have ended; closing again does nothing."""
    one = Publisher(f"{shared_redis.url}?client_name={settings.hub_name}", settings=settings)
    one.publish("a", "x")
    one.close()
    one.close()
    assert threads() == []
    until(lambda: f"name={settings.hub_name} " not in shared_redis.cli("CLIENT", "LIST"))


@pytest.mark.parametrize("used", [True, False])
def test_a_closed_one_refuses(settings: Settings, used: object) -> None:
    """Publishing after the `with` block raises a RuntimeError that says what to do, and does not start a thread."""
    with Publisher(settings=settings) as one:
        if used:
            one.publish("a", "x")
    with pytest.raises(RuntimeError, match="this Publisher is closed: make another one"):
        one.publish("a", "y")
    assert threads() == []


def test_closing_lets_others_finish(own_redis: RedisServer, settings: Settings) -> None:
    """An event that another thread is publishing is stored before the connections end."""
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
    """An event that is not stored before the timeout is stored later."""
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
    """A publish that waits for the first connection raises the error of a closed Publisher."""
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
    """Without close, it ends when it is garbage-collected."""
    one = Publisher(f"{shared_redis.url}?client_name={settings.hub_name}", settings=settings)
    one.publish("a", "x")
    assert len(threads()) == 1
    del one
    gc.collect()
    until(lambda: not threads())
    until(lambda: f"name={settings.hub_name} " not in shared_redis.cli("CLIENT", "LIST"))


def test_an_unused_one_is_collected(settings: Settings) -> None:
    """It has no thread to end."""
    one = Publisher(settings=settings)
    del one
    gc.collect()
    assert threads() == []


def test_it_can_be_collected_in_its_own_thread(settings: Settings) -> None:
    """The collector runs in any thread; in the Publisher's own, _leave does not wait, and the thread ends later."""
    one = Publisher(settings=settings)
    one.publish("a", "x")
    (thread,) = threads()
    one._worker()._opened.result().portal.call(_leave, one._first)
    thread.join(PATIENCE)
    assert not thread.is_alive()


# What fails


def test_without_a_thread_it_says_so_and_goes_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system cannot start a thread, publishing fails, and the next publish tries again."""

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
    """Fails when it connects, or when it disconnects."""

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
    """Each publish raises the error of opening the hub, and closing works."""
    monkeypatch.setattr(publisher, "create_hub", lambda _: Hub(Failing("connecting")))
    with Publisher(settings=Settings()) as one:
        for _ in range(2):
            with pytest.raises(OSError, match="connecting"):
                one.publish("a", "x")
    assert threads() == []


def test_a_failure_at_the_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of closing the hub ends the thread, and threading.excepthook reports it."""
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    monkeypatch.setattr(publisher, "create_hub", lambda _: Hub(Failing("disconnecting")))
    with Publisher(settings=Settings()) as one:
        with pytest.raises(SSEError):
            one.publish("a", "x")
    assert [str(report.exc_value) for report in reported] == ["disconnecting"]


# Threads and forks


def test_another_process_id_gets_another_thread(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked process, which its id reveals, uses and closes a worker of its own, not its parent's."""
    with Publisher(settings=settings) as one:
        one.publish("a", "parent")
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            one.publish("a", "child")
            assert len(threads()) == 2
            one.close()
        one.publish("a", "parent again")
        assert len(threads()) == 1
    assert texts(settings) == ["parent", "child", "parent again"]


def test_a_process_id_may_be_used_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that has the id of its ended parent finds the parent's thread dead, and starts one of its own."""
    with Publisher(settings=settings) as one:
        one.publish("a", "parent")
        (thread,) = threads()
        monkeypatch.setattr(thread, "is_alive", lambda: False)
        one.publish("a", "child")
        assert len(threads()) == 2
        one.close()
        monkeypatch.undo()
        one._first.stop()
        thread.join(PATIENCE)
    assert threads() == []
    assert texts(settings) == ["parent", "child"]


def test_greenlets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If threads are greenlets, all Publishers would share one event loop: a RuntimeError says what works."""
    monkeypatch.setattr(_thread, "start_new_thread", lambda *_: None)
    with pytest.raises(RuntimeError, match="a Publisher needs threads, and gevent or eventlet has replaced them"):
        Publisher("redis://localhost", settings=Settings())


def test_a_thread_that_has_ended_is_replaced(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the thread has ended unexpectedly, the next publish starts another one instead of waiting for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with Publisher(settings=settings) as one:
        one.publish("a", "before")
        (thread,) = threads()

        opened = one._worker()._opened.result()
        opened.portal.start_task_soon(opened.stop)
        until(lambda: not thread.is_alive())
        assert one.publish("a", "after")
    assert texts(settings) == ["before", "after"]


def test_it_leaves_no_hook_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """os.register_at_fork keeps a function as long as the process lives, so a Publisher does not register one."""
    hooks: list[Any] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **given: hooks.append(given))
    with Publisher(settings=settings) as one:
        one.publish("a", "x")
    assert hooks == []


async def followed(settings: Settings, key: str) -> list[str]:
    """Return the data of a run's events, as another process reads them."""
    async with create_hub(settings) as hub:
        run = await hub.get_run(key)
        assert run is not None
        async with run.follow() as subscription:
            return [event.data or "" async for event in subscription]


def test_a_source_runs_to_its_end(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    """Its events reach other processes; a second run with the key waits for the first one."""
    one, two = new_publisher(), new_publisher()
    started = threading.Event()
    made: list[int] = []

    def report(number: int) -> Iterator[dict[str, int]]:
        made.append(number)
        for percent in (0, 50, 100):
            yield {"percent": percent}
            started.set()
            time.sleep(0.02)

    with ThreadPoolExecutor() as threads:
        first = threads.submit(one.run, "report", lambda: report(1), ttl=60)
        started.wait(PATIENCE)
        assert two.run("report", lambda: report(2)) == "finished"
        assert first.result(PATIENCE) == "finished"
    assert made == [1]
    assert anyio.run(followed, settings, "report") == [
        '{"percent":0}',
        '{"percent":50}',
        '{"percent":100}',
        '{"state":"finished"}',
    ]


def test_a_source_that_fails_is_told_by_the_state(new_publisher: Callable[..., Publisher]) -> None:
    def report() -> Iterator[str]:
        yield "1"
        raise LookupError

    assert new_publisher().run("report", report) == "failed"


def test_an_interrupted_call_cancels_its_run(new_publisher: Callable[..., Publisher], settings: Settings) -> None:
    started = threading.Event()

    def report() -> Iterator[str]:
        yield "1"
        started.set()
        while True:
            time.sleep(0.02)
            yield "2"

    def interrupt() -> None:
        started.wait(PATIENCE)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        new_publisher().run("report", report)
    assert anyio.run(followed, settings, "report")[-1] == '{"state":"cancelled"}'


@pytest.mark.anyio
async def test_an_event_loop_is_not_blocked_by_a_run(new_publisher: Callable[..., Publisher]) -> None:
    with pytest.raises(RuntimeError, match="start_run"):
        new_publisher().run("report", ["1"])


@pytest.mark.anyio
async def test_an_interrupted_wait_leaves_the_run_of_another_process_alone() -> None:
    async def forever() -> AsyncIterator[str]:
        yield "1"
        await anyio.sleep_forever()

    async with Hub() as hub:
        run = await hub.start_run("report", forever)
        with anyio.move_on_after(0.05):
            await publisher._run_to_end(hub, key="report", source=["x"], options={})
        assert run.state == "running"
