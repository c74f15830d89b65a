"""hub.disconnect: which streams it ends, in which process, and after which failures."""

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sse_asgi import Hub, MemoryBackend, ServerSentEvent, Subscription
from sse_asgi._hub.registry import CONTROL

pytestmark = pytest.mark.anyio


@dataclass
class User:
    name: str
    team: Any


PROPERTIES: list[tuple[Any, Any, bool]] = [
    ("ada", "ada", True),
    ("ada", "bob", False),
    (7, 7, True),
    ({"user": 7}, {"user": 7, "team": 1}, True),
    ({"user": 7, "team": 1}, {"user": 7}, False),
    ({"user": 7}, "user", False),
    ({"admin": 1}, {"admin": True}, False),
    ({"admin": True}, {"admin": 1}, False),
    ([{"b": 1, "a": [0]}], [{"a": [False], "b": 1}], False),
    ([{"b": 1, "a": [0]}], [{"a": [0], "b": 1}], True),
    ({"team": {"id": 1}}, User("ada", {"id": 1, "name": "x"}), True),
    ({"name": "ada"}, SimpleNamespace(name="ada"), True),
    ({"name": "ada"}, SimpleNamespace(name="bob"), False),
    ({"name": {"first": "ada"}}, SimpleNamespace(), False),
    ([1, 2], (1, 2), True),
    (7, object(), False),
    (7, float("nan"), False),
]


async def ended(subscription: Subscription) -> str | None:
    with anyio.fail_after(5):
        async for _ in subscription:
            pass
    return subscription.ended


async def others_are_open(hub: Hub, *subscriptions: Subscription) -> None:
    """Wait until a later order has been obeyed, then check that these readers are still open."""
    async with hub.subscribe("later", identity="later") as later:
        await hub.disconnect(identity="later")
        await ended(later)
    assert [one.ended for one in subscriptions] == [None] * len(subscriptions)


@pytest.mark.parametrize(("wanted", "properties", "matches"), PROPERTIES)
async def test_streams_end_whose_properties_match(wanted: Any, properties: Any, *, matches: bool) -> None:
    """Equal as JSON, or with every item that is asked for; a mapping's items may be an object's attributes."""
    async with Hub() as hub, hub.subscribe("a", properties=properties) as reader:
        await hub.disconnect(wanted)
        if matches:
            assert await ended(reader) == "revoked"
        else:
            await others_are_open(hub, reader)


async def test_streams_end_of_an_identity_and_of_a_channel() -> None:
    """Everything that is given must hold."""
    async with (
        Hub() as hub,
        hub.subscribe("a", identity="ada") as one,
        hub.subscribe("b", "c", identity="ada", properties=1) as two,
        hub.subscribe("b", identity="bob", properties=1) as three,
    ):
        await hub.disconnect(1, identity="ada", channels="c")
        assert await ended(two) == "revoked"
        await others_are_open(hub, one, three)
        await hub.disconnect(identity="ada", channels=["x", "a"])
        assert await ended(one) == "revoked"
        await others_are_open(hub, three)


async def test_every_hub_on_the_backend_obeys() -> None:
    """The order travels by the log."""
    backend = MemoryBackend()
    async with Hub(backend) as here, Hub(backend) as there, there.subscribe("a", identity="ada") as reader:
        await here.disconnect(identity="ada")
        assert await ended(reader) == "revoked"


async def test_an_order_that_came_before_it_was_heard_is_obeyed() -> None:
    """The order ends a reader that exists when it is given."""
    async with Hub() as hub:
        reader = hub.subscribe("a", identity="ada")
        await reader.__aenter__()
        await hub.disconnect(identity="ada")
        assert await ended(reader) == "revoked"
        await reader.__aexit__()


async def test_an_order_that_is_heard_before_a_reader_enters_concerns_it() -> None:
    """A reader authorized before the order gets no event; a reader authorized after it is not affected."""
    async with Hub() as hub:
        first = await hub.publish("a", "x")
        since = hub.moment()
        before = hub.subscribe("a", identity="ada", last_event_id=first)
        await others_are_open(hub)
        await hub.publish("a", "y")
        await hub.disconnect(identity="ada")
        await others_are_open(hub)
        after = hub.subscribe("a", identity="ada")
        late = hub.subscribe("a", identity="ada", since=since)
        async with before, after, late:
            with anyio.fail_after(5):
                assert [event async for event in before] == [event async for event in late] == []
            assert (before.ended, late.ended, after.ended) == ("revoked", "revoked", None)


@pytest.mark.parametrize("arguments", [{}, {"properties": {}}, {"channels": ["a"]}])
async def test_everybody_is_not_meant(arguments: Any) -> None:
    """An order that would end all streams is refused; drain() does that."""
    async with Hub() as hub:
        with pytest.raises(ValueError, match=r"say whose streams.*disconnect\(identity='ada'\)"):
            await hub.disconnect(**arguments)


IDENTITIES: list[tuple[Any, type[Exception], str]] = [
    (7, TypeError, r"such as str\(user.id\) \(got int\)"),
    ("", ValueError, "identity '' is empty"),
    ("\ud800", ValueError, "lone surrogates"),
    ("a\nb", ValueError, "control characters"),
    ("é" * 257, ValueError, "longer than 512 bytes"),
]


@pytest.mark.parametrize(("identity", "error", "match"), IDENTITIES)
async def test_an_identity_is_what_could_be_a_name(identity: Any, error: type[Exception], match: str) -> None:
    """Other identities cannot be listed, or differ from themselves after JSON."""
    async with Hub() as hub:
        with pytest.raises(error, match=match):
            hub.subscribe("a", identity=identity)
        with pytest.raises(error, match=match):
            await hub.disconnect(identity=identity)


async def test_what_is_no_order_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """Malformed orders do not stop the hub from obeying later ones."""
    async with Hub() as hub, hub.subscribe("a", identity="ada") as reader:
        events = [
            ServerSentEvent(data, event="disconnect")
            for data in ("{", "{}", "[]", '{"identity":null,"channels":7,"properties":1}')
        ]
        events.append(ServerSentEvent({"identity": "ada", "channels": None, "properties": None}, event="message"))
        for event in events:
            await hub.backend.publish((CONTROL,), event, key=None, idempotency_key=None)
        await others_are_open(hub, reader)
        await hub.disconnect(identity="ada")
        assert await ended(reader) == "revoked"
    assert caplog.text.count("ignored a malformed order") == 5


class Detached:
    """An object that is detached from its database session."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property
    def team(self) -> int:
        raise self._error


@pytest.mark.parametrize("error", [RuntimeError("detached"), KeyError("team")])
async def test_properties_that_cannot_be_read_concern_their_reader_only(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The other streams end, and the failure is logged."""
    async with (
        Hub() as hub,
        hub.subscribe("a", properties=Detached(error)) as broken,
        hub.subscribe("a", properties={"team": 7}) as reader,
    ):
        for _ in range(2):
            await hub.disconnect({"team": 7})
        assert await ended(reader) == "revoked"
        await others_are_open(hub, broken)
    assert "Detached" in caplog.text


async def test_lost_orders_are_told_to_the_operator(caplog: pytest.LogCaptureFixture) -> None:
    """If the log itself was lost, the lost orders are unknown, and a warning says so."""
    async with Hub() as hub, hub.subscribe("a", identity="ada") as reader:
        await anyio.wait_all_tasks_blocked()
        for one in list(hub._registry._channels[CONTROL].readers):  # type: ignore[union-attr]
            one.lose("epoch")
        await others_are_open(hub, reader)
    assert "orders of hub.disconnect were lost" in caplog.text


async def test_a_failure_of_the_backend_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The hub then receives no orders, and logs this once; readers go on."""

    class Broken(MemoryBackend):
        async def subscribe(self, channels: tuple[str, ...]) -> Any:
            if CONTROL in channels:
                raise OSError
            return await super().subscribe(channels)

    async with Hub(Broken()) as hub, hub.subscribe("a", identity="ada") as reader:
        await hub.publish("a", "x")
        assert (await anext(reader)).data == "x"
        with anyio.fail_after(5):
            while "receiving orders of hub.disconnect failed" not in caplog.text:
                await anyio.sleep(0.001)


async def test_who_cannot_be_concerned_costs_nothing() -> None:
    """A hub listens only when it has a reader with properties or an identity, and the hub's own reader is not shown."""
    async with Hub() as hub, hub.subscribe("a"):
        assert CONTROL not in hub._registry._channels  # type: ignore[union-attr]
        async with hub.subscribe("a", properties=1):
            await anyio.wait_all_tasks_blocked()
            assert hub._registry._channels[CONTROL].readers  # type: ignore[union-attr]
            assert hub.stats().channels == {"a": 2}
            assert len(hub.subscriptions()) == 2


async def test_whoever_comes_during_a_drain_is_concerned() -> None:
    """The hub's own reader is not drained."""
    async with Hub() as hub, hub.subscribe("a", identity="ada") as ada, anyio.create_task_group() as tasks:
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(hub.drain)
        while ada.ended is None:
            await anyio.sleep(0)
        async with hub.subscribe("a", identity="bob") as bob:
            await anyio.wait_all_tasks_blocked()
            await hub.disconnect(identity="bob")
            assert await ended(bob) == "revoked"
        tasks.cancel_scope.cancel()


async def test_after_a_drain_it_is_heard_again() -> None:
    """The next reader can be disconnected."""
    async with Hub() as hub:
        async with hub.subscribe("a", properties=1) as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(hub.drain)
            assert await ended(reader) == "shutdown"
            await reader.__aexit__()
        async with hub.subscribe("a", identity="ada") as reader:
            await hub.disconnect(identity="ada")
            assert await ended(reader) == "revoked"


async def test_a_thread_can_begin_to_listen() -> None:
    """Orders after its call are received, and a second call changes nothing."""
    async with Hub() as hub:
        await anyio.to_thread.run_sync(hub.moment)
        hub._orders.start()
        hub._orders.start()
        async with hub.subscribe("a", identity="ada") as reader:
            await hub.disconnect(identity="ada")
            assert await ended(reader) == "revoked"


async def test_an_order_of_another_type_is_obeyed_by_its_own_function(caplog: pytest.LogCaptureFixture) -> None:
    obeyed: list[Any] = []
    async with Hub() as hub:
        hub._orders.obey["other"] = obeyed.append
        hub.moment()
        for data in ('{"a":1}', "x"):
            order = ServerSentEvent(data, event="other")
            await hub.backend.publish((CONTROL,), order, key=None, idempotency_key=None)
        await anyio.wait_all_tasks_blocked()
        assert obeyed == [{"a": 1}]
        assert "malformed order" in caplog.text


async def test_closing_the_hub_ends_the_listening() -> None:
    """A hub that closes before its task has begun raises nothing."""
    async with Hub() as hub:
        hub.moment()
        registry = hub._registry
    assert registry is not None
    await anyio.wait_all_tasks_blocked()
    assert hub.state == "closed"


async def test_a_thread_and_the_loop_may_begin_to_listen_at_once() -> None:
    """The hub listens once: the call that the thread has scheduled finds that the loop has begun."""
    async with Hub() as hub:
        thread = threading.Thread(target=hub.moment)
        thread.start()
        thread.join()  # blocks the event loop, so that the scheduled call waits
        hub.moment()
        await anyio.wait_all_tasks_blocked()
        assert len(hub._registry._channels[CONTROL].readers) == 1  # type: ignore[union-attr]
