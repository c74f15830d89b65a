"""The event loop that a hub belongs to, and the ways into it from other threads and other event loops."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from .._loop.running import running_loop, thread_safe_caller
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from ..exceptions import HubClosedError

T = TypeVar("T")


class Home:
    """The event loop in which a hub was opened."""

    __slots__ = ("_call", "_loop", "_process")

    def __init__(self) -> None:
        """Be the running event loop."""
        self._loop: Any = running_loop()
        self._call = thread_safe_caller()
        self._process = os.getpid()

    def is_here(self) -> bool:
        """Return True if this event loop runs in the calling thread."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return running_loop() is self._loop

    def check(self, what: str) -> None:
        """Accept this event loop only.

        Args:
            what: What failed, for the error.

        Raises:
            RuntimeError: It does not run in the calling thread; the message names what works there.
            HubClosedError: It has ended, so that nothing works.
        """
        if not self.is_here():
            self.soon(_do_nothing)
            raise _elsewhere(what)

    def takes_over(self, function: Callable[[], None]) -> bool:
        """Return False in this event loop; elsewhere have the function called in it, soon, and return True."""
        if self.is_here():
            return False
        self.soon(function)
        return True

    def check_process(self) -> None:
        """Accept the process of this event loop.

        Raises:
            RuntimeError: The process is a fork of it, where this event loop does not run.
        """
        if os.getpid() != self._process:
            msg = "this hub was opened before the process was forked: open a hub in each process, or use a Publisher"
            raise RuntimeError(msg)

    def soon(self, function: Callable[[], None]) -> None:
        """Have a function called in this event loop; the call never waits, and works in every thread.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: The process is a fork.
        """
        self.check_process()
        try:
            self._call(function)
        except RuntimeError as error:  # asyncio says this of a closed loop, and trio raises a subclass
            raise _ended() from error

    def wait(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an async function in a task of this event loop, and hold up the calling thread until it returns.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: The process is a fork.
            Exception: What the function raises.
        """
        job = self._start(function)
        try:
            return job.outcome.result()
        except BaseException:  # KeyboardInterrupt
            job.give_up()
            raise

    async def carry(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an async function in a task of this event loop, and wait for it in another one.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: The process is a fork.
            Exception: What the function raises.
        """
        answered, call = new_wakeup(), thread_safe_caller()

        def answer(_: "Future[T]") -> None:
            with suppress(RuntimeError):  # the waiting loop has ended as well
                call(answered.set)

        job = self._start(function)
        job.outcome.add_done_callback(answer)
        try:
            while not job.outcome.done():
                await answered
        except BaseException:
            job.give_up()
            raise
        return job.outcome.result()

    def _start(self, function: Callable[[], Coroutine[Any, Any, T]]) -> "_Job[T]":
        if isinstance(self._loop, asyncio.AbstractEventLoop) and not self._loop.is_running():
            raise _ended()  # nothing would run there, and the wait would never end
        job = _Job(self, function)
        self.soon(job.begin)
        return job


def _ended() -> HubClosedError:
    what = "the hub cannot be reached"
    fix = "the event loop that opened it has ended, or stands still. Close a hub in its own loop; make another one here"
    return HubClosedError(what, fix)


def _do_nothing() -> None:
    """Be called in an event loop that may have ended."""


def _elsewhere(what: str) -> RuntimeError:
    """Return the error of a call that only works in the hub's own event loop."""
    return RuntimeError(
        f"{what}: this hub belongs to the event loop that opened it, and another event loop runs here. "
        "Do this in the hub's loop. Here `await hub.publish(...)`, `hub.publish_from_thread(...)` and "
        "`hub.publish_soon(...)` work, and so does a second hub of the same Redis that is opened here."
    )


class _Job(Generic[T]):
    """One call that another thread or another event loop waits for."""

    def __init__(self, home: Home, function: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.outcome: Future[T] = Future()
        self._home = home
        self._function = function
        self._child: Child | None = None

    def begin(self) -> None:
        if self.outcome.set_running_or_notify_cancel():
            self._child = spawn(self._run, self._end, context=Context())

    async def _run(self) -> None:
        try:
            result = await self._function()
        except Exception as error:  # noqa: BLE001 - raised again where the call came from
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def _end(self) -> None:
        if not self.outcome.done():  # the task was cancelled, as all are when an event loop ends
            what = "the event loop of the hub ended during the call"
            self.outcome.set_exception(HubClosedError(what, "whether it was carried out is not known"))

    def give_up(self) -> None:
        if not (self.outcome.done() or self.outcome.cancel()):
            with suppress(RuntimeError):  # the event loop has ended, and the task with it
                self._home.soon(self._cancel)

    def _cancel(self) -> None:
        assert self._child is not None  # it was begun, for this is called after that
        self._child.cancel()
