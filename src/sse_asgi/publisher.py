"""Publishing from code without an event loop: scripts, Celery tasks, Django views.

A Publisher has a hub of its own, open in a thread of its own, and publishes by that hub's code. A second, synchronous
implementation of the connections to Redis would have to repeat their repair, their scripts and their errors.

A process that is forked has none of its parent's threads, while locks that a thread held at the fork stay locked for
ever. So a forked process never touches its parent's worker. It compares process ids at each call, and makes a worker of
its own: hooks of `os.register_at_fork` do not run where a server forks in C, as uWSGI does. The connections that it
inherits stay open and unused, because they are the parent's as well.
"""

import _thread
import contextlib
import os
import threading
import types
import weakref
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import replace
from functools import partial
from typing import Any, Generic, NamedTuple, Self, TypeVar, Unpack

import anyio
from anyio.from_thread import BlockingPortal

from ._hub.hub import Hub
from ._hub.run_options import RunOptions, Source
from ._log.run import RunState
from ._loop.running import in_event_loop, thread_safe_caller
from .config import Settings, create_hub

LEAVE_SECONDS = 1.0
CLOSE_SECONDS = 10.0
T = TypeVar("T")
CLOSED = "this Publisher is closed: make another one"


class Publisher:
    """Publishes to a hub that other processes serve, by plain calls, from any thread.

    It connects at the first publish, in a thread of its own. A process that is forked from this one connects again.
    `close`, the end of its `with` block and the end of the process end it.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        """Check the settings; the first publish connects.

        Args:
            url: Replaces the `backend_url` of the settings.
            settings: None reads the environment. The options of the history must be the same in every process.

        Raises:
            ValueError: The URL is unknown, or in memory, where the readers of other processes do not get the events.
            RuntimeError: gevent or eventlet has replaced threads by greenlets.
        """
        _check_threads()
        settings = settings or Settings.from_environment()
        self._settings = settings if url is None else replace(settings, backend_url=url, url_variable="SSE_BACKEND_URL")
        if create_hub(self._settings).backend.in_process:
            msg = (
                "events in memory:// stay in their process, where a Publisher has no readers: give the URL of the web "
                "application, such as redis://localhost, or set SSE_BACKEND_URL"
            )
            raise ValueError(msg)
        self._first = _Worker(self._settings)
        weakref.finalize(self, _leave, self._first).atexit = False

    def publish(
        self,
        channels: str | Collection[str],
        data: Any,
        *,
        event: str | None = None,
        retry: int | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
    ) -> str | None:
        """Publish one event and wait until it is stored; arguments, result and errors are those of `Hub.publish`.

        Args:
            channels: See Hub.publish, like all arguments below.
            data: See Hub.publish; it cannot be a function.
            event: See Hub.publish.
            retry: See Hub.publish.
            key: See Hub.publish.
            idempotency_key: See Hub.publish.

        Raises:
            RuntimeError: An event loop runs in this thread, and would be blocked; or the Publisher is closed.
        """
        _check_thread("await hub.publish(...)")

        def publish(hub: Hub) -> Coroutine[Any, Any, str | None]:
            return hub.publish(channels, data, event=event, retry=retry, key=key, idempotency_key=idempotency_key)

        return self._worker().call(publish)

    def run(self, key: str, source: Source | Callable[[], Source], **options: Unpack[RunOptions]) -> RunState:
        """Run a source once in this process, and wait until the run has ended; `Hub.start_run` has the arguments.

        The events of a Celery task then reach whoever follows the run in a web application. If the key has a run
        already, the call waits for its end. A call that is interrupted cancels the run that it has started.

        Args:
            key: See Hub.start_run.
            source: See Hub.start_run. A generator that is not async runs in a thread of its own.
            options: See Hub.start_run.

        Returns:
            How the run has ended: `finished`, `failed`, `cancelled` or `lost`.

        Raises:
            RuntimeError: An event loop runs in this thread, and would be blocked; or the Publisher is closed.
            SSEError: The errors of Hub.start_run, like ValueError and TypeError.
        """
        _check_thread("await hub.start_run(...)")
        return self._worker().call(partial(_run_to_end, key=key, source=source, options=options))

    def close(self, *, timeout: float | None = CLOSE_SECONDS) -> None:
        """Wait for the events that other threads are publishing, then end the thread and the connections.

        Args:
            timeout: The longest time to wait, in seconds; None waits without a limit. After that time the thread goes
                on until its events are stored or the process ends.
        """
        worker = self._worker()
        worker.stop()
        worker.join(timeout)

    def _worker(self) -> "_Worker":
        return self._first.of_this_process()

    def __enter__(self) -> Self:
        """Return the Publisher."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the Publisher."""
        self.close()


def _check_thread(instead: str) -> None:
    if in_event_loop():
        msg = f"a Publisher would block the event loop that runs in this thread: call `{instead}` instead"
        raise RuntimeError(msg)


async def _run_to_end(hub: Hub, key: str, source: Source | Callable[[], Source], options: RunOptions) -> RunState:
    run = await hub.start_run(key, source, **options)
    try:
        return await run.wait()
    except BaseException:
        if run.started:
            with anyio.move_on_after(LEAVE_SECONDS, shield=True):
                await hub.cancel_run(key)
        raise


def _check_threads() -> None:
    """Check that threads are threads of the operating system.

    Raises:
        RuntimeError: They are greenlets, which would all share the one event loop of their thread.
    """
    are_threads = isinstance(_thread.start_new_thread, types.BuiltinFunctionType)
    if not are_threads:
        msg = (
            "a Publisher needs threads, and gevent or eventlet has replaced them by greenlets: run the application "
            "with threads, as `gunicorn -k gthread` does, or POST the event to the web application, which publishes "
            "it with EventSourceApp(hub, publish=...)"
        )
        raise RuntimeError(msg)


def _leave(first: "_Worker") -> None:
    """End this process's worker of a Publisher that is garbage-collected.

    It waits a little: a script may end right after, and the interpreter should not end in the middle of a thread.
    """
    worker = first.of_this_process()
    worker.stop()
    worker.join(LEAVE_SECONDS)


class _Opened(NamedTuple):
    """A hub that is open in its thread, and functions for other threads: one that ends both, and one that calls there.

    `soon` does not wait, and raises RuntimeError if the event loop has ended.
    """

    hub: Hub
    portal: BlockingPortal
    stop: Callable[[], object]
    soon: Callable[[Callable[[], None]], object]


class _Call(Generic[T]):
    """A call in the hub's thread, which its caller can give up at any time, also before it has begun."""

    def __init__(
        self, function: Callable[[Hub], Coroutine[Any, Any, T]], soon: Callable[[Callable[[], None]], object]
    ) -> None:
        self._function = function
        self._soon = soon
        self._given_up = False
        self._scope: anyio.CancelScope | None = None

    async def run(self, hub: Hub) -> T:
        with anyio.CancelScope() as self._scope:
            if not self._given_up:
                return await self._function(hub)
        raise CancelledError

    def give_up(self) -> None:
        self._given_up = True
        with contextlib.suppress(RuntimeError):
            self._soon(self._cancel)

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()


class _Worker:
    """A Publisher's hub in one process, open in a thread that the first publish starts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process = os.getpid()
        self._of_forks: dict[int, _Worker] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started = False
        self._opened: Future[_Opened] = Future()
        self._closed = False

    def of_this_process(self) -> "_Worker":
        """Return this worker, or another one in a forked process."""
        process, worker = os.getpid(), self
        while not worker._lives_in(process):
            others = worker._of_forks
            worker = others.get(process) or others.setdefault(process, _Worker(self._settings))
        return worker

    def _lives_in(self, process: int) -> bool:
        """Return True if this worker can be used in this process.

        The process id alone is not enough: a child may get the id of a parent that has ended. There the thread is dead.
        """
        if self._process != process:
            return False
        if self._closed or not self._started or self._thread is None or self._thread.is_alive():
            return True
        return self._opened.done() and self._opened.exception() is not None

    def call(self, function: Callable[[Hub], Coroutine[Any, Any, T]]) -> T:
        """Call an async function with the hub, in the thread of the hub, and wait for its result."""
        opened = self._open()
        call = _Call(function, opened.soon)
        try:
            with self._lock:
                self._check()
                answer = opened.portal.start_task_soon(call.run, opened.hub)
            return answer.result()
        except BaseException:  # KeyboardInterrupt, which may come before there is an answer to cancel
            call.give_up()
            raise

    def _open(self) -> _Opened:
        with self._lock:
            self._check()
            if self._thread is None:
                self._start()
        try:
            return self._opened.result()
        except CancelledError:
            raise RuntimeError(CLOSED) from None

    def _start(self) -> None:
        _check_threads()  # greenlets may have replaced threads since the Publisher was made
        # Set before the thread starts, so that an interrupt at this point does not lead to a second thread.
        self._thread = threading.Thread(target=self._run, name="sse_asgi publisher", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads
            self._thread = None
            raise
        self._started = True

    def _check(self) -> None:
        if self._closed:
            raise RuntimeError(CLOSED)

    def stop(self) -> None:
        """Tell the thread to end, without waiting for it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._opened.cancel() and self._opened.exception() is None:
                self._opened.result().stop()

    def join(self, seconds: float | None) -> None:
        """Wait for the end of the thread, unless it is the current one."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(seconds)

    # In the thread

    def _run(self) -> None:
        try:
            anyio.run(self._serve)
        except Exception as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _serve(self) -> None:
        stop = anyio.Event()
        async with create_hub(self._settings) as hub, BlockingPortal() as portal:
            with contextlib.suppress(InvalidStateError):  # the Publisher was closed before the hub was open
                soon = thread_safe_caller()
                self._opened.set_result(_Opened(hub, portal, partial(soon, stop.set), soon))
                await stop.wait()
