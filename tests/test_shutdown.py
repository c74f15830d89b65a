"""The ShutdownNotice: who hears of a shutdown, what is touched for it, and that it is put back."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from types import FrameType
from typing import Any

import anyio
import hypercorn
import pytest
import uvicorn
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]

from sse_asgi._servers.known import running_servers
from sse_asgi._servers.shutdown import ShutdownNotice, current_notice, farewell

pytestmark = pytest.mark.anyio


@pytest.fixture
def handlers() -> Iterator[None]:
    """Put the signal handlers back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def heard(event: anyio.Event) -> None:
    with anyio.fail_after(5):
        await event.wait()


async def test_each_event_loop_has_one_notice() -> None:
    """The same one within a loop, another one elsewhere."""
    here = current_notice()
    assert current_notice() is here

    async def elsewhere() -> ShutdownNotice:
        return current_notice()

    assert await anyio.to_thread.run_sync(anyio.run, elsewhere) is not here


async def test_every_listener_is_told_once() -> None:
    """Later ones at once, and a second shutdown tells nobody."""
    notice, told = ShutdownNotice(), []

    def one() -> None:
        told.append(1)

    def two() -> None:
        told.append(2)

    notice.listen(one)
    notice.hear()
    notice.hear()
    notice.listen(two)
    assert (told, notice.listeners, notice.heard) == ([1, 2], 2, True)
    notice.unlisten(one)
    notice.unlisten(two)
    assert notice.listeners == 0


async def test_farewells_differ_and_spread_further_for_more_clients() -> None:
    """A retry line without a blank line, never 0."""
    notice = ShutdownNotice()
    values = {int(farewell(notice).removeprefix(b"retry: ")) for _ in range(200)}
    assert len(values) > 20
    assert min(values) >= 500
    assert max(values) <= 1500
    notice._listeners = dict.fromkeys(range(10_000), notice)  # type: ignore[arg-type]
    assert max(int(farewell(notice).removeprefix(b"retry: ")) for _ in range(200)) > 5000


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_heard_and_passed_on(number: signal.Signals) -> None:
    """To the handler that was there, which is put back with the last listener."""
    passed = []

    def previous(signum: int, _: FrameType | None) -> None:
        passed.append(signum)

    signal.signal(number, previous)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    assert signal.getsignal(number) is not previous
    os.kill(os.getpid(), number)
    await heard(event)
    assert passed == [number]
    notice.unlisten(event.set)
    assert signal.getsignal(number) is previous


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
async def test_a_loops_own_handler_is_not_called() -> None:
    """It works through the loop's wake-up descriptor all the same."""
    notice, ours, theirs = ShutdownNotice(), anyio.Event(), anyio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, theirs.set)
    notice.listen(ours.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(ours)
    await heard(theirs)
    notice.unlisten(ours.set)
    loop.remove_signal_handler(signal.SIGTERM)


@pytest.mark.usefixtures("handlers")
async def test_a_handler_of_twisted_waits_for_the_streams() -> None:
    """And a moment longer, until what is around them has ended: for what it does is to cancel them all, as daphne's."""
    passed = []

    def previous(signum: int, _: FrameType | None) -> None:
        passed.append(signum)

    previous.__module__ = "twisted.internet._signals"
    signal.signal(signal.SIGTERM, previous)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    assert passed == []
    notice.unlisten(event.set)
    assert passed == []
    with anyio.fail_after(5):
        while passed != [signal.SIGTERM]:
            await anyio.sleep(0.01)


INTERRUPTED = """
import anyio, os, signal
from sse_asgi._servers.shutdown import ShutdownNotice

async def busy():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        await anyio.sleep(0.1)
    except KeyboardInterrupt:
        print("in a stream", flush=True)

async def main():
    notice = ShutdownNotice()
    notice.listen(lambda: print("heard", flush=True))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(busy)
        try:
            await anyio.sleep(5)
        except KeyboardInterrupt:
            print("in the main task", flush=True)

anyio.run(main, backend="trio")
"""


def test_a_keyboard_interrupt_of_trio_is_raised_in_its_main_task() -> None:
    """And not in the middle of a stream, which may be what runs when the signal comes."""
    command = [sys.executable, "-c", INTERRUPTED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert process.stdout.split("\n")[:2] == ["heard", "in the main task"]


@pytest.mark.usefixtures("handlers")
async def test_a_quit_is_heard_where_it_is_handled() -> None:
    """As by gunicorn's workers; nothing is touched where it would dump the core."""
    before = signal.getsignal(signal.SIGQUIT)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    assert signal.getsignal(signal.SIGQUIT) is before
    notice.unlisten(event.set)
    try:
        signal.signal(signal.SIGQUIT, lambda *_: None)
        notice.listen(event.set)
        os.kill(os.getpid(), signal.SIGQUIT)
        await heard(event)
        notice.unlisten(event.set)
    finally:
        signal.signal(signal.SIGQUIT, before)


async def test_quiet_comes_with_the_last_stream() -> None:
    """At once where there is none; each callback once."""
    notice, told = ShutdownNotice(), []
    notice.watch()
    notice.when_quiet(lambda: told.append("at once"))
    one, two = object().__repr__, object().__repr__
    notice.listen(one)  # type: ignore[arg-type]
    notice.listen(two)  # type: ignore[arg-type]
    notice.when_quiet(lambda: told.append("later"))
    notice.unlisten(one)  # type: ignore[arg-type]
    assert told == ["at once"]
    notice.unlisten(two)  # type: ignore[arg-type]
    assert told == ["at once", "later"]
    notice.unwatch()


async def test_a_callback_for_quiet_is_called_once() -> None:
    """Though it is given twice, as with two signals."""
    notice, told = ShutdownNotice(), []

    def callback() -> None:
        told.append(1)

    listener = object().__repr__
    notice.listen(listener)  # type: ignore[arg-type]
    notice.when_quiet(callback)
    notice.when_quiet(callback)
    notice.unlisten(listener)  # type: ignore[arg-type]
    assert told == [1]


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_signal_after_the_event_loop_goes_to_the_handler_before() -> None:
    """Which was not put back, because somebody still listened."""
    passed = []
    signal.signal(signal.SIGTERM, lambda number, _: passed.append(number))
    loop = asyncio.new_event_loop()
    loop.close()
    notice = ShutdownNotice()
    call: Any = lambda _: loop.call_soon_threadsafe(print)  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sse_asgi._servers.signals.thread_safe_caller", lambda: call)
        notice.watch()
    os.kill(os.getpid(), signal.SIGTERM)
    assert passed == [signal.SIGTERM]
    notice.unwatch()


async def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not be put back."""
    set_handlers = []
    monkeypatch.setattr("signal.getsignal", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *arguments: set_handlers.append(arguments))
    notice = ShutdownNotice()
    notice.watch()
    notice.unwatch()
    assert set_handlers == []


async def test_quiet_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a stream that never ends, such as one with an endless background task."""
    monkeypatch.setattr("sse_asgi._servers.shutdown.QUIET_SECONDS", 0.01)
    notice, event = ShutdownNotice(), anyio.Event()
    listener = object().__repr__
    notice.listen(listener)  # type: ignore[arg-type]
    notice.when_quiet(event.set)
    await heard(event)
    notice.unlisten(listener)  # type: ignore[arg-type]


@pytest.mark.usefixtures("handlers")
async def test_an_ignored_signal_is_still_heard() -> None:
    """And stays ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    notice.unlisten(event.set)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


@pytest.mark.usefixtures("handlers")
async def test_a_handler_that_came_later_is_left_alone() -> None:
    """Only what is still ours is put back."""
    notice = ShutdownNotice()
    notice.listen(lambda: None)

    def later(signum: int, frame: FrameType | None) -> None:
        pass

    signal.signal(signal.SIGTERM, later)
    notice.unlisten(next(iter(notice._listeners)))
    assert signal.getsignal(signal.SIGTERM) is later


PROCESS = """
import anyio, sys
from sse_asgi._servers.shutdown import current_notice

async def main():
    heard = anyio.Event()
    current_notice().listen(heard.set)
    print("ready", flush=True)
    await heard.wait()
    current_notice().unlisten(heard.set)
    print("heard", flush=True)
    await anyio.sleep(30)

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_signal_that_would_kill_kills_a_second_later(loop: str) -> None:
    """Where there was no handler, streams have a second, then the process ends as it would have."""
    command = [sys.executable, "-c", PROCESS, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"heard\n"
        assert process.wait(5) == -signal.SIGTERM


async def test_outside_the_main_thread_nothing_is_touched() -> None:
    """No signal can be heard there, and none is asked for."""
    before = signal.getsignal(signal.SIGTERM)
    after = []

    async def elsewhere() -> None:
        notice = current_notice()
        notice.listen(lambda: None)
        after.append(signal.getsignal(signal.SIGTERM))
        notice.unlisten(next(iter(notice._listeners)))

    await anyio.to_thread.run_sync(anyio.run, elsewhere)
    assert after == [before]


# uvicorn's own server


class Served:
    """A uvicorn server in a thread, whose app runs a function in its loop."""

    def __init__(self, function: Any, **config: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                function(self)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})

        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", **config))
        self.log: list[Any] = []

    def run(self) -> None:
        thread = threading.Thread(target=self.server.run)
        thread.start()
        while not self.server.started:
            assert thread.is_alive()
        self.server.should_exit = True
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_uvicorns_shutdown_is_heard_in_a_thread(loop: str) -> None:
    """The instance that serves this loop is found and asked, and the loop may serve again after it."""

    def start(served: Served) -> None:
        assert [one.key for one in running_servers()] == [served.server]
        notice = current_notice()

        def listener() -> None:
            served.log.append(notice.heard)
            notice.unlisten(listener)

        notice.listen(listener)
        served.log.append(notice)

    served = Served(start, loop=loop)
    served.run()
    notice, heard_then = served.log
    assert heard_then is True
    assert notice.heard is False


def test_a_server_that_is_stopping_is_heard_at_once() -> None:
    """A stream that begins after the signal is told immediately."""

    def start(served: Served) -> None:
        served.server.should_exit = True
        notice = ShutdownNotice()
        notice.listen(lambda: served.log.append("heard"))
        notice.unlisten(next(iter(notice._listeners)))
        served.server.should_exit = False

    served = Served(start)
    served.run()
    assert served.log == ["heard"]


# Other servers' own words


async def test_without_these_servers_none_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals are heard all the same."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delitem(sys.modules, "hypercorn")
    monkeypatch.delitem(sys.modules, "gunicorn.workers.gasgi")
    notice = ShutdownNotice()
    notice.watch()
    assert signal.getsignal(signal.SIGTERM) is not before
    notice.unwatch()
    assert signal.getsignal(signal.SIGTERM) is before


async def serve_hypercorn(on_startup: Any, anyio_backend: str, *, stop: anyio.Event) -> None:
    """Run hypercorn in this event loop until the event is set."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        on_startup()
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.loglevel = "critical"
    serve: Any = import_module(f"hypercorn.{anyio_backend}").serve
    with anyio.fail_after(5):
        await serve(app, config, shutdown_trigger=stop.wait)


async def test_hypercorns_shutdown_is_heard(anyio_backend: str) -> None:
    """From what it waits for itself, while its application still runs."""
    notice, stop, told = ShutdownNotice(), anyio.Event(), anyio.Event()

    def start() -> None:
        notice.listen(told.set)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(serve_hypercorn, start, anyio_backend, stop=stop))
        await heard(told)
    notice.unlisten(told.set)


async def test_a_hypercorn_is_not_asked_without_streams(anyio_backend: str) -> None:
    """The last listener ends the asking."""
    notice, stop, told = ShutdownNotice(), anyio.Event(), []

    def start() -> None:
        notice.listen(lambda: told.append(1))
        notice.unlisten(next(iter(notice._listeners)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(serve_hypercorn, start, anyio_backend, stop=stop))
        await anyio.sleep(0.25)  # two looks
        stop.set()
    assert (told, notice.heard) == ([], False)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_gunicorn_worker_that_will_end_is_heard() -> None:
    """From its own field, which --max-requests sets."""

    class Worker(ASGIWorker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.alive = True

        async def serve(self) -> None:
            await anyio.sleep_forever()

    worker, notice, told = Worker(), ShutdownNotice(), anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.serve)
        await anyio.sleep(0)
        notice.listen(told.set)
        await anyio.sleep(0.15)  # a look
        assert not told.is_set()
        worker.alive = False
        await heard(told)
        notice.unlisten(told.set)
        tasks.cancel_scope.cancel()
