"""Home: the event loop that a hub belongs to, and calls into it from other threads and other event loops.

A coroutine of the hub that is awaited in another event loop runs in the hub's loop, and its result is sent back, so
that no code outside the hub's loop touches the hub. Subscriptions are refused in other loops, because each event would
cost a trip to the other loop and back.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from typing import Any, Generic, TypeVar

from .._loop.running import checkpoint_here, running_loop, thread_safe_caller
from .._loop.tasks import Child, spawn
from .._loop.wakeup import new_wakeup
from ..exceptions import HubClosedError

T = TypeVar("T")


class Home:
    """The event loop in which a hub was opened.

    Attributes:
        checkpoint: Lets every other task of this event loop that is ready run once, while it is awaited.
    """

    __slots__ = ("_call", "_loop", "_process", "checkpoint")

    def __init__(self) -> None:
        """Remember the running event loop and its process."""
        self._loop: Any = running_loop()
        self._call = thread_safe_caller()
        self._process = os.getpid()
        self.checkpoint: Callable[[], Awaitable[None]] = checkpoint_here()

    def is_here(self) -> bool:
        """Return True if this event loop runs in the calling thread."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return running_loop() is self._loop

    def check(self, what: str) -> None:
        """Return if this event loop runs in the calling thread, else raise.

        Args:
            what: The call that failed, for the error.

        Raises:
            RuntimeError: Another event loop runs here, or none; the message names the calls that work here.
            HubClosedError: This event loop has ended, so that no call works.
        """
        if not self.is_here():
            self.soon(_do_nothing)  # raises HubClosedError if the event loop has ended
            raise _elsewhere(what)

    def takes_over(self, function: Callable[[], None]) -> bool:
        """Return False in this event loop; elsewhere, schedule the function to run in it and return True."""
        if self.is_here():
            return False
        self.soon(function)
        return True

    def check_process(self) -> None:
        """Return if this is the process of the event loop, else raise.

        Raises:
            RuntimeError: This process is a fork, in which the event loop does not run.
        """
        if os.getpid() != self._process:
            msg = "this hub was opened before the process was forked: open a hub in each process, or use a Publisher"
            raise RuntimeError(msg)

    def soon(self, function: Callable[[], None]) -> None:
        """Schedule a function to run in this event loop. The call never waits, and works in every thread.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: This process is a fork.
        """
        self.check_process()
        try:
            self._call(function)
        except RuntimeError as error:  # asyncio raises it for a closed loop, trio raises a subclass
            raise _ended() from error

    def wait(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an async function in a task of this event loop, and block the calling thread until it returns.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: This process is a fork.
            Exception: The exception of the function.
        """
        job = self._start(function)
        try:
            return job.outcome.result()
        except BaseException:  # KeyboardInterrupt
            job.give_up()
            raise

    async def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an async function in a task of this event loop, and wait for it in another event loop.

        Raises:
            HubClosedError: The event loop has ended.
            RuntimeError: This process is a fork.
            Exception: The exception of the function.
        """
        answered, call = new_wakeup(), thread_safe_caller()

        def answer(_: "Future[T]") -> None:
            with suppress(RuntimeError):  # the waiting event loop has ended too
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
            raise _ended()  # a loop that has stopped runs no task, and the wait would never end
        job = _Job(self, function)
        self.soon(job.begin)
        return job


def _ended() -> HubClosedError:
    what = "the hub cannot be reached"
    fix = "the event loop that opened it has ended, or is stopped. Close a hub in its own loop; make another one here"
    return HubClosedError(what, fix)


def _do_nothing() -> None:
    """Do nothing; only scheduling it matters."""


def _elsewhere(what: str) -> RuntimeError:
    """Return the error of a call that works only in the hub's own event loop."""
    return RuntimeError(
        f"{what}: this hub belongs to the event loop that opened it, and another event loop runs here. "
        "Do this in the hub's loop. Here `await hub.publish(...)`, `hub.publish_from_thread(...)` and "
        "`hub.publish_soon(...)` work, and so does a second hub of the same Redis that is opened here."
    )


class _Job(Generic[T]):
    """A call that another thread or another event loop waits for."""

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
        except Exception as error:  # noqa: BLE001 - raised again in the caller
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)

    def _end(self) -> None:
        if not self.outcome.done():  # the task was cancelled, as every task is when an event loop ends
            what = "the event loop of the hub ended during the call"
            self.outcome.set_exception(HubClosedError(what, "whether it was carried out is not known"))

    def give_up(self) -> None:
        if not (self.outcome.done() or self.outcome.cancel()):
            with suppress(RuntimeError):  # the event loop and the task have ended
                self._home.soon(self._cancel)

    def _cancel(self) -> None:
        assert self._child is not None  # `begin` was scheduled earlier, so it has run
        self._child.cancel()
