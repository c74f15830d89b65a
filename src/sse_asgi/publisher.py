"""Publishing from where no event loop runs: scripts, Celery tasks, Django views."""

import _thread
import contextlib
import os
import threading
import types
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future, InvalidStateError
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Self

import anyio
from anyio.from_thread import BlockingPortal

from ._hub.hub import Hub
from ._loop.running import in_event_loop, thread_safe_caller
from .config import Settings, create_hub

LEAVE_SECONDS = 1.0
CLOSE_SECONDS = 10.0
CLOSED = "this Publisher is closed: make another one"


class Publisher:
    """Publishes to a hub that other processes serve, by plain calls, from any thread.

    It connects at the first publish, in a thread of its own, and a process that is forked from this one does so again.
    It ends with `close`, with its `with` block, or with the process.
    """

    def __init__(self, url: str | None = None, *, settings: Settings | None = None) -> None:
        """Prepare; nothing is connected before the first publish.

        Args:
            url: As `SSE_BACKEND_URL`, in place of the settings'.
            settings: None reads the environment: what is kept of each channel must be the same in every process.

        Raises:
            ValueError: An address that is not known, or one in memory, where no other process would see the events.
            RuntimeError: gevent or eventlet has put greenlets in the place of threads.
        """
        _check_threads()
        settings = settings or Settings.from_environment()
        self._settings = settings if url is None else replace(settings, backend_url=url, url_variable="SSE_BACKEND_URL")
        if create_hub(self._settings).backend.in_process:
            msg = (
                "events in memory:// stay in their process, where a Publisher has no readers: give the URL that the "
                "web application has, such as redis://localhost, or set SSE_BACKEND_URL"
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

        Raises:
            RuntimeError: An event loop runs in this thread, which would wait too; or the Publisher is closed.
        """
        if in_event_loop():
            msg = "a Publisher would hold up the event loop of this thread: `await hub.publish(...)` instead"
            raise RuntimeError(msg)
        options = {"event": event, "retry": retry, "key": key, "idempotency_key": idempotency_key}
        return self._worker().publish(channels, data, options)

    def close(self, *, timeout: float | None = CLOSE_SECONDS) -> None:
        """Let what other threads are publishing be stored, then end the thread and the connections.

        Args:
            timeout: Seconds to wait for that; what takes longer ends by itself later, or with the process. None waits
                until it is done.
        """
        worker = self._worker()
        worker.stop()
        worker.join(timeout)

    def _worker(self) -> "_Worker":
        return self._first.of_this_process()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()


def _check_threads() -> None:
    """Accept real threads.

    Raises:
        RuntimeError: They are greenlets, which would all share the one event loop that a thread can have.
    """
    are_threads = isinstance(_thread.start_new_thread, types.BuiltinFunctionType)
    if not are_threads:
        msg = (
            "a Publisher needs threads, and gevent or eventlet has put greenlets in their place: run the application "
            "with threads, as `gunicorn -k gthread` does, or POST the event to the web application, which publishes "
            "it with EventSourceApp(hub, publish=...)"
        )
        raise RuntimeError(msg)


def _leave(first: "_Worker") -> None:
    """End what this process has of a Publisher that is collected.

    It waits a little, because a script may end right after, and its last threads are best not in the middle of things.
    """
    worker = first.of_this_process()
    worker.stop()
    worker.join(LEAVE_SECONDS)


class _Opened(NamedTuple):
    """A hub in the event loop of its thread, and how to end both, from any thread."""

    hub: Hub
    portal: BlockingPortal
    stop: Callable[[], object]


class _Worker:
    """One process's part of a Publisher: a hub, open in a thread that the first publish starts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process = os.getpid()
        self._heirs: dict[int, _Worker] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._started = False
        self._opened: Future[_Opened] = Future()
        self._closed = False

    def of_this_process(self) -> "_Worker":
        """Return this, or in a fork of its process another one: a fork has its parent's locks, and none of its threads.

        Numbers are compared, because no hook of Python's runs where a server forks in C, as uWSGI does. The parent's
        stays where it is: its connections are the parent's as well.
        """
        process, worker = os.getpid(), self
        while not worker._lives_in(process):
            heirs = worker._heirs
            worker = heirs.get(process) or heirs.setdefault(process, _Worker(self._settings))
        return worker

    def _lives_in(self, process: int) -> bool:
        """Return False in another process, also in one that has the number of a parent that ended."""
        if self._process != process:
            return False
        if self._closed or not self._started or self._thread is None or self._thread.is_alive():
            return True
        return self._opened.done() and self._opened.exception() is not None

    def publish(self, channels: str | Collection[str], data: Any, options: dict[str, Any]) -> str | None:
        opened = self._open()
        with self._lock:
            self._check()
            stored = opened.portal.start_task_soon(partial(opened.hub.publish, channels, data, **options))
        try:
            return stored.result()
        except BaseException:  # KeyboardInterrupt
            stored.cancel()
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
        _check_threads()  # they may have been replaced since the Publisher was made
        # Noted before it starts, so that an interrupt meanwhile does not make it two.
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
        """Have the thread end; this does not wait."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._opened.cancel() and self._opened.exception() is None:
                self._opened.result().stop()

    def join(self, seconds: float | None) -> None:
        """Wait for the thread to end, unless this is it."""
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
            with contextlib.suppress(InvalidStateError):  # it was closed meanwhile
                self._opened.set_result(_Opened(hub, portal, partial(thread_safe_caller(), stop.set)))
                await stop.wait()
