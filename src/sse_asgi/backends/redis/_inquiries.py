"""Calls that may block for long, such as a DNS look-up without an answer.

Each runs in a daemon thread of its own. The event loop's executor would be the usual place, but the loop and the
process wait for its threads when they end, and a blocked call would take a thread from the application.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

FRESH_SECONDS = 10.0

Outcome = tuple[float, Any, BaseException | None]


class Inquiries:
    """Runs at most one call at a time for each key. A later caller waits for the call that is running."""

    def __init__(self) -> None:
        """Run nothing yet."""
        self._running: dict[Hashable, asyncio.Future[Outcome]] = {}

    async def ask(self, key: Hashable, call: Callable[[], Any]) -> Any:
        """Return the result of the call.

        If the caller is cancelled, the call goes on, and the next caller within FRESH_SECONDS gets its result.

        Raises:
            Exception: The exception of the call.
        """
        future = self._current(key) or self._start(key, call)
        _, value, error = await asyncio.shield(future)
        if self._running.get(key) is future:
            del self._running[key]
        if error is not None:
            raise error
        return value

    def _current(self, key: Hashable) -> "asyncio.Future[Outcome] | None":
        future = self._running.get(key)
        if future is None or future.get_loop() is not asyncio.get_running_loop():
            return None
        return None if future.done() and time.monotonic() - future.result()[0] > FRESH_SECONDS else future

    def _start(self, key: Hashable, call: Callable[[], Any]) -> "asyncio.Future[Outcome]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def run() -> None:
            value, failure = None, None
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 - raised again in the event loop
                failure = error
            with contextlib.suppress(RuntimeError):  # the event loop has closed
                loop.call_soon_threadsafe(future.set_result, (time.monotonic(), value, failure))

        threading.Thread(target=run, name="sse_asgi look-up", daemon=True).start()
        self._running[key] = future
        return future
