"""gunicorn's own ASGI worker: it is found, asked and counted."""

import sys
from types import SimpleNamespace

import anyio
import pytest
from gunicorn.asgi.protocol import BodyReceiver  # type: ignore[import-untyped]

from servers.local import Listener, Worker, in_task, until
from sse_asgi._servers.gunicorn import Gunicorn
from sse_asgi._servers.known import running_servers
from sse_asgi._servers.shutdown import ShutdownNotice
from sse_asgi._servers.workers import worker_count

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_a_worker_is_a_server() -> None:
    """It has no addresses of its own: it is the only server of its process."""
    worker = Worker()
    async with in_task(worker.serve):
        (found,) = running_servers()
        assert (found.key, found.state, found.addresses(), found.stops()) == (worker, None, [], False)
        worker.alive = False
        assert found.stops()


async def test_a_worker_that_will_end_is_heard() -> None:
    """`--max-requests` sends no signal, and sets the worker's own attribute only."""
    worker, notice, looks = Worker(), ShutdownNotice(), 0
    async with in_task(worker.serve):
        listener = Listener(notice)
        (found,) = notice._asked
        stops = found.stops

        def counted() -> bool:
            nonlocal looks
            looks += 1
            return stops()

        found.stops = counted  # type: ignore[method-assign]
        await until(lambda: looks > 1)
        assert not listener.told
        worker.alive = False
        await until(lambda: listener.told)
        listener.leave()


async def test_a_worker_has_the_configuration_of_its_parent_process() -> None:
    """The number of workers is in it."""
    async with in_task(Worker(workers=4)._serve):
        assert worker_count() == 4


async def test_without_gunicorn_no_worker_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of this process cannot be gunicorn's where its module was never imported."""
    monkeypatch.delitem(sys.modules, "gunicorn.workers.gasgi")
    async with in_task(Worker().serve):
        assert list(running_servers()) == []


async def test_another_object_with_the_same_function_is_not_a_worker() -> None:
    """The name of the function alone does not decide."""

    class Other:
        async def serve(self) -> None:
            await anyio.sleep_forever()

    async with in_task(Other().serve):
        assert list(running_servers()) == []


async def test_the_transport_of_a_request_is_closed() -> None:
    """The protocol says when it has seen that. The body of another server has no such protocol."""
    log: list[str] = []
    protocol = SimpleNamespace(_closed=False, transport=SimpleNamespace(close=lambda: log.append("close")))
    receiver = BodyReceiver(None, protocol)
    closed = Gunicorn().close(receiver.receive)
    assert closed is not None
    assert (closed(), log) == (False, ["close"])
    protocol._closed = True
    assert closed()
    protocol.transport = None
    assert Gunicorn().close(receiver.receive) is None
    assert Gunicorn().close(anyio.sleep_forever) is None  # type: ignore[arg-type]
