"""Counting the workers of the server that runs here: by its own configuration, and never by a command line."""

import asyncio
import contextlib
import multiprocessing
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import pytest
import uvicorn
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]

from sse_asgi._servers.workers import worker_count

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment of the tests not count."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)


@contextlib.asynccontextmanager
async def running(function: Callable[[], Any]) -> AsyncIterator[None]:
    """Run this in a task that has begun, until the end of the block."""
    task = asyncio.create_task(function())
    await anyio.wait_all_tasks_blocked()
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Quiet(uvicorn.Server):
    """A uvicorn that leaves the tests' signals alone, and does not begin to listen."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: Any = None) -> None:
        await anyio.sleep_forever()


class Worker:
    """A worker of gunicorn, which has the configuration."""

    def __init__(self) -> None:
        self.cfg = SimpleNamespace(workers=3)

    async def callback_notify(self) -> None:
        """Tell the parent process that it lives."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()


async def test_uvicorn_is_configured_for_several() -> None:
    """Each worker has the configuration of the command."""
    async with running(Quiet(uvicorn.Config(app, workers=4, log_level="error")).serve):
        assert worker_count() == 4


async def test_gunicorn_tells_of_the_siblings_of_a_uvicorn() -> None:
    """A UvicornWorker's own configuration says one, or what WEB_CONCURRENCY says."""
    config = uvicorn.Config(app, callback_notify=Worker().callback_notify, log_level="error")
    async with running(Quiet(config).serve):
        assert worker_count() == 3


async def test_another_callback_of_uvicorn_tells_nothing() -> None:
    """It need not be a method of a worker of gunicorn."""

    class Monitor(Worker):
        def __init__(self) -> None:
            self.cfg = SimpleNamespace()

    config = uvicorn.Config(app, callback_notify=Monitor().callback_notify, log_level="error")
    async with running(Quiet(config).serve):
        assert worker_count() == 1


async def test_gunicorns_own_worker_has_the_configuration() -> None:
    """That of its arbiter."""

    class Asgi(ASGIWorker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.cfg = SimpleNamespace(workers=4)

        async def _serve(self) -> None:
            await anyio.sleep_forever()

    async with running(Asgi()._serve):
        assert worker_count() == 4


@pytest.mark.filterwarnings("ignore:The config `workers` has no affect")
@pytest.mark.parametrize(("parent", "count"), [(SimpleNamespace(), 4), (None, 1)])
async def test_hypercorn_is_configured_for_several(monkeypatch: pytest.MonkeyPatch, parent: Any, count: int) -> None:
    """Its workers are children of the command; `serve` is one process, whatever is configured."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    config = hypercorn.Config()
    config.bind, config.loglevel, config.workers = ["127.0.0.1:0"], "critical", 4
    async with running(lambda: hypercorn.asyncio.serve(app, config, shutdown_trigger=anyio.sleep_forever)):
        assert worker_count() == count


GRANIAN = """
def _spawn_workers(self, count):
    return _spawn_asgi_worker(2, count)

def _spawn_asgi_worker(worker_id, count):
    return run(count)

def run(count):
    return count()
"""


async def test_a_forked_worker_of_granian_has_the_server_on_its_stack() -> None:
    """And one that was spawned knows its number."""
    granian: dict[str, Any] = {"__name__": "granian.server.mp"}
    exec(GRANIAN, granian)
    assert granian["_spawn_workers"](SimpleNamespace(workers=4), worker_count) == 4
    assert granian["_spawn_asgi_worker"](3, worker_count) == 3


@pytest.mark.parametrize(("asked_for", "count"), [("4", 4), ("1", 1), ("", 1), ("many", 1)])
async def test_the_environment_asks_for_several(monkeypatch: pytest.MonkeyPatch, asked_for: str, count: int) -> None:
    """Where no server is found."""
    monkeypatch.setenv("WEB_CONCURRENCY", asked_for)
    assert worker_count() == count


async def test_a_command_line_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another program's, and says what only that program knows to read."""
    monkeypatch.setattr("sys.argv", ["/bin/gunicorn", "-w", "4", "app:app"])
    assert worker_count() == 1
