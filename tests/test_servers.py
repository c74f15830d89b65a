"""The servers of one event loop: each is found, asked for itself, and forgotten when it has stopped."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import hypercorn
import hypercorn.asyncio
import pytest
import uvicorn
from gunicorn.workers.gasgi import ASGIWorker  # type: ignore[import-untyped]

from sse_asgi._servers.known import running_servers
from sse_asgi._servers.server import AskedServer, address_of
from sse_asgi._servers.shutdown import MAX_ADDRESSES, ShutdownNotice

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


class Quiet(uvicorn.Server):
    """A server that leaves the tests' signals alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Running:
    """A server in a task of this event loop, and what its application is given."""

    def __init__(
        self, name: Any, stop: Callable[[], object], task: asyncio.Task[Any], state: Any, lingers: anyio.Event
    ) -> None:
        self.scope = {"type": "http", "server": name}
        self.lifespan = {"type": "lifespan", "state": state}
        self.stop = stop
        self._task = task
        self._lingers = lingers

    async def end(self) -> None:
        """Stop, and wait for that."""
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
        event, config = asyncio.Event(), hypercorn.Config()
        config.bind, config.loglevel = [f"127.0.0.1:{port}"], "critical"

        async def trigger() -> None:
            await event.wait()

        task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=trigger))
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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def listens(name: tuple[str, int | None]) -> bool:
    family, address = (socket.AF_UNIX, name[0]) if name[1] is None else (socket.AF_INET, name)
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


class Listener:
    """What a stream does with a notice."""

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


KINDS = pytest.mark.parametrize("kinds", [("uvicorn", "uvicorn"), ("uvicorn", "hypercorn"), ("hypercorn", "hypercorn")])


@KINDS
async def test_each_stream_hears_of_its_own_server(kinds: tuple[str, str]) -> None:
    """And of one that stops later; one whose server is not known hears of any."""
    notice = ShutdownNotice()
    async with running(kinds[0]) as one, running(kinds[1]) as two:
        listeners = [Listener(notice, scope) for scope in (one.scope, two.scope, None)]
        one.stop()
        await until(lambda: listeners[0].told)
        assert [listener.told for listener in listeners] == [1, 0, 1]
        late = [Listener(notice, one.scope), Listener(notice, two.scope)]
        assert [listener.told for listener in late] == [1, 0]
        await one.end()
        await until(lambda: not notice.heard)
        two.stop()
        await until(lambda: listeners[1].told)
        assert [listener.told for listener in late] == [1, 1]
        assert notice.heard
        for listener in (*listeners, *late):
            listener.leave()
    assert not notice.heard


@KINDS
async def test_a_server_that_starts_later_is_found(kinds: tuple[str, str]) -> None:
    """By the address of its first stream, though streams of another were there before it."""
    notice = ShutdownNotice()
    async with running(kinds[0]) as one:
        first = Listener(notice, one.scope)
        async with running(kinds[1]) as two:
            second = Listener(notice, two.scope)
            two.stop()
            await until(lambda: second.told)
            second.leave()
        await until(lambda: not notice.heard)
        assert first.told == 0
        async with running(kinds[1]) as three:
            third = Listener(notice, three.scope)
            assert third.told == 0
            three.stop()
            await until(lambda: third.told)
            third.leave()
        assert first.told == 0
        first.leave()


@KINDS
async def test_a_lifespan_is_that_of_its_server(kinds: tuple[str, str]) -> None:
    """By the state that the server hands to it; what stops with it waits for its streams alone."""
    notice, quiet = ShutdownNotice(), []
    async with running(kinds[0]) as one, running(kinds[1]) as two:
        first, second = notice.watch(one.lifespan), notice.watch(two.lifespan)
        assert first is not second
        listeners = [Listener(notice, one.scope), Listener(notice, two.scope)]
        notice.hear(first)
        assert [listener.told for listener in listeners] == [1, 0]
        notice.when_quiet(lambda: quiet.append("one"), first)
        notice.when_quiet(lambda: quiet.append("two"), second)
        assert quiet == []
        listeners[0].leave()
        assert quiet == ["one"]
        listeners[1].leave()
        assert quiet == ["one", "two"]
        notice.unwatch()
        notice.unwatch()


async def test_a_lifespan_without_a_state_is_of_no_known_server() -> None:
    """As that of a server which is not one of those that can be asked."""
    notice = ShutdownNotice()
    async with running("uvicorn"):
        for scope in ({"type": "lifespan"}, {"type": "lifespan", "state": {}}):
            assert notice.watch(scope) is notice
            notice.unwatch()


async def test_an_application_hears_of_every_server_at_once() -> None:
    """Where a signal tells it."""
    notice = ShutdownNotice()
    async with running("uvicorn") as one, running("hypercorn") as two:
        listeners = [Listener(notice, scope) for scope in (one.scope, two.scope, None)]
        notice.hear()
        notice.hear()
        assert [listener.told for listener in listeners] == [1, 1, 1]
        for listener in listeners:
            listener.leave()


async def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    """Uvicorn names it in the scope."""
    notice = ShutdownNotice()
    async with (
        running("uvicorn", uds=str(tmp_path / "one")) as one,
        running("uvicorn", uds=str(tmp_path / "two")) as two,
    ):
        listeners = [Listener(notice, one.scope), Listener(notice, two.scope)]
        two.stop()
        await until(lambda: listeners[1].told)
        assert listeners[0].told == 0
        for listener in listeners:
            listener.leave()


async def test_a_server_on_all_addresses_is_known_by_its_port() -> None:
    """A scope names the address that the client has reached."""
    notice = ShutdownNotice()
    async with running("uvicorn", host="0.0.0.0") as one, running("uvicorn") as two:
        listeners = [Listener(notice, one.scope), Listener(notice, two.scope)]
        two.stop()
        await until(lambda: listeners[1].told)
        assert listeners[0].told == 0
        for listener in listeners:
            listener.leave()


async def test_servers_at_one_address_are_not_told_apart() -> None:
    """Their streams hear of either."""

    class Fake(AskedServer):
        is_over = False
        workers = 1

        def stops(self) -> bool:
            return self.is_over

        def addresses(self) -> list[Any]:
            return [("127.0.0.1", 80)]

    async def serve() -> None:
        await anyio.sleep_forever()

    coroutine = serve()
    notice, fakes = ShutdownNotice(), [Fake(number, coroutine) for number in range(2)]
    notice._asked += fakes
    listener = Listener(notice, {"type": "http", "server": ["127.0.0.1", 80]})
    assert listener.told == 0
    fakes[1].is_over = True
    await until(lambda: listener.told)
    listener.leave()
    coroutine.close()


async def test_clients_cannot_fill_the_addresses() -> None:
    """Where the address of a scope is what a client says; those that are too many hear of any server."""
    notice = ShutdownNotice()
    async with running("uvicorn") as one:
        notice.watch()
        for port in range(MAX_ADDRESSES + 10):
            Listener(notice, {"type": "http", "server": ("example.com", port)}).leave()
        assert len(notice._at) == MAX_ADDRESSES
        listener = Listener(notice, one.scope)
        one.stop()
        await until(lambda: listener.told)
        listener.leave()
        notice.unwatch()


async def test_a_server_that_has_stopped_while_others_listen_is_forgotten() -> None:
    """Nobody need leave for that."""
    notice = ShutdownNotice()
    async with running("hypercorn") as one:
        listener = Listener(notice, one.scope)
        await one.end()
        await until(lambda: listener.told)
        await until(lambda: not notice.heard)
        assert notice._asked == []
        listener.leave()


async def test_a_gunicorn_worker_is_one() -> None:
    """It has no addresses of its own: it is the only server of its process."""

    class Worker(ASGIWorker):  # type: ignore[misc]
        def __init__(self) -> None:
            self.alive = True

        async def serve(self) -> None:
            await anyio.sleep_forever()

    worker = Worker()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.serve)
        await anyio.sleep(0)
        (found,) = running_servers()
        assert (found.key, found.state, found.addresses(), found.stops()) == (worker, None, [], False)
        worker.alive = False
        assert found.stops()
        tasks.cancel_scope.cancel()


async def test_functions_with_the_names_of_servers_are_none() -> None:
    """Only those of uvicorn, hypercorn and gunicorn are."""

    async def serve() -> None:
        await anyio.sleep_forever()

    async def worker_serve() -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        tasks.start_soon(worker_serve)
        await anyio.sleep(0)
        assert list(running_servers()) == []
        tasks.cancel_scope.cancel()


async def test_a_server_before_its_application_has_started_stops_nothing() -> None:
    """It has no sockets, and none of what says that it stops."""
    found: list[AskedServer] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        found.extend(running_servers())
        assert [(one.stops(), one.ended, one.addresses()) for one in found] == [(False, False, [])]
        assert found[0].state is scope["state"]
        await send({"type": "lifespan.startup.failed", "message": ""})

    config = hypercorn.Config()
    config.bind, config.loglevel = ["127.0.0.1:0"], "critical"
    with contextlib.suppress(Exception):
        await hypercorn.asyncio.serve(app, config)
    (one,) = found
    assert one.ended
    assert (one.stops(), one.addresses(), one.state) == (False, [], None)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("::1", 80, 0, 0), ("::1", 80)),
        (["127.0.0.1", 80], ("127.0.0.1", 80)),
        ("/run/app.sock", ("/run/app.sock", None)),
        (None, (None, None)),
    ],
)
async def test_an_address_is_a_host_and_a_port(name: Any, address: Any) -> None:
    """Or a path and None, as a scope has it."""
    assert address_of(name) == address
