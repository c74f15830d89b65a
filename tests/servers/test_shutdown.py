"""The ShutdownNotice: which streams get the news of a shutdown, which server is theirs, and when they have ended."""

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from servers.local import Listener, heard, running, until
from sse_asgi._servers.server import AskedServer, Server
from sse_asgi._servers.shutdown import MAX_ADDRESSES, ShutdownNotice, current_notice, farewell

pytestmark = pytest.mark.anyio

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
KINDS = pytest.mark.parametrize("kinds", [("uvicorn", "uvicorn"), ("uvicorn", "hypercorn"), ("hypercorn", "hypercorn")])


async def test_each_event_loop_has_one_notice() -> None:
    """The same one within a loop, and another one elsewhere."""
    here = current_notice()
    assert current_notice() is here

    async def elsewhere() -> ShutdownNotice:
        return current_notice()

    assert await anyio.to_thread.run_sync(anyio.run, elsewhere) is not here


# Listeners


async def test_every_listener_is_told_once() -> None:
    """Later ones at once; repeated news is given to none."""
    notice, told = ShutdownNotice(), []

    def one() -> None:
        told.append(1)

    def two() -> None:
        told.append(2)

    notice.listen(one)
    notice.hear()
    notice.hear()
    notice.listen(two)
    assert (told, notice.listeners, notice.heard) == ([1, 2], 2, True)
    notice.unlisten(one)
    notice.unlisten(two)
    assert notice.listeners == 0


async def test_farewells_differ_and_spread_further_for_more_clients() -> None:
    """A retry line without a blank line, and never 0."""
    notice = ShutdownNotice()
    values = {int(farewell(notice).removeprefix(b"retry: ")) for _ in range(200)}
    assert len(values) > 20
    assert min(values) >= 500
    assert max(values) <= 1500
    notice._listeners = dict.fromkeys(range(10_000), notice)  # type: ignore[arg-type]
    assert max(int(farewell(notice).removeprefix(b"retry: ")) for _ in range(200)) > 5000


def listener() -> Callable[[], None]:
    """Return a function that no other test has."""
    return lambda: None


async def test_quiet_comes_with_the_last_stream() -> None:
    """At once where there is no stream; each callback once."""
    notice, told = ShutdownNotice(), []
    notice.watch()
    notice.when_quiet(lambda: told.append("at once"))
    one, two = listener(), listener()
    notice.listen(one)
    notice.listen(two)
    notice.when_quiet(lambda: told.append("later"))
    notice.unlisten(one)
    assert told == ["at once"]
    notice.unlisten(two)
    assert told == ["at once", "later"]
    notice.unwatch()


async def test_a_callback_for_quiet_is_called_once() -> None:
    """Although it is given twice, as by two signals."""
    notice, told = ShutdownNotice(), []

    def callback() -> None:
        told.append(1)

    one = listener()
    notice.listen(one)
    notice.when_quiet(callback)
    notice.when_quiet(callback)
    notice.unlisten(one)
    assert told == [1]


async def test_quiet_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream with an endless background task, for example, never ends."""
    monkeypatch.setattr("sse_asgi._servers.shutdown.QUIET_SECONDS", 0.01)
    notice, event = ShutdownNotice(), anyio.Event()
    one = listener()
    notice.listen(one)
    notice.when_quiet(event.set)
    await heard(event)
    notice.unlisten(one)


async def test_quiet_waits_for_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the longest one that any stream has listened with."""
    monkeypatch.setattr("sse_asgi._servers.shutdown.QUIET_SECONDS", 0.01)
    notice, event = ShutdownNotice(), anyio.Event()
    streams = [listener(), listener()]
    for drain, one in zip((0.2, 0.1), streams, strict=True):
        notice.listen(one, drain=drain)
    began = time.monotonic()
    notice.when_quiet(event.set)
    await heard(event)
    assert time.monotonic() - began >= 0.2
    for one in streams:
        notice.unlisten(one)


async def test_quiet_without_a_server_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal kills the process only after the streams of every server have ended."""
    notice, told, one, server = ShutdownNotice(), [], listener(), Server()
    monkeypatch.setattr(notice, "_server_of", lambda _: server)
    notice.listen(one, {"type": "http"})
    notice.when_quiet(lambda: told.append("this one"), notice)
    notice.when_quiet(lambda: told.append("all"))
    assert told == ["this one"]
    notice.unlisten(one)
    assert told == ["this one", "all"]


# A second signal


async def test_a_signal_that_comes_again_gives_the_news_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may get one signal from its terminal and from its parent, so at first it does not count twice."""
    notice, told = ShutdownNotice(), []

    def one() -> None:
        told.append(1)

    notice.listen(one, drain=30)
    notice.hear_signal()
    notice.hear_signal()
    assert told == [1]
    monkeypatch.setattr("sse_asgi._servers.shutdown.SAME_SECONDS", 0.0)
    notice.hear_signal()
    assert told == [1, 1]
    notice.unlisten(one)


async def test_only_the_streams_of_a_server_get_its_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those whose server is not known."""
    monkeypatch.setattr("sse_asgi._servers.shutdown.SAME_SECONDS", 0.0)
    notice = ShutdownNotice()
    told: list[str] = []
    servers: dict[str, Server] = {"a": Server(), "b": Server(), "unknown": notice}
    monkeypatch.setattr(notice, "_server_of", lambda scope: servers[scope["type"]])
    callbacks = {name: partial(told.append, name) for name in servers}
    for name, callback in callbacks.items():
        notice.listen(callback, {"type": name})
    notice.hear(servers["a"])
    assert told == ["a", "unknown"]
    notice.hear_signal(servers["a"])
    assert told == ["a", "unknown"] * 2
    for callback in callbacks.values():
        notice.unlisten(callback)


@ASYNCIO
async def test_a_server_that_counts_signals_is_asked_for_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn's own handler is left alone."""
    async with running("uvicorn") as server:
        notice = ShutdownNotice()
        one = Listener(notice, server.scope)
        (found,) = notice._asked
        server.stop()
        found.key._captured_signals.append(signal.SIGTERM)
        await until(lambda: one.told == 1)
        assert notice.stops(server.scope)
        monkeypatch.setattr("sse_asgi._servers.shutdown.SAME_SECONDS", 0.0)
        found.key._captured_signals.append(signal.SIGTERM)
        await until(lambda: one.told == 2)
        found.key._captured_signals.clear()
        one.leave()
        assert not notice.stops(server.scope)


# Servers of one event loop


@ASYNCIO
@KINDS
async def test_each_stream_hears_of_its_own_server(kinds: tuple[str, str]) -> None:
    """And of one that stops later. A stream whose server is not known hears of any."""
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


@ASYNCIO
@KINDS
async def test_a_server_that_starts_later_is_found(kinds: tuple[str, str]) -> None:
    """By the address of its first stream, although streams of another server were there before it."""
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


@ASYNCIO
@KINDS
async def test_a_lifespan_is_that_of_its_server(kinds: tuple[str, str]) -> None:
    """The state that the server gives to it decides. A lifespan that ends waits for the streams of its own server."""
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


@ASYNCIO
async def test_a_lifespan_without_a_state_belongs_to_the_notice() -> None:
    """As that of a server which cannot be asked."""
    notice = ShutdownNotice()
    async with running("uvicorn"):
        for scope in ({"type": "lifespan"}, {"type": "lifespan", "state": {}}):
            assert notice.watch(scope) is notice
            notice.unwatch()


@ASYNCIO
async def test_the_streams_of_all_servers_get_the_news_of_a_signal() -> None:
    """A signal is for the whole process."""
    notice = ShutdownNotice()
    async with running("uvicorn") as one, running("hypercorn") as two:
        listeners = [Listener(notice, scope) for scope in (one.scope, two.scope, None)]
        notice.hear()
        notice.hear()
        assert [listener.told for listener in listeners] == [1, 1, 1]
        for listener in listeners:
            listener.leave()


@ASYNCIO
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


@ASYNCIO
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


@ASYNCIO
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
    one = Listener(notice, {"type": "http", "server": ["127.0.0.1", 80]})
    assert one.told == 0
    fakes[1].is_over = True
    await until(lambda: one.told)
    one.leave()
    coroutine.close()


@ASYNCIO
async def test_clients_cannot_fill_the_addresses() -> None:
    """Where clients choose the address of a scope: requests beyond the bound hear of any server."""
    notice = ShutdownNotice()
    async with running("uvicorn") as one:
        notice.watch()
        for port in range(MAX_ADDRESSES + 10):
            Listener(notice, {"type": "http", "server": ("example.com", port)}).leave()
        assert len(notice._at) == MAX_ADDRESSES
        late = Listener(notice, one.scope)
        one.stop()
        await until(lambda: late.told)
        late.leave()
        notice.unwatch()


@ASYNCIO
async def test_a_server_that_has_stopped_is_forgotten() -> None:
    """Also while streams listen."""
    notice = ShutdownNotice()
    async with running("hypercorn") as one:
        stays = Listener(notice, one.scope)
        await one.end()
        await until(lambda: stays.told)
        await until(lambda: not notice.heard)
        assert notice._asked == []
        stays.leave()


# Signals


@ASYNCIO
@pytest.mark.parametrize("kind", ["uvicorn", "hypercorn"])
async def test_handlers_are_touched_only_where_asking_is_not_enough(kind: str) -> None:
    """Uvicorn's own handler sets an attribute that is looked at; hypercorn may never hear of the signal."""
    before = signal.getsignal(signal.SIGTERM)
    notice = ShutdownNotice()
    async with running(kind):
        notice.watch()
        assert (signal.getsignal(signal.SIGTERM) is before) == (kind == "uvicorn")
        notice.unwatch()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_without_known_servers_signals_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers are restored at the end."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.delitem(sys.modules, "hypercorn")
    monkeypatch.delitem(sys.modules, "gunicorn.workers.gasgi")
    notice = ShutdownNotice()
    notice.watch()
    notice.watch()
    assert signal.getsignal(signal.SIGTERM) is not before
    notice.unwatch()
    assert signal.getsignal(signal.SIGTERM) is not before
    notice.unwatch()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_outside_the_main_thread_no_handler_is_touched() -> None:
    """No signal can be heard there."""
    before = signal.getsignal(signal.SIGTERM)
    after = []

    async def elsewhere() -> None:
        notice = current_notice()
        notice.listen(lambda: None)
        after.append(signal.getsignal(signal.SIGTERM))
        notice.unlisten(next(iter(notice._listeners)))

    await anyio.to_thread.run_sync(anyio.run, elsewhere)
    assert after == [before]
