"""One session after another: connecting, catching up, and ending."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

from real_redis.helpers import epoch, state_is
from real_redis.launcher import RedisServer
from real_redis.proxy import proxied
from real_redis.readers import reading
from sse_asgi import Hub, HubClosedError, PublishUnknownError
from sse_asgi._log.position import Position
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._address import read_address
from sse_asgi.backends.redis._session import Session

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]
NewServer = Callable[..., RedisServer]


async def test_a_fault_of_ours_is_one_traceback(
    new_hub: NewHub, shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not one for each attempt."""
    async with new_hub() as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        calls: list[None] = []

        async def fail(session: object) -> None:
            calls.append(None)
            raise ZeroDivisionError

        monkeypatch.setattr(keeper, "_begin", fail)
        keeper.session.fail("for a test")
        with anyio.fail_after(20):
            while len(calls) < 4:
                await anyio.sleep(0.01)
    assert len([one for one in caplog.records if one.exc_info]) == 1


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


async def test_a_reader_that_gives_up_while_it_joins(new_hub: NewHub, server: RedisServer) -> None:
    """A reader that is cancelled while Redis does not answer leaves no channel behind, and others can subscribe."""
    async with new_hub(server) as hub:
        server.stop()
        with anyio.move_on_after(0.1):
            async with hub.subscribe("a"):
                raise AssertionError
        server.cont()
        async with reading(hub, "a") as reader:
            await hub.publish("a", "1")
            await reader.has("1")


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


async def test_a_key_that_is_remembered_from_another_life(
    new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """The returned position is an old one, and causes no gap."""
    async with new_hub() as hub, new_hub() as other:
        first = await hub.publish("a", "1", idempotency_key="key")
        shared_redis.cli("DEL", keys("m"))
        await other.publish("a", "2")
        last = await hub.publish("a", "3") or ""
        with anyio.fail_after(5):
            while {epoch(hub), epoch(other)} != {last.partition("-")[0]}:
                await anyio.sleep(0.01)
        caplog.clear()
        assert await hub.publish("a", "1", idempotency_key="key") == first
        assert await other.publish("a", "1", idempotency_key="key") == first
        assert caplog.text == ""


async def test_a_flood_during_catching_up(
    server: RedisServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that cannot hold all events while it catches up, catches up once more and loses none."""
    monkeypatch.setattr("sse_asgi.backends.redis._inbox.HELD", 0)
    async with new_hub(server) as hub, new_hub(server) as other:
        async with reading(other, "a") as reader:
            await hub.publish("a", "0")
            await reader.has("0")
            backend = other.backend
            assert isinstance(backend, RedisBackend)
            assert backend._keeper is not None
            keeper = backend._keeper
            reach, late = keeper._catch_up_to, iter(["2", "3"])

            async def slowly(*arguments: Any) -> None:
                await reach(*arguments)
                for text in late:
                    await hub.publish("a", text)
                    await anyio.sleep(0.05)
                    break

            monkeypatch.setattr(keeper, "_catch_up_to", slowly)
            assert keeper.session is not None
            keeper.session.fail("for a test")
            await hub.publish("a", "1")
            await reader.until(lambda one: "3" in one.texts)
        assert reader.texts == ["0", "1", "2", "3"]
        assert reader.gaps == []


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


@pytest.mark.parametrize("key", [None, "key"])
async def test_an_answer_of_a_server_that_was_left(
    new_server: NewServer, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    """Its events may be lost after another server took over: the event is unknown, or with a key sent again."""
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


async def test_without_history_an_outage_is_told(server: RedisServer, new_hub: NewHub) -> None:
    """Each reader gets one gap, because lost events are not known without history."""
    async with new_hub(server, history_size=0) as hub, reading(hub, "a") as reader:
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await reader.until(lambda one: one.gaps == ["lost"])
        await hub.publish("a", "1")
        await reader.has("1")


async def test_calls_wait_for_a_session(server: RedisServer, new_hub: NewHub) -> None:
    """While Redis is away, and until the hub is closed; the reason is known meanwhile."""
    async with new_hub(server) as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        await keeper.reach()
        server.kill()
        await state_is(hub, "down")
        calls = [asyncio.create_task(one) for one in (keeper.commands(), keeper.follow(None, "x"), keeper.reach())]
        await asyncio.sleep(0.1)
        assert "Connection" in keeper.trouble
        await asyncio.to_thread(server.start)
        session, *_ = await asyncio.gather(*calls)
        assert session is keeper.session
        server.kill()
        await state_is(hub, "down")
        late = [asyncio.create_task(one) for one in (keeper.commands(), keeper.reach())]
        await asyncio.sleep(0.01)
    for one in late:
        with pytest.raises(HubClosedError, match="cannot read"):
            await one


async def test_another_life_of_the_log_ends_the_session(server: RedisServer, new_hub: NewHub) -> None:
    """Where a page of history, or the answer to a publish, is of another epoch than this process knows."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(hub, "quiet") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        await hub.publish("a", "1")
        finds: list[Callable[[], Awaitable[object]]] = [partial(hub.history, "a"), partial(hub.publish, "a", "3")]
        for number, find in enumerate(finds, 1):
            session = keeper.session
            server.cli("FLUSHALL")
            await other.publish("a", "2")
            await find()
            await reader.until(lambda one, number=number: one.gaps == ["epoch"] * number)  # type: ignore[misc]
            assert (session.reason, keeper.session is session) == ("its log began another life", False)


async def test_a_hub_that_joins_a_keeper_hears_where_it_is(server: RedisServer, name: str) -> None:
    """The position, and an outage."""
    backend = RedisBackend(server.url, name=name)
    async with Hub(backend) as hub, Hub(backend) as second:
        await hub.publish("a", "1")
        assert epoch(second) == epoch(hub)
        server.kill()
        await state_is(hub, "down")
        async with Hub(backend) as third:
            assert third.state == "down"


async def test_an_entry_that_is_not_ours_is_left_out_of_catching_up(
    new_hub: NewHub, shared_redis: RedisServer, name: str
) -> None:
    """And counted; the position goes on."""
    async with new_hub() as hub, reading(hub, "a") as reader:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        first = await hub.publish("a", "1") or ""
        await reader.has("1")
        stream, sequence = f"sse:{{{name}}}:s:a", int(first.partition("-")[2]) + 1
        shared_redis.cli("XADD", stream, f"{sequence}-0", "no", "thing")
        shared_redis.cli("ZADD", f"sse:{{{name}}}:i", str(sequence), "a")
        shared_redis.cli("HSET", f"sse:{{{name}}}:m", "s", str(sequence))
        keeper.session.fail("for a test")
        await reader.until(lambda _: keeper.inbox.ignored)
        await hub.publish("a", "2")
        await reader.has("1", "2")


@pytest.mark.parametrize("doubtful", [False, True])
async def test_a_session_is_probed_from_time_to_time(
    new_hub: NewHub,
    monkeypatch: pytest.MonkeyPatch,
    doubtful: bool,  # noqa: FBT001
) -> None:
    """One that is in doubt is proved; it lives on."""
    monkeypatch.setattr("sse_asgi.backends.redis._keeper.PROBE_SECONDS", 0.01)
    async with new_hub() as hub:
        session = hub.backend._keeper.session  # type: ignore[attr-defined]
        for _ in range(3):
            session._due = due = 0.0 if doubtful else session._due
            with anyio.fail_after(10):
                while session._due <= due:
                    await anyio.sleep(0.01)
        assert hub.backend._keeper.session is session  # type: ignore[attr-defined]


async def test_the_application_starts_while_a_provider_takes_long(
    new_hub: NewHub, locked: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is down, and the reason is known; when the provider answers, the hub is up."""
    monkeypatch.setattr("sse_asgi.backends.redis._keeper.START_SECONDS", 0.05)
    go_on = asyncio.Event()

    class Slow:
        async def get_credentials_async(self) -> tuple[str]:
            await go_on.wait()
            return ("right",)

    async with new_hub(url={"host": "127.0.0.1", "port": locked.port, "credential_provider": Slow()}) as hub:
        assert (hub.state, hub.backend.trouble) == ("down", "the credential provider has not answered yet")
        go_on.set()
        await state_is(hub, "up")


async def test_the_fence_knows_the_last_position_of_a_publish(new_hub: NewHub) -> None:
    """It may be later than the last event that arrived here, and of another life."""
    async with new_hub() as hub:
        keeper = hub.backend._keeper  # type: ignore[attr-defined]
        given = await hub.publish("nobody reads this", "1")
        assert str(keeper._known()) == given
        keeper._acknowledged = Position("0badc0de", 7)
        assert keeper._known() == keeper.inbox.position
        keeper._acknowledged = None
        assert keeper._known() == keeper.inbox.position
        keeper.unsubscribe([b"never"])


async def test_a_hub_that_has_started_in_time_stays_up(new_hub: NewHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound for a slow start changes nothing after the first attempt."""
    monkeypatch.setattr("sse_asgi.backends.redis._keeper.START_SECONDS", 3600)
    async with new_hub() as hub:
        hub.backend._keeper._start_without()  # type: ignore[attr-defined]
        assert (hub.state, hub.backend.trouble) == ("up", "")
