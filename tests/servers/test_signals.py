"""Hearing the signals that stop a server: ahead of each kind of handler, which is called and restored."""

import asyncio
import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import anyio
import pytest

from servers.local import heard
from sse_asgi._servers.shutdown import ShutdownNotice
from sse_asgi._servers.signals import hear_signals

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("handlers")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_is_heard_and_passed_on(number: signal.Signals) -> None:
    """To the handler that was installed, which is restored with the last listener."""
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


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
async def test_a_loops_own_handler_is_not_called() -> None:
    """It works all the same, through the loop's wake-up descriptor."""
    notice, ours, theirs = ShutdownNotice(), anyio.Event(), anyio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, theirs.set)
    notice.listen(ours.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(ours)
    await heard(theirs)
    notice.unlisten(ours.set)
    loop.remove_signal_handler(signal.SIGTERM)


async def test_a_servers_handler_may_be_called_later() -> None:
    """The known server says so for its own handler; daphne is the one that does."""
    passed = []

    def previous(signum: int, _: FrameType | None) -> None:
        passed.append(signum)

    previous.__module__ = "twisted.internet._signals"
    signal.signal(signal.SIGTERM, previous)
    notice, event, passed_on = ShutdownNotice(), anyio.Event(), anyio.Event()
    notice.listen(event.set)
    notice.when_quiet(passed_on.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    assert passed == []
    notice.unlisten(event.set)
    with anyio.fail_after(5):
        while passed != [signal.SIGTERM]:
            await anyio.sleep(0.01)
    assert passed_on.is_set()


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
    """It is not raised in the middle of a stream, even if a stream runs when the signal comes."""
    command = [sys.executable, "-c", INTERRUPTED]
    process = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert process.stdout.split("\n")[:2] == ["heard", "in the main task"]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_handler_of_trio_is_called_from_its_event_loop() -> None:
    """With the frame of trio's own code, by which it decides where to raise."""
    passed: list[Any] = []

    def previous(signum: int, frame: FrameType | None) -> None:
        passed.append((signum, frame is not None))

    previous.__module__ = "trio._core._ki"
    signal.signal(signal.SIGTERM, previous)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    with anyio.fail_after(5):
        while not passed:
            await anyio.sleep(0.01)
    assert passed == [(signal.SIGTERM, True)]
    notice.unlisten(event.set)


async def test_a_quit_is_heard_where_it_is_handled() -> None:
    """As by gunicorn's workers. SIGQUIT is left alone where it would dump the core."""
    before = signal.getsignal(signal.SIGQUIT)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    assert signal.getsignal(signal.SIGQUIT) is before
    notice.unlisten(event.set)
    signal.signal(signal.SIGQUIT, lambda *_: None)
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGQUIT)
    await heard(event)
    notice.unlisten(event.set)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_signal_after_the_event_loop_goes_to_the_handler_before() -> None:
    """The handler was not restored, because a stream still listened."""
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
    """It could not be restored."""
    set_handlers = []
    monkeypatch.setattr("signal.getsignal", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *arguments: set_handlers.append(arguments))
    notice = ShutdownNotice()
    notice.watch()
    notice.unwatch()
    assert set_handlers == []
    monkeypatch.undo()


async def test_an_ignored_signal_is_still_heard() -> None:
    """And stays ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    notice, event = ShutdownNotice(), anyio.Event()
    notice.listen(event.set)
    os.kill(os.getpid(), signal.SIGTERM)
    await heard(event)
    notice.unlisten(event.set)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


async def test_a_handler_that_came_later_is_left_alone() -> None:
    """Only a handler that is still ours is replaced by the one before."""
    notice = ShutdownNotice()
    notice.listen(lambda: None)

    def later(signum: int, frame: FrameType | None) -> None:
        """Be installed."""

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
    """Where there was no handler, streams have a second; then the process ends as it would have."""
    command = [sys.executable, "-c", PROCESS, loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"heard\n"
        assert process.wait(5) == -signal.SIGTERM


async def test_outside_the_main_thread_no_signal_is_heard() -> None:
    """Python runs handlers in the main thread only, and lets no other thread install one."""
    hearer: Any = None
    assert await anyio.to_thread.run_sync(hear_signals, hearer) == []
