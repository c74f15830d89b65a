"""RedisBackend as an application sees it: several processes and hubs, no history, other event loops, its options."""

import asyncio
import sys
from collections.abc import Callable

import anyio
import pytest

from backends.redis.tape import Tape
from real_redis.helpers import busy, ids, restricted, resumed, state_is
from real_redis.launcher import RedisServer
from real_redis.readers import publishing, reading
from sse_asgi import BackendError, Hub, HubClosedError, ServerSentEvent
from sse_asgi._log.event import History, RenderedEvent
from sse_asgi._log.position import Position
from sse_asgi._loop.running import checkpoint
from sse_asgi.backends.base import Member
from sse_asgi.backends.redis import RedisBackend
from sse_asgi.backends.redis._link import LinkLostError

pytestmark = pytest.mark.anyio

NewHub = Callable[..., Hub]


async def test_an_event_arrives_as_it_was_published(new_hub: NewHub) -> None:
    """All fields, the channels and the key travel; the frame is the same in every process."""
    event = ServerSentEvent("ä\n\u2028b", event="note", retry=5, comment="c")
    async with new_hub() as hub, new_hub() as other:
        async with other.subscribe("a", "b") as far, hub.subscribe("a") as near:
            await hub.publish(["a", "b", "c"], event, key="k")
            seen, same = await anext(far), await anext(near)
    assert seen == same
    assert (seen.data, seen.event, seen.retry, seen.comment) == ("ä\n\u2028b", "note", 5, "c")
    assert (seen.channels, same.channels) == (("a", "b"), ("a",))


async def test_a_retry_that_ends_all_reconnecting_arrives(new_hub: NewHub) -> None:
    """The standard has no largest number of milliseconds."""
    async with new_hub() as hub, hub.subscribe("a") as reader:
        await hub.publish("a", "1", retry=10**4299)
        await hub.publish("a", "2")
        assert (await anext(reader)).retry == 10**4299


async def test_two_connections_whatever_the_number_of_readers(server: RedisServer, new_hub: NewHub) -> None:
    """A process has one connection for commands and one for pub/sub."""
    async with new_hub(server) as hub:
        async with hub.subscribe("a"), hub.subscribe("b", "c"), hub.subscribe("a", "d"):
            await hub.publish("a", "1")
            assert server.cli("CLIENT", "LIST").count("\n") == 2  # and that of redis-cli


async def test_readers_come_and_go(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """A channel is subscribed to while it has readers, in spite of a thousand that change their minds."""

    async def visit(hub: Hub) -> None:
        async with hub.subscribe("a"):
            await asyncio.sleep(0)

    async with new_hub() as hub:
        async with reading(hub, "b") as reader, publishing(hub, "b"):
            for _ in range(100):
                await asyncio.gather(*(visit(hub) for _ in range(10)))
            await reader.until(lambda one: len(one.texts) > 10)
        with anyio.fail_after(5):
            while shared_redis.cli("PUBSUB", "CHANNELS", f"sse:{{{name}}}:*"):
                await anyio.sleep(0.01)
        assert reader.texts == [str(number + 1) for number in range(len(reader.texts))]


async def test_without_history_events_only_pass_by(new_hub: NewHub, shared_redis: RedisServer, name: str) -> None:
    """They have no id, are kept nowhere, and reach a reader of several of their channels once."""
    async with new_hub(history_size=0) as hub, new_hub(history_size=0) as other:
        async with reading(hub, "a", "b") as both, reading(other, "b") as one:
            assert await hub.publish("a", "1") is None
            assert await hub.publish(["a", "b", "c"], "2") is None
            assert await hub.publish("b", "3", idempotency_key="key") is None
            assert await hub.publish("b", "4", idempotency_key="key") is None
            assert await hub.publish("b", "5") is None
            await both.has("1", "2", "3", "5")
            await one.has("2", "3", "5")
            assert both.ids == [""] * 4
        assert await hub.history("a") == []
        assert await hub.publish("nobody", "6") is None
    left = set(shared_redis.cli("KEYS", f"sse:{{{name}}}:*").split())
    assert left == {f"sse:{{{name}}}:m", f"sse:{{{name}}}:k:key"}


async def test_two_configurations_of_one_hub(new_hub: NewHub, caplog: pytest.LogCaptureFixture) -> None:
    """A process without history and one with do not hear each other, and both say why."""
    async with new_hub(history_size=0) as hub, new_hub() as other, reading(hub, "a") as one, reading(other, "a") as two:
        for number in "12":
            await other.publish("a", f"kept {number}")
            await hub.publish("a", f"passing {number}")
        await one.has("passing 1", "passing 2")
        await two.has("kept 1", "kept 2")
        await two.until(lambda _: other.backend.ignored == 2)  # type: ignore[attr-defined]
        backend = hub.backend
        assert isinstance(backend, RedisBackend)
        assert backend.ignored == 2
    assert backend.ignored == 0
    warnings = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert [("channel 'a'" in one, "give all of them the same history_size" in one) for one in warnings] == [
        (True, True),
        (True, True),
    ]


async def test_one_backend_carries_several_hubs(server: RedisServer, name: str) -> None:
    """They share the connections; the last one closes them."""
    backend = RedisBackend(server.url, name=name)
    async with Hub(backend) as one:
        async with reading(one, "a") as near:
            async with Hub(backend) as two, reading(two, "a") as far:
                await two.publish("a", "1")
                await far.has("1")
            await one.publish("a", "2")
            await near.has("1", "2")
        server.kill()
        with anyio.fail_after(5):
            while one.state == "up":
                await anyio.sleep(0.01)
        async with Hub(backend) as late:
            assert late.state == "down"
    with pytest.raises(BackendError, match="open its hub first"):
        await backend.history(("a",), None, None, 1)  # type: ignore[arg-type]
    await backend.unsubscribe(("a",))


async def test_a_reader_who_leaves_late_cuts_off_nobody(new_hub: NewHub) -> None:
    """A reader that leaves a hub which was closed and opened again does not disturb the readers of its next life."""
    hub = new_hub()
    async with hub:
        late = await hub.subscribe("a").__aenter__()
    async with hub, reading(hub, "a") as reader:
        await late.__aexit__()
        await hub.publish("a", "1")
        await reader.has("1")


async def test_a_hub_that_is_closed_leaves_no_channel_behind(
    new_hub: NewHub, shared_redis: RedisServer, name: str
) -> None:
    """Where another hub keeps the connections open, the channels of the closed one are unsubscribed from."""
    async with new_hub() as hub:
        async with Hub(hub.backend) as other:
            late = await other.subscribe("a").__aenter__()
        with anyio.fail_after(5):
            while shared_redis.cli("PUBSUB", "CHANNELS", f"sse:{{{name}}}:*"):
                await anyio.sleep(0.01)
        await late.__aexit__()


async def test_an_unknown_channel_is_parted_from_quietly(new_hub: NewHub) -> None:
    """A reader of a hub that was closed and opened again leaves no trace."""
    async with new_hub() as hub:
        await hub.backend.unsubscribe(("never",))


async def test_data_made_for_each_reader_cannot_leave(new_hub: NewHub) -> None:
    """A function as data is refused by the hub, and by the backend."""
    async with new_hub() as hub:
        with pytest.raises(TypeError, match="publish plain data and subscribe with transform="):
            await hub.publish("a", lambda _: "x")
        with pytest.raises(TypeError, match="cannot leave this process"):
            await hub.backend.publish(("a",), RenderedEvent(str, None, None), key=None, idempotency_key=None)


def test_another_loop_is_refused(shared_redis: RedisServer, name: str) -> None:
    """A backend that is open in one event loop cannot be opened in another; after it is closed it can."""
    backend = RedisBackend(shared_redis.url, name=name)

    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(visit())

    async def visit(act: Callable[[], None] | None = None) -> None:
        async with Hub(backend) as hub:
            await hub.publish("a", "1")
            if act is not None:
                await asyncio.to_thread(act)

    asyncio.run(visit(elsewhere))
    asyncio.run(visit())


def test_trio_is_refused() -> None:
    """The hub refuses at once, and the error names the fix."""

    async def main() -> None:
        async with Hub(RedisBackend()):
            pass

    with pytest.raises(RuntimeError, match="RedisBackend runs on asyncio"):
        anyio.run(main, backend="trio")


async def test_history_waits_for_redis(new_server: Callable[..., RedisServer], new_hub: NewHub) -> None:
    """A call for history waits until Redis is back, or fails when the hub is closed."""
    server = new_server("--appendonly", "yes", "--appendfsync", "always").start()
    async with new_hub(server) as hub:
        await hub.publish("a", "1")
        server.restart()
        assert [event.data for event in await hub.history("a")] == ["1"]
        server.kill()
        asking = asyncio.create_task(hub.history("a"))
        await anyio.sleep(0.1)
    with pytest.raises(HubClosedError, match="cannot read"):
        await asking


async def test_history_is_not_waited_for_without_end(
    new_server: Callable[..., RedisServer], new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis is away, a call for history fails after a bounded wait."""
    monkeypatch.setattr("sse_asgi._hub.opening.READ_SECONDS", 0.1)
    server = new_server()
    async with new_hub(server) as hub:
        with pytest.raises(BackendError, match="has not been there yet"):
            await hub.history("a")
        server.start()
        async with hub.subscribe("a"):
            server.kill()
            with pytest.raises(BackendError, match=r"away for 0\.1 s"):
                await hub.history("a")


async def test_history_of_the_life_that_another_process_began(server: RedisServer, new_hub: NewHub) -> None:
    """A process that finds another life of the log while it reads, reads that life from its beginning."""
    async with new_hub(server) as hub, new_hub(server) as other:
        await hub.publish("a", "1")
        server.cli("FLUSHALL")
        await other.publish("a", "2")
        assert [event.data for event in await hub.history("a")] == ["2"]


async def test_a_hub_whose_log_began_another_life(server: RedisServer, new_hub: NewHub) -> None:
    """The first call for history or publish after a flush finds the loss, and readers get a gap."""
    async with new_hub(server) as hub, reading(hub, "quiet") as reader:
        await hub.publish("a", "1")
        server.cli("FLUSHALL")
        assert await hub.history("a") == []
        await reader.until(lambda one: one.gaps == ["epoch"])
        server.cli("FLUSHALL")
        await hub.publish("a", "2")
        await reader.until(lambda one: one.gaps == ["epoch", "epoch"])


@pytest.mark.anyio
async def test_reaching_goes_on_in_the_next_session() -> None:
    """A connection that is lost meanwhile does not prove that everything was delivered."""
    answers: list[Exception | None] = [LinkLostError("lost"), None]

    class Worker:
        async def reach(self) -> None:
            if (answer := answers.pop(0)) is not None:
                raise answer

    backend = RedisBackend()
    backend._keeper = Worker()  # type: ignore[assignment]
    await backend.reach()
    assert answers == []


@pytest.mark.anyio
async def test_a_hub_that_is_closed_says_so_to_all_who_wait_for_a_page() -> None:
    """Readers that share one reading of the page get the error as well."""

    class Deaf(Tape):
        def state(self, *, up: bool) -> None:
            """Hear that nothing is there."""

    backend = RedisBackend("unix:///nowhere/redis.sock")
    place = Position("0badc0de", 1)
    async with backend.connect(Deaf()):
        assert backend._keeper is not None
        backend._keeper.inbox.begin(place)
        tasks = [asyncio.create_task(backend.history(("a",), place, place, 10)) for _ in range(3)]
        await checkpoint()
    for task in tasks:
        with pytest.raises(HubClosedError):
            await task


async def test_functions_are_not_asked_for_the_librarys_own_channels(new_hub: NewHub) -> None:
    """Orders are kept for an hour, whatever the options of the application's events are."""
    sizes, ttls = {"a": 2}, {"a": 60}
    async with (
        new_hub(history_size=sizes.__getitem__, history_ttl=ttls.__getitem__) as hub,
        hub.subscribe("a", identity="ada") as reader,
    ):
        await hub.disconnect(identity="ada")
        with anyio.fail_after(10):
            assert [event async for event in reader] == []
        assert reader.ended == "revoked"


async def test_options_by_channel(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """Functions of the channel's name say how many events it keeps, and for how long."""
    sizes, ttls = {"some": 2, "none": 0, "ever": 5}, {"some": 60.0, "none": 1.0, "ever": None}
    async with new_hub(history_size=sizes.__getitem__, history_ttl=ttls.__getitem__) as hub:
        for name in sizes:
            last = [await hub.publish(name, str(number)) for number in range(4)][-1]
        assert [event.data for event in await hub.history(*sizes)] == ["2", "3", "0", "1", "2", "3"]
        async with reading(hub, *sizes, last_event_id=last) as reader:
            await hub.publish("none", "live")
            await reader.has("live")
        assert reader.gaps == []
    assert shared_redis.cli("PTTL", keys("s:ever")) == "-1"
    assert 50_000 < int(shared_redis.cli("PTTL", keys("s:some"))) <= 60_000


@pytest.mark.parametrize("size", [-5, 10.5, True, "7", 1 << 63])
async def test_a_size_that_cannot_be(new_hub: NewHub, size: object) -> None:
    """The constructor refuses it, or the publish that uses a function's result; no event is lost."""
    with pytest.raises(ValueError, match=f"history_size={size!r}: must be a whole number of events"):
        new_hub(history_size=size)
    async with new_hub() as hub, new_hub(history_size=lambda _: size) as wrong:
        await hub.publish("a", "1")
        with pytest.raises(BackendError, match=f"history_size of the channel 'a' is {size!r}: must be a whole"):
            await wrong.publish("a", "2")
        assert [event.data for event in await hub.history("a")] == ["1"]


@pytest.mark.parametrize("ttl", [0, -5, float("inf"), float("nan"), sys.maxsize, "7"])
async def test_a_time_to_live_that_cannot_be(new_hub: NewHub, ttl: object) -> None:
    """It is refused as a size is."""
    with pytest.raises(ValueError, match=f"history_ttl={ttl!r}: must be seconds above 0 and at most 10000000000"):
        new_hub(history_ttl=ttl)
    async with new_hub(history_ttl=lambda _: ttl) as wrong:
        with pytest.raises(BackendError, match=f"history_ttl of the channel 'a' is {ttl!r}: must be seconds"):
            await wrong.publish("a", "2")


async def test_the_largest_bounds(new_hub: NewHub, shared_redis: RedisServer, keys: Callable[[str], str]) -> None:
    """Events are kept with the largest numbers."""
    async with new_hub(history_size=sys.maxsize, history_ttl=10**10) as hub:
        given = await ids(hub, "a", 3)
        assert await resumed(hub, "a", given[0]) == (["1", "2"], [])
    assert int(shared_redis.cli("PTTL", keys("s:a"))) > 10**13 - 60_000


@pytest.mark.parametrize("size", [0, -5, 10.5, True, "7", 1 << 63])
async def test_bytes_that_cannot_be(new_hub: NewHub, size: object) -> None:
    """They are refused as a size is."""
    with pytest.raises(ValueError, match=r"history_bytes=.*: must be a whole number of bytes, at least 1"):
        new_hub(history_bytes=size)
    async with new_hub(history_bytes=lambda _: size) as wrong:
        with pytest.raises(
            BackendError, match=r"history_bytes of the channel 'a' is .*: must be a whole number of bytes"
        ):
            await wrong.publish("a", "2")


@pytest.mark.parametrize("total", [0, -1, 1.5, True, "7", 1 << 63])
async def test_a_total_that_cannot_be(new_hub: NewHub, total: object) -> None:
    """It is refused when the backend is made."""
    with pytest.raises(
        ValueError, match=r"total_bytes=.*: must be a whole number of bytes, at least 1; history_size=0"
    ):
        new_hub(total_bytes=total)


@pytest.mark.parametrize("options", [{"name": ""}, {"name": "{x}"}, {"prefix": "a}"}, {"timeout": 0}])
def test_a_bad_option_is_refused(options: dict[str, object]) -> None:
    """The ValueError names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        RedisBackend(**options)  # type: ignore[arg-type]


async def test_a_reader_that_gives_up_leaves_no_channel_behind() -> None:
    """While Redis is away."""

    class Deaf(Tape):
        def state(self, *, up: bool) -> None:
            """Hear that nothing is there."""

    backend = RedisBackend("unix:///nowhere/redis.sock")
    async with backend.connect(Deaf()):
        assert backend._keeper is not None
        entering = asyncio.create_task(backend.subscribe(("a",)))
        await asyncio.sleep(0)
        assert len(backend._keeper.inbox.channels) == 1
        entering.cancel()
        await asyncio.wait([entering])
        assert backend._keeper.inbox.channels == {}
        assert "No such file" in backend.trouble
    assert (backend.trouble, backend.ignored) == ("", 0)


async def test_a_position_tells_its_age(new_hub: NewHub) -> None:
    """It has the time of Redis; a clock that is behind it makes no age below 0."""
    async with new_hub() as hub:
        position = Position.parse(await hub.publish("a", "x") or "")
        assert position is not None
        assert 0 <= hub.backend.age(position) < 5
        ahead = position._replace(sequence=position.sequence + 60_000_000)
        assert hub.backend.age(ahead) == 0
        assert 59 < hub.backend.age(position._replace(sequence=position.sequence - 60_000_000)) < 65


async def test_a_position_that_is_ahead_is_answered_once_this_process_is_there(new_hub: NewHub) -> None:
    """Its reader comes from a process that is ahead, and misses nothing."""
    async with new_hub() as hub:
        first = Position.parse(await hub.publish("a", "1") or "")
        last = Position.parse(await hub.publish("a", "2") or "")
        assert first is not None
        assert await hub.backend.history(("a",), last, first, 10) == History([], None)


async def test_a_rewind_in_another_life_of_the_log(server: RedisServer, new_hub: NewHub) -> None:
    """It finds no position, and readers get a gap."""
    async with new_hub(server) as hub, new_hub(server) as other, reading(hub, "a") as reader:
        last = Position.parse(await hub.publish("a", "1") or "")
        assert last is not None
        await reader.has("1")
        server.cli("FLUSHALL")
        await other.publish("b", "2")
        assert await hub.backend.rewind(("a",), 1, last) is None
        await reader.until(lambda one: one.gaps == ["epoch"])


async def test_presence_is_repeated_in_the_next_session(server: RedisServer, new_hub: NewHub) -> None:
    """After the connection was lost, while the server is busy, and after the server was demoted."""
    async with new_hub(server) as hub:
        backend, ada = hub.backend, Member("a", "ada")
        assert await backend.attend("one", lease=9, entered=[ada]) == 1
        async with busy(server, 1):
            assert await backend.present("a") == ["ada"]
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        assert await backend.attend("one", lease=9) == 1
        await state_is(hub, "up")
        server.cli("REPLICAOF", "127.0.0.1", str(server.port))
        leaving = asyncio.create_task(backend.attend("one", lease=9, left=[ada]))
        await state_is(hub, "down")
        server.cli("REPLICAOF", "NO", "ONE")
        assert await leaving == 0


async def test_presence_that_is_refused_is_an_error(server: RedisServer, new_hub: NewHub) -> None:
    """It names the action."""
    url = await restricted(server, "me", "-hincrby")
    async with new_hub(url=url) as hub:
        with pytest.raises(BackendError, match="Redis refused to update presence: "):
            await hub.backend.attend("one", lease=9, entered=[Member("a", "ada")])
