"""Servers in tasks of a test's own event loop, and listeners for their shutdown."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import uvicorn
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]

from servers.processes import free_port
from sse_asgi._servers.shutdown import ShutdownNotice


class Quiet(uvicorn.Server):
    """A uvicorn that leaves the signal handlers of the tests alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Unstarted(Quiet):
    """A uvicorn that serves without listening."""

    async def startup(self, sockets: Any = None) -> None:
        await anyio.sleep_forever()


class Worker(ASGIWorker):  # type: ignore[misc]
    """gunicorn's own ASGI worker, without its parent process and its sockets."""

    def __init__(self, workers: int = 1) -> None:
        self.alive = True
        self.cfg = SimpleNamespace(workers=workers)

    async def serve(self) -> None:
        await anyio.sleep_forever()

    async def _serve(self) -> None:
        await anyio.sleep_forever()


class Running:
    """A server in a task of this event loop, and the scopes that its application gets."""

    def __init__(
        self, name: Any, stop: Callable[[], object], task: asyncio.Task[Any], state: Any, lingers: anyio.Event
    ) -> None:
        self.scope = {"type": "http", "server": name}
        self.lifespan = {"type": "lifespan", "state": state}
        self.stop = stop
        self._task = task
        self._lingers = lingers

    async def end(self) -> None:
        """Stop the server, and wait until it has stopped."""
        self.stop()
        self._lingers.set()
        await self._task


@contextlib.asynccontextmanager
async def running(kind: str, **options: Any) -> AsyncIterator[Running]:
    """Run a server, and stop it at the end."""
    lingers, states = anyio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        states.append(scope["state"])
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await lingers.wait()
        await send({"type": "lifespan.shutdown.complete"})

    port = free_port()
    if kind == "uvicorn":
        server = Quiet(uvicorn.Config(app, port=port, log_level="error", **options))
        task = asyncio.create_task(server.serve())
        stop: Callable[[], object] = lambda: setattr(server, "should_exit", True)  # noqa: E731
    else:
        event = asyncio.Event()
        task = asyncio.create_task(serve_hypercorn(app, event, port))
        stop = event.set
    name = (options["uds"], None) if "uds" in options else ("127.0.0.1", port)
    with anyio.fail_after(10):
        while not listens(name):
            assert not task.done()
            await anyio.sleep(0.01)
    server_there = Running(name, stop, task, states[0], lingers)
    try:
        yield server_there
    finally:
        await server_there.end()


async def serve_hypercorn(app: Any, stop: asyncio.Event, port: int = 0, *, workers: int = 1) -> None:
    """Run hypercorn in this event loop until the event is set."""
    config = hypercorn.Config()
    config.bind, config.loglevel, config.workers = [f"127.0.0.1:{port}"], "critical", workers

    async def trigger() -> None:
        await stop.wait()

    await hypercorn.asyncio.serve(app, config, shutdown_trigger=trigger)


def listens(name: tuple[str, int | None]) -> bool:
    family, address = (socket.AF_UNIX, name[0]) if name[1] is None else (socket.AF_INET, name)
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


@contextlib.asynccontextmanager
async def in_task(function: Callable[[], Any]) -> AsyncIterator[None]:
    """Run a function in a task until the end of the block, which begins when the task waits."""
    task = asyncio.create_task(function())
    await anyio.wait_all_tasks_blocked()
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Listener:
    """Listens to a notice as a stream does."""

    def __init__(self, notice: ShutdownNotice, scope: Any = None) -> None:
        self.told = 0
        self._notice = notice
        notice.listen(self.tell, scope)

    def tell(self) -> None:
        self.told += 1

    def leave(self) -> None:
        self._notice.unlisten(self.tell)


async def until(fact: Callable[[], Any]) -> None:
    with anyio.fail_after(10):
        while not fact():
            await anyio.sleep(0.01)


async def heard(event: anyio.Event) -> None:
    with anyio.fail_after(5):
        await event.wait()


async def idle_app(scope: Any, receive: Any, send: Any) -> None:
    """Answer the lifespan, as every application may."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
