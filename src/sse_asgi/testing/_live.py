"""LiveServer: uvicorn with the application of a test, for clients that need a real connection."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any, Self

from starlette.types import ASGIApp

START_SECONDS = 15.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.005


class LiveServer:
    """uvicorn in a thread of this process, on a free port of 127.0.0.1. Its `with` block starts and stops it.

    The block is entered when the application's startup is complete, and left when its shutdown is.

    Attributes:
        url: The address, such as `http://127.0.0.1:43211`, without a slash at its end.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Prepare; nothing listens yet.

        Args:
            app: The ASGI application.

        Raises:
            TypeError: `app` is not an ASGI application.
            RuntimeError: uvicorn is not installed.
        """
        if not callable(app):
            msg = f"app must be an ASGI application (got {type(app).__name__}): import it, and give the object"
            raise TypeError(msg)
        try:
            import uvicorn  # noqa: PLC0415 - only this class needs it
        except ModuleNotFoundError as error:
            msg = "LiveServer needs uvicorn: pip install uvicorn"
            raise RuntimeError(msg) from error
        self._server: Any = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=int(STOP_SECONDS / 2))
        )
        self.url: str = ""
        self._thread: threading.Thread

    def __enter__(self) -> Self:
        """Start, and wait until the application has started.

        Raises:
            RuntimeError: The application's startup failed; uvicorn's log says why.
        """
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, args=(listener,), name="uvicorn of a test", daemon=True)
        self._thread.start()
        latest = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > latest:
                self._server.should_exit = True
                msg = "the application has not started: the log of uvicorn.error says why"
                raise RuntimeError(msg)
            time.sleep(LOOK_SECONDS)
        return self

    def _run(self, listener: socket.socket) -> None:
        with listener, suppress(SystemExit):  # uvicorn's way to say that the startup has failed
            self._server.run(sockets=[listener])

    def __exit__(self, *exc_info: object) -> None:
        """Stop: streams end, then the shutdown of the application's lifespan runs.

        Raises:
            RuntimeError: The application does not stop within 10 seconds.
        """
        self._server.should_exit = True
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._server.force_exit = True
            msg = f"the application has not stopped in {STOP_SECONDS:g} s: something in it does not end"
            raise RuntimeError(msg)
