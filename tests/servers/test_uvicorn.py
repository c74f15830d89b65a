"""uvicorn: its Server is found, asked and counted; its requests are looked at, and their transports aborted."""

import asyncio
import contextlib
import sys
import threading
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import uvicorn

from servers.local import Quiet, Unstarted, idle_app, in_task, running
from sse_asgi._servers.known import running_servers
from sse_asgi._servers.shutdown import ShutdownNotice, current_notice
from sse_asgi._servers.uvicorn import Uvicorn
from sse_asgi._servers.workers import worker_count

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
HTTP1_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
WITH_ZTTP = pytest.mark.skipif(
    find_spec("uvicorn.protocols.http.zttp_h2_impl") is None, reason="this uvicorn has no zttp"
)
# The preface, the settings, the head, and a body: zttp 0.0.35 does not tell of the end of a request without a body.
HTTP2_REQUEST = b"".join(
    (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\4\0\0\0\0\0",
        b"\0\0\6\1\4\0\0\0\1\x82\x84\x86\x41\1x",
        b"\0\0\1\0\1\0\0\0\1x",
    )
)

# The server


@ASYNCIO
@pytest.mark.anyio
async def test_a_server_has_a_state_and_addresses() -> None:
    """They are attributes of the Server, which stops when `should_exit` says so."""
    async with running("uvicorn") as server:
        (found,) = running_servers()
        assert found.addresses() == [server.scope["server"]]
        assert found.state is server.lifespan["state"]
        assert found.tells_of_signals
        assert not found.stops()
        server.stop()
        assert found.stops()


@ASYNCIO
@pytest.mark.anyio
async def test_a_server_that_closes_its_sockets_stops() -> None:
    """`--limit-max-requests` closes them without setting `should_exit`."""
    async with running("uvicorn"):
        (found,) = running_servers()
        for one in found.key.servers:
            one.close()
        assert not found.key.should_exit
        assert found.stops()


@ASYNCIO
@pytest.mark.anyio
async def test_without_uvicorn_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of this process cannot be uvicorn's where its module was never imported."""
    monkeypatch.delitem(sys.modules, "uvicorn.server")
    async with in_task(Unstarted(uvicorn.Config(idle_app, log_level="error")).serve):
        assert list(running_servers()) == []


class Served:
    """A uvicorn server in a thread, whose app runs a function in its loop."""

    def __init__(self, function: Any, **config: Any) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await receive()
                function(self)
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})

        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on", **config))
        self.log: list[Any] = []

    def run(self) -> None:
        thread = threading.Thread(target=self.server.run)
        thread.start()
        while not self.server.started:
            assert thread.is_alive()
        self.server.should_exit = True
        thread.join(5)
        assert not thread.is_alive()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_shutdown_is_heard_in_a_thread(loop: str) -> None:
    """The instance that serves this loop is found and asked, and the loop may serve again after it."""

    def start(served: Served) -> None:
        assert [one.key for one in running_servers()] == [served.server]
        notice = current_notice()

        def listener() -> None:
            served.log.append(notice.heard)
            notice.unlisten(listener)

        notice.listen(listener)
        served.log.append(notice)

    served = Served(start, loop=loop)
    served.run()
    notice, heard_then = served.log
    assert heard_then is True
    assert notice.heard is False


def test_a_server_that_is_stopping_is_heard_at_once() -> None:
    """A stream that begins after the signal gets the news immediately."""

    def start(served: Served) -> None:
        served.server.should_exit = True
        notice = ShutdownNotice()
        notice.listen(lambda: served.log.append("heard"))
        notice.unlisten(next(iter(notice._listeners)))
        served.server.should_exit = False

    served = Served(start)
    served.run()
    assert served.log == ["heard"]


# Its workers


class GunicornWorker:
    """A worker of gunicorn, which has the configuration."""

    def __init__(self, **configuration: int) -> None:
        self.cfg = SimpleNamespace(**configuration)

    async def callback_notify(self) -> None:
        """Tell the parent process that this one is alive."""


@ASYNCIO
@pytest.mark.anyio
async def test_several_workers_are_configured() -> None:
    """Each worker has the configuration of the command."""
    async with in_task(Unstarted(uvicorn.Config(idle_app, workers=4, log_level="error")).serve):
        assert worker_count() == 4


@ASYNCIO
@pytest.mark.anyio
async def test_gunicorn_counts_the_workers_of_uvicorn() -> None:
    """A UvicornWorker's own configuration says 1, or the number in WEB_CONCURRENCY."""
    config = uvicorn.Config(idle_app, callback_notify=GunicornWorker(workers=3).callback_notify, log_level="error")
    async with in_task(Unstarted(config).serve):
        assert worker_count() == 3


@ASYNCIO
@pytest.mark.anyio
async def test_another_callback_says_nothing_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It need not be a method of a worker of gunicorn."""
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    config = uvicorn.Config(idle_app, callback_notify=GunicornWorker().callback_notify, log_level="error")
    async with in_task(Unstarted(config).serve):
        assert worker_count() == 1


# Its requests


class Cycle:
    """A request as uvicorn's protocols have it."""

    def __init__(self) -> None:
        self.disconnected = False
        self.more_body = True
        self.body = b""
        self.message_event = asyncio.Event()
        self.aborted = 0
        self.transport = SimpleNamespace(abort=self.count)

    def count(self) -> None:
        self.aborted += 1

    async def receive(self) -> Any:
        """Be a method."""


async def receive() -> Any:
    """Belong to no object."""


def test_a_request_is_looked_at_without_a_message() -> None:
    """The body was taken when no more of it comes, none is kept, and no message waits."""
    cycle = Cycle()
    look = Uvicorn().look(cycle.receive)
    assert look is not None
    assert look() is None
    cycle.more_body, cycle.body = False, b"x"
    assert look() is None
    cycle.body = b""
    cycle.message_event.set()
    assert look() is None
    cycle.message_event.clear()
    assert look() is False
    cycle.disconnected = True
    assert look() is True
    assert Uvicorn().look(receive) is None


def test_a_transport_is_aborted() -> None:
    """The request has it; another `receive` does not lead to one."""
    cycle = Cycle()
    assert Uvicorn().abort(cycle.receive) is True
    assert cycle.aborted == 1
    assert Uvicorn().abort(receive) is False


@ASYNCIO
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("options", "request_bytes"),
    [
        ({"http": "h11"}, HTTP1_REQUEST),
        ({"http": "httptools"}, HTTP1_REQUEST),
        pytest.param({"http": "zttp"}, HTTP1_REQUEST, marks=WITH_ZTTP),
        pytest.param({"http": "zttp", "http2": True}, HTTP2_REQUEST, marks=WITH_ZTTP),
    ],
    ids=["h11", "httptools", "zttp", "zttp over HTTP/2"],
)
async def test_a_real_request_is_one_of_these(options: dict[str, Any], request_bytes: bytes) -> None:
    """The requests of uvicorn's own protocols have these attributes, a transport, and a module that is listed."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            look = Uvicorn().look(receive)
            assert look is not None
            await receive()
            seen.extend([look(), type(receive.__self__).__module__ in Uvicorn.steppable])
            seen.append(Uvicorn().abort(receive))

    server = Quiet(uvicorn.Config(app, port=0, lifespan="off", log_level="critical", **options))
    task = asyncio.create_task(server.serve())
    with anyio.fail_after(10):
        while not server.started:
            await anyio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(request_bytes)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
    writer.close()
    server.should_exit = True
    await task
    assert seen == [False, True, True]


def test_a_stream_of_http2_is_reset_alone() -> None:
    """Its request has a function for that. The other protocols close their transport, and see that they did."""
    log: list[str] = []
    cycle = Bare()
    assert Uvicorn().close(receive) is None
    assert Uvicorn().breaks_off({}, cycle.receive) is None
    cycle.__dict__.update(transport=SimpleNamespace(close=lambda: log.append("close")), disconnected=False)
    closed = Uvicorn().close(cycle.receive)
    assert closed is not None
    assert (closed(), log) == (False, ["close"])
    cycle.__dict__.update(disconnected=True, abort_stream=lambda: log.append("reset"))
    assert (closed(), Uvicorn().breaks_off({}, cycle.receive)) == (True, True)
    assert Uvicorn().close(cycle.receive) is not None
    assert log == ["close", "reset"]


class Bare:
    async def receive(self) -> Any:
        await anyio.sleep_forever()


@ASYNCIO
@pytest.mark.anyio
async def test_a_server_counts_its_signals() -> None:
    """A second one is seen in this way, because uvicorn's own handler is left alone."""
    async with running("uvicorn") as server:
        (found,) = running_servers()
        assert found.signals == 0
        found.key._captured_signals.append(15)
        assert found.signals == 1
        found.key._captured_signals.clear()
        server.stop()
