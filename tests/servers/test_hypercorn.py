"""hypercorn: it is found by the frame of its `worker_serve`, asked and counted; its requests have queues."""

import asyncio
import contextlib
import multiprocessing
from collections.abc import Callable
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import anyio
import hypercorn
import pytest

from servers.local import Listener, heard, idle_app, in_task, running, serve_hypercorn
from sse_asgi._servers.hypercorn import Hypercorn
from sse_asgi._servers.known import running_servers
from sse_asgi._servers.server import AskedServer
from sse_asgi._servers.shutdown import ShutdownNotice
from sse_asgi._servers.workers import worker_count

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def serve(on_startup: Callable[[], object], anyio_backend: str, *, stop: anyio.Event) -> None:
    """Run hypercorn in this event loop until the event is set."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        on_startup()
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    config = hypercorn.Config()
    config.bind, config.loglevel = ["127.0.0.1:0"], "critical"
    serve_with: Any = import_module(f"hypercorn.{anyio_backend}").serve
    with anyio.fail_after(5):
        await serve_with(app, config, shutdown_trigger=stop.wait)


async def test_its_shutdown_is_heard(anyio_backend: str) -> None:
    """Hypercorn's own event says it, while the application still runs."""
    notice, stop, told = ShutdownNotice(), anyio.Event(), anyio.Event()

    def start() -> None:
        notice.listen(told.set)
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(serve, start, anyio_backend, stop=stop))
        await heard(told)
    notice.unlisten(told.set)


async def test_it_is_not_asked_without_streams(anyio_backend: str) -> None:
    """The last listener ends the asking: no look is scheduled, and the shutdown is heard by none."""
    notice, stop, told, batches = ShutdownNotice(), anyio.Event(), [], []

    def start() -> None:
        notice.listen(lambda: told.append(1))
        batches.append(notice._next_look.batch)
        assert notice._next_look in batches[0]
        notice.unlisten(next(iter(notice._listeners)))
        stop.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(serve, start, anyio_backend, stop=stop))
    assert batches == [{}]
    assert (told, notice.heard, notice._asked) == ([], False, [])


@ASYNCIO
async def test_a_server_has_a_state_and_addresses() -> None:
    """They are in the frame of its coroutine."""
    async with running("hypercorn") as server:
        (found,) = running_servers()
        assert found.addresses() == [server.scope["server"]]
        assert found.state is server.lifespan["state"]
        assert not found.stops()


@ASYNCIO
async def test_a_server_does_not_stop_before_its_application_has_started() -> None:
    """It has no sockets, and no event that could say so."""
    found: list[AskedServer] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        found.extend(running_servers())
        assert [(one.stops(), one.ended, one.addresses()) for one in found] == [(False, False, [])]
        assert found[0].state is scope["state"]
        await send({"type": "lifespan.startup.failed", "message": ""})

    with contextlib.suppress(Exception):
        await serve_hypercorn(app, asyncio.Event())
    (one,) = found
    assert one.ended
    assert (one.stops(), one.addresses(), one.state) == (False, [], None)


@ASYNCIO
@pytest.mark.filterwarnings("ignore:The config `workers` has no affect")
@pytest.mark.parametrize(("parent", "count"), [(SimpleNamespace(), 4), (None, 1)])
async def test_several_workers_are_configured(monkeypatch: pytest.MonkeyPatch, parent: Any, count: int) -> None:
    """The workers are children of the command; `serve` is one process and ignores the option."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    async with in_task(lambda: serve_hypercorn(idle_app, asyncio.Event(), workers=4)):
        assert worker_count() == count


@ASYNCIO
async def test_another_function_of_that_name_is_not_hypercorn() -> None:
    """The module decides as well, and the name of the function in that module."""

    async def worker_serve() -> None:
        await anyio.sleep_forever()

    async with in_task(worker_serve):
        assert list(running_servers()) == []
    hypercorns: dict[str, Any] = {"__name__": "hypercorn.asyncio.run"}
    exec("async def serve():\n    pass", hypercorns)
    coroutine = hypercorns["serve"]()
    assert Hypercorn().find(coroutine.cr_frame, coroutine) is None
    coroutine.close()


@ASYNCIO
async def test_a_stream_hears_of_its_own_server() -> None:
    """The address of the request names the server."""
    notice = ShutdownNotice()
    async with running("hypercorn") as one, running("hypercorn") as two:
        listeners = [Listener(notice, scope) for scope in (one.scope, two.scope)]
        one.stop()
        with anyio.fail_after(10):
            while not listeners[0].told:
                await anyio.sleep(0.01)
        assert [listener.told for listener in listeners] == [1, 0]
        for listener in listeners:
            listener.leave()


def test_a_request_is_looked_at_in_its_queue() -> None:
    """On asyncio, hypercorn's `receive` is the queue's `get`."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    look = Hypercorn().look(queue.get)
    assert look is not None
    assert look() is None
    queue.put_nowait({"type": "http.disconnect"})
    assert look() is True
