"""One process is cut off while others publish, or reaches servers that it did not expect."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub, PublishUnknownError, ServerSentEvent
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._address import read_address
from sse_asgi.backends.redis._session import Session

pytestmark = pytest.mark.anyio

NewServer = Callable[..., RedisServer]
NewHub = Callable[..., Hub]


async def state_is(hub: Hub, state: str) -> None:
    with anyio.fail_after(10):
        while hub.state != state:
            await anyio.sleep(0.002)


@pytest.mark.parametrize("page", [3, 10_000])
async def test_what_was_missed_is_caught_up(
    new_hub: NewHub, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """After an outage of the network everything that was published meanwhile arrives once, in order, in pages."""
    monkeypatch.setattr("sse_asgi.backends.redis._keeper.CATCH_UP", page)
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as one, reading(far, "b") as two, reading(far, "a", "b") as both:
            await hub.publish(["a", "b"], "0")
            await both.has("0")
            proxy.cut()
            await state_is(far, "down")
            for number in range(1, 10):
                await hub.publish("abc"[number % 3], str(number))
            proxy.open = True
            await hub.publish(["a", "b"], "10")
            await one.has("0", "3", "6", "9", "10")
            await two.has("0", "1", "4", "7", "10")
            await both.has("0", "1", "3", "4", "6", "7", "9", "10")
            assert one.gaps == two.gaps == both.gaps == []


async def test_a_reader_that_is_ahead_of_its_process(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """Whoever moves to a process that is behind gets nothing again that another has given it."""
    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as local, reading(hub, "a") as ahead:
            proxy.cut()
            await state_is(far, "down")
            await hub.publish("a", "1")
            await hub.publish("a", "2")
            await ahead.has("1", "2")
            async with reading(far, "a", wait=False, last_event_id=ahead.ids[0]) as first:
                async with reading(far, "a", wait=False, last_event_id=ahead.ids[1]) as second:
                    await anyio.sleep(0.05)
                    proxy.open = True
                    await state_is(far, "up")
                    await hub.publish("a", "3")
                    await first.has("2", "3")
                    await second.has("3")
                    await local.has("1", "2", "3")
                    assert first.gaps == second.gaps == []


async def test_a_gap_never_leads_back(new_hub: NewHub, shared_redis: RedisServer) -> None:
    """Whoever moves to a process that is behind, and misses something, is told without being sent back."""
    async with proxied(shared_redis) as proxy, new_hub(history_size=3) as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a"):
            proxy.cut()
            await state_is(far, "down")
            known = await hub.publish("a", "1")
            resumed = hub_reader(far, known)
            await anyio.sleep(0.05)
            for number in range(2, 10):
                await hub.publish("a", str(number))
            proxy.open = True
            gap, *events = await resumed
    assert (gap.event, gap.id) == ("sse.gap", known)
    assert [event.data for event in events] == ["7", "8", "9"]


def hub_reader(hub: Hub, last_event_id: str | None) -> "asyncio.Task[list[ServerSentEvent]]":
    async def read() -> list[ServerSentEvent]:
        async with hub.subscribe("a", last_event_id=last_event_id) as subscription:
            return [await anext(subscription) for _ in range(4)]

    return asyncio.create_task(read())


async def test_a_reader_that_knows_the_next_life(server: RedisServer, new_hub: NewHub) -> None:
    """Whoever was told of a loss by one process is not told again by another that has not heard of it."""
    async with proxied(server) as proxy, new_hub(server) as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a") as local:
            await hub.publish("a", "0")
            await local.has("0")
            proxy.cut()
            await state_is(far, "down")
            server.cli("FLUSHALL")
            first = await hub.publish("a", "1")
            async with reading(far, "a", wait=False, last_event_id=first) as moved:
                await anyio.sleep(0.05)
                proxy.open = True
                await state_is(far, "up")
                await hub.publish("a", "2")
                await moved.has("2")
                await local.has("0", "1", "2")
            assert (moved.gaps, local.gaps) == ([], ["epoch"])


async def test_what_was_trimmed_meanwhile_is_told(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """An outage in which more was published than is kept is one gap for the readers of that channel."""
    async with proxied(shared_redis) as proxy, new_hub(history_size=3) as hub:
        async with new_hub(url=proxy.url) as far, reading(far, "a") as one, reading(far, "b") as two:
            await hub.publish(["a", "b"], "0")
            await two.has("0")
            proxy.cut()
            for number in range(1, 7):
                await hub.publish("a", str(number))
            last = await hub.publish("b", "1") or ""
            # Something that is not ours is left out.
            foreign = f"{int(last.partition('-')[2]) + 1}-0"
            await asyncio.to_thread(shared_redis.cli, "XADD", f"sse:{{{name}}}:s:b", foreign, "no", "thing")
            await hub.publish("b", "2")
            proxy.open = True
            await one.has("0", "4", "5", "6")
            await two.has("0", "1", "2")
            assert (one.gaps, two.gaps) == (["trimmed"], [])
            assert far.backend.ignored == 1  # type: ignore[attr-defined]


async def test_two_connections_to_different_servers_are_refused(
    new_server: NewServer, server: RedisServer, new_hub: NewHub, caplog: pytest.LogCaptureFixture
) -> None:
    """A hub whose commands and messages would go to different servers connects again until they do not."""
    async with proxied(server, new_server().start()) as proxy, new_hub(url=proxy.url) as hub:
        assert hub.state == "down"
        proxy.targets.pop()
        await state_is(hub, "up")
    assert "the two connections reached different servers" in caplog.text


async def test_a_server_that_went_back(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A log whose last sequence is before what this process has seen begins another life."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        shared_redis.cli("HSET", f"sse:{{{name}}}:m", "s", "5")
        await reader.until(lambda one: one.gaps == ["epoch"])
        await hub.publish("a", "2")
        await reader.has("1", "2")


async def test_a_reader_that_gives_up_while_it_joins(new_hub: NewHub, server: RedisServer) -> None:
    """Whoever is cancelled while Redis does not answer leaves nothing behind, and others join."""
    async with new_hub(server) as hub:
        server.stop()
        with anyio.move_on_after(0.1):
            async with hub.subscribe("a"):
                raise AssertionError
        server.cont()
        async with reading(hub, "a") as reader:
            await hub.publish("a", "1")
            await reader.has("1")


async def test_a_second_loss_is_unknown_even_with_a_key(server: RedisServer, new_hub: NewHub) -> None:
    """A publish with a key is sent twice at most, and waits once more; then nobody can know."""
    async with new_hub(server, timeout=0.3) as hub:
        server.stop()
        with pytest.raises(PublishUnknownError, match="may have been stored"):
            await hub.publish("a", "1", idempotency_key="key")
        server.cont()


async def test_tls_and_a_unix_socket(new_server: NewServer, new_hub: NewHub, tmp_path: Path) -> None:
    """The other two kinds of URL."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {key} -out {certificate}"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    await asyncio.to_thread(subprocess.run, [*command.split(), *names], check=True, capture_output=True)
    files = ["--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)]
    socket = tmp_path / "redis.sock"
    server = new_server("--unixsocket", str(socket), *files, "--tls-auth-clients", "no").start()
    server.cli("CONFIG", "SET", "port", "0", "tls-port", str(server.port))
    url = f"rediss://localhost:{server.port}?ssl_ca_certs={certificate}"
    async with new_hub(url=url) as secret, new_hub(url=f"unix://{socket}") as local:
        assert secret.state == local.state == "up"
        async with reading(secret, "a") as reader:
            await local.publish("a", "1")
            await reader.has("1")
    async with new_hub(url=f"rediss://localhost:{server.port}") as stranger:
        assert stranger.state == "down"


@pytest.mark.parametrize("error", [None, ZeroDivisionError("a fault")])
async def test_a_session_that_ends_while_it_begins(
    new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    """A connection that is lost in the last moment is noticed before anything relies on it; a fault of ours as well."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        catch_up, times = keeper._catch_up, iter([None])

        async def late(session: Session) -> None:
            await catch_up(session)
            for _ in times:
                session.fail("for a test")
                if error is not None:
                    raise error

        monkeypatch.setattr(keeper, "_catch_up", late)
        keeper.session.fail("for a test")
        await state_is(hub, "down")
        await state_is(hub, "up")
        await hub.publish("a", "1")
        await reader.has("1")


async def test_a_log_that_ends_while_it_is_read(
    server: RedisServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush in the middle of catching up is one gap."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        backend = hub.backend
        assert isinstance(backend, RedisBackend)
        changed, times = backend._history_reader.changed, iter([None])

        async def flush(*arguments: Any) -> tuple[str, ...]:
            found = await changed(*arguments)
            for _ in times:
                await asyncio.to_thread(server.cli, "FLUSHALL")
                await other.publish("a", "3")
            return found

        monkeypatch.setattr(backend._history_reader, "changed", flush)
        assert backend._keeper is not None
        assert backend._keeper.session is not None
        backend._keeper.session.fail("for a test")
        await other.publish("a", "2")
        await reader.until(lambda one: one.texts[-1:] == ["3"])
        assert reader.gaps == ["epoch"]


async def test_another_process_begins_a_new_life(server: RedisServer, new_hub: NewHub) -> None:
    """A hub that hears nothing finds out within a few seconds that its log is another one."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        await reader.has("1")
        server.cli("FLUSHALL")
        await other.publish("b", "1")
        await reader.until(lambda one: one.gaps == ["epoch"])


async def test_a_demoted_master_refuses(new_server: NewServer, server: RedisServer, new_hub: NewHub) -> None:
    """What a server refuses because it is no master any more is published when there is one again."""
    async with new_hub(server) as hub, reading(hub, "a") as reader:
        await hub.publish("a", "1")
        server.cli("REPLICAOF", "127.0.0.1", str(server.port))
        publishing = asyncio.create_task(hub.publish("a", "2"))
        await state_is(hub, "down")
        server.cli("REPLICAOF", "NO", "ONE")
        await publishing
        await reader.has("1", "2")
        assert reader.gaps == []


@pytest.mark.parametrize("key", [None, "key"])
async def test_an_answer_of_a_server_that_was_left(
    new_server: NewServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """What it stored after another took over may be lost: the event is unknown, or with a key sent to the other."""
    old, new = new_server().start(), new_server().start()
    async with new_hub(old) as hub, reading(hub, "a") as reader:
        backend = hub.backend
        assert isinstance(backend, RedisBackend)
        assert backend._keeper is not None
        assert backend._keeper.session is not None
        await hub.publish("a", "0")  # from now on the server has the script
        await reader.has("0")
        old.stop()
        publish = asyncio.create_task(hub.publish("a", "1", idempotency_key=key))
        await anyio.sleep(0.05)  # it is on its way
        monkeypatch.setattr(backend._addresses, "find", read_address(new.url).find)
        backend._keeper.session.fail("for a test")
        await reader.until(lambda one: one.gaps == ["epoch"])
        old.cont()
        if key is None:
            with pytest.raises(PublishUnknownError, match="another server had taken over when it answered"):
                await publish
        else:
            stored = await publish
            await reader.until(lambda one: one.ids[1:] == [stored])


async def test_catching_up_leaves_time_for_others(
    new_hub: NewHub, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many missed events are handed over, the loop goes on, and a session that ends meanwhile loses none."""
    turns: list[int] = []
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with proxied(shared_redis) as proxy, new_hub() as hub, new_hub(url=proxy.url) as far:
        async with reading(far, "a", buffer_size=1000) as reader:  # it need not read history itself
            keeper = far.backend._keeper  # type: ignore[attr-defined]
            decode = keeper.decode

            def count(*arguments: Any) -> Any:
                turns.append(ticks)
                if len(turns) == 300:
                    keeper.session.fail("for a test")
                return decode(*arguments)

            monkeypatch.setattr(keeper, "decode", count)
            proxy.cut()
            await state_is(far, "down")
            await asyncio.gather(*(hub.publish("a", str(number)) for number in range(1000)))
            ticking = asyncio.create_task(tick())
            proxy.open = True
            await reader.until(lambda one: len(one.texts) == 1000)
            ticking.cancel()
            assert sorted(map(int, filter(None, reader.texts))) == list(range(1000))
            assert reader.gaps == []
    assert len(set(turns[300:])) > 2
